"""Forcing, update and transport of a block are those of its samples, in few operations."""

import numpy as np
import pytest
import torch

from spinlock.simulation.block_forcing import BlockForcing, BlockUpdate
from spinlock.simulation.forcing import Forcing
from spinlock.simulation.rollout import update_step
from spinlock.simulation.transport_flow import TransportFlow, TransportFlows
from tests.counting import CountOperations, on_cpu, on_meta
from tests.helpers import values

KINDS = [
    {"noise_type": kind, "spatial_correlation": length}
    for kind in ("laplace", "gaussian")
    for length in (0.1, 0.0)
]
SCHEDULES = ("annealing", "periodic", "constant")


def samples(kinds, **changes):
    """Samples with different kinds of noise and different schedules."""
    return [
        values(**kind, noise_schedule=SCHEDULES[i % 3], noise_scale=0.1 * (i + 1), **changes)
        for i, kind in enumerate(kinds)
    ]


def bound(block):
    return block.with_tables(on_cpu(block.tables))


@pytest.mark.parametrize(
    "kinds",
    [
        [KINDS[i] for i in (0, 2, 1, 3, 3, 1, 2, 0)],
        [KINDS[3], KINDS[3]],
        [KINDS[0]],
        [KINDS[1], KINDS[2]],
    ],
)
@pytest.mark.parametrize(("channels", "grid_size"), [(3, 16), (1, 9)])
def test_forcing_is_that_of_each_sample(kinds, channels, grid_size):
    options = {"seed": 3, "channels": channels, "num_realizations": 2, "num_timesteps": 4}
    own = samples(kinds, grid_size=grid_size)
    index = [5, 2**62, *range(len(own))][: len(own)]
    together = bound(BlockForcing(own, index, **options))
    each = [Forcing(v, index=i, **options) for v, i in zip(own, index, strict=True)]
    for t in (1, 3, 4, 3):
        expected = torch.stack([forcing(t) for forcing in each])
        torch.testing.assert_close(together(t), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("realizations", [1, 3])
def test_update_is_that_of_each_sample(realizations):
    policies = ["convex", "autoregressive", "residual", "convex"]
    own = [values(update_policy=p, alpha=0.3 + 0.1 * i, dt=0.05) for i, p in enumerate(policies)]
    noise = torch.Generator().manual_seed(0)
    u = torch.randn(4, 1, 3, 8, 8, generator=noise)
    g = torch.randn(4, realizations, 3, 8, 8, generator=noise)
    expected = torch.stack([update_step(v)(a, b) for v, a, b in zip(own, u, g, strict=True)])
    torch.testing.assert_close(bound(BlockUpdate(own))(u, g), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [8, 15])
def test_transport_is_that_of_each_operator(size):
    numbers = np.array([[0.1, 0.9, 0.0], [3, -0.4, 1], [0.5, 2.7, -3], [0.1, -0.1, 0]])
    fields = torch.randn(3, 4, 2, size, size, generator=torch.Generator().manual_seed(0))
    expected = [
        TransportFlow(*own, grid_size=size)(field)
        for own, field in zip(numbers.T, fields, strict=True)
    ]
    moved = bound(TransportFlows(*numbers, grid_size=size))(fields)
    torch.testing.assert_close(moved, torch.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [(0, -0.1, "diffusion must be at least 0"), (3, np.nan, "must be finite")],
)
def test_transport_of_any_operator_is_checked(row, value, message):
    numbers = np.zeros((4, 3))
    numbers[row, 2] = value
    with pytest.raises(ValueError, match=message):
        TransportFlows(*numbers, grid_size=8)


def test_transport_refuses_fields_of_another_grid():
    with pytest.raises(ValueError, match="8×8"):
        bound(TransportFlows(*np.zeros((4, 1)), grid_size=8))(torch.zeros(1, 1, 1, 16, 16))


@pytest.mark.parametrize("repeats", [1, 16])
def test_a_timestep_takes_few_operations(repeats):
    own = samples(KINDS * repeats)
    forcing = BlockForcing(
        own, range(len(own)), seed=3, channels=3, num_realizations=5, num_timesteps=2
    )
    flows = TransportFlows(*np.zeros((4, len(own))), grid_size=32)
    with CountOperations() as before:
        parts = (forcing, BlockUpdate(own), flows)
    tables = [on_meta(part.tables) for part in parts]
    with CountOperations() as once:
        draw, step, flow = (
            part.with_tables(table) for part, table in zip(parts, tables, strict=True)
        )
    u = torch.empty(len(own), 1, 3, 32, 32, device="meta")
    with CountOperations() as counted:
        moved = flow(step(u, u + draw(2)))
    assert moved.shape == (len(own), 5, 3, 32, 32)
    assert before.number == 0
    assert once.number <= 4
    assert counted.number <= 25
