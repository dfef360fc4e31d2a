"""Tests of the transport group: what a step does apart from moving and smoothing the field."""

import numpy as np
import pytest
import torch

from spinlock.features.response import TRANSPORT_NAMES, extract_responses
from spinlock.simulation.transport_flow import TransportFlow

from . import helpers, response_oracle as oracle

SIDE = 32


def white(shape, seed):
    return helpers.white(np.random.default_rng(seed), shape)


def red(shape, seed):
    return helpers.red(np.random.default_rng(seed), shape)


def transported(u, x, y, diffusion):
    """Return fields [C, H, W] after a displacement (x, y) and diffusion, from the definition."""
    k = 2 * np.pi * np.fft.fftfreq(SIDE)
    nyquist = np.abs(np.fft.fftfreq(SIDE)) == 0.5

    def factor(shift):
        moved = np.exp(-1j * k * shift)
        return np.where(nyquist, moved.real, moved) * np.exp(-diffusion * k**2)

    spectrum = np.fft.fft2(u) * factor(y)[:, None] * factor(x)
    return np.fft.ifft2(spectrum).real


def measured(initial, fields):
    """Transport columns of one sample, u_0 [C, H, W] and fields [M, T, C, H, W], by name."""
    pair = (torch.tensor(values[None], dtype=torch.float32) for values in (initial, fields))
    values = extract_responses(*pair).transport[0].double().numpy()
    return dict(zip(TRANSPORT_NAMES, values.T, strict=True))


@pytest.mark.parametrize("field", [white, red])
@pytest.mark.parametrize(("x", "y", "diffusion"), [(0, 0, 0.0), (2, -1, 0.0), (-1.5, 2.25, 0.6)])
def test_exact_transport_leaves_only_the_gain(field, x, y, diffusion):
    u = field((3, SIDE, SIDE), 1)
    flow = TransportFlow(diffusion, x, y, 0.1, SIDE)
    w = 0.8 * flow(torch.tensor(u, dtype=torch.float32)).double().numpy()
    found = measured(u, w[None, None])
    assert found["transport_gain"][0] == pytest.approx(0.8 * np.exp(0.1), rel=0.02)
    assert found["transport_innovation"][0] < -1.5


@pytest.mark.parametrize("realizations", [1, 4])
def test_the_rest_is_the_response_of_the_transported_field(realizations):
    """The oracle of the responses sees the transported field in place of the input."""
    generator = np.random.default_rng(5)
    u = red((2, SIDE, SIDE), 2)
    moved = transported(u, 1.5, -2.0, 0.5)
    noise = 0.1 * generator.standard_normal((realizations, 2, SIDE, SIDE))
    w = 0.9 * moved + 0.3 * np.tanh(3 * moved) ** 2 + 0.05 * white((2, SIDE, SIDE), 3) + noise
    found = measured(u, w[:, None])
    place = [found[name][0] for name in TRANSPORT_NAMES[:3]]
    v = transported(u, *place[:2], max(place[2], 0))
    judged = oracle.oracle_responses(v[None], w[None, :, None])["per_timestep"][0, 0]
    expected = dict(zip(oracle.column_names(2), judged, strict=True))
    assert found["transport_gain"][0] == pytest.approx(expected["beta"], rel=1e-4)
    assert found["transport_innovation"][0] == pytest.approx(expected["band_gain_4"], abs=1e-4)
    # Without the transport, the same field gives other values.
    still = oracle.oracle_responses(u[None], w[None, :, None])["per_timestep"][0, 0]
    assert abs(still[oracle.column_names(2).index("beta")] - expected["beta"]) > 0.1


def test_a_negative_diffusion_is_not_applied():
    u = red((1, SIDE, SIDE), 4)
    w = u + 0.3 * white((1, SIDE, SIDE), 5)
    found = measured(u, w[None, None])
    assert found["transport_diffusion"][0] < 0
    v = transported(u, found["transport_x"][0], found["transport_y"][0], 0.0)
    judged = oracle.oracle_responses(v[None], w[None, None, None])["per_timestep"][0, 0]
    expected = judged[oracle.column_names(1).index("beta")]
    assert found["transport_gain"][0] == pytest.approx(expected, rel=1e-4)


def test_columns_of_all_steps():
    fields = np.stack([red((3, SIDE, SIDE), seed) for seed in range(4)])
    found = measured(fields[0], fields[None, 1:])
    for step in range(3):
        alone = measured(fields[step], fields[None, None, step + 1])
        for name, values in found.items():
            assert values[step] == pytest.approx(alone[name][0], rel=1e-4, abs=1e-5)
