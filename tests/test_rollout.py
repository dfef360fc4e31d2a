"""The update policies agree with closed forms."""

import pytest
import torch

from spinlock.simulation.rollout import rollout, update_step
from tests.helpers import values


def run(v, operator, noise, timesteps=5, realizations=3):
    initial = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = torch.empty(realizations, timesteps, 3, 8, 8)
    rollout(operator, initial, noise, update_step(v), out)
    return initial, out


def silence(t):
    return torch.zeros(3, 3, 8, 8)


@pytest.mark.parametrize(
    ("policy", "factor"),
    [("autoregressive", 0.5), ("residual", 1 + 0.05 * 0.5), ("convex", 0.3 + 0.7 * 0.5)],
)
def test_linear_operator_gives_powers(policy, factor):
    v = values(update_policy=policy, alpha=0.3, dt=0.05)
    initial, out = run(v, lambda u: 0.5 * u, silence)
    for t in range(5):
        expected = (factor ** (t + 1) * initial).expand(3, -1, -1, -1)
        torch.testing.assert_close(out[:, t], expected)


@pytest.mark.parametrize(
    ("policy", "gain"), [("autoregressive", 1.0), ("residual", 0.05), ("convex", 0.7)]
)
def test_forcing_is_part_of_the_operator_output(policy, gain):
    v = values(update_policy=policy, alpha=0.3, dt=0.05)
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    initial, out = run(v, torch.zeros_like, lambda t: noise * t, timesteps=1)
    kept = {"autoregressive": 0.0, "residual": 1.0, "convex": 0.3}[policy]
    torch.testing.assert_close(out[:, 0], kept * initial + gain * noise)


def test_first_application_is_shared_by_all_realizations():
    sizes = []

    def operator(u):
        sizes.append(len(u))
        return u

    run(values(), operator, silence, timesteps=3)
    assert sizes == [1, 3, 3]


def test_timesteps_are_counted_from_one():
    seen = []

    def noise(t):
        seen.append(t)
        return silence(t)

    run(values(), lambda u: u, noise, timesteps=3)
    assert seen == [1, 2, 3]


def test_unknown_policy():
    with pytest.raises(ValueError, match="unknown policy 'leapfrog'"):
        update_step(values(update_policy="leapfrog"))
