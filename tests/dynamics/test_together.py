"""Several operators are measured at once like each of them by itself."""

import pytest
import torch

from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.dynamics import DYNAMICS_NAMES, DynamicsMeter
from spinlock.simulation.transport_flow import TransportFlow, TransportFlows
from tests.counting import META, CountOperations, on_cpu
from tests.dynamics.measuring import SEED
from tests.helpers import values

POINTWISE = (
    torch.zeros_like,
    torch.tanh,
    torch.sign,
    lambda u: u,
    lambda u: u**3,
    lambda u: 1e9 * u,
    lambda u: -0.5 * u.roll((1, 2), (-1, -2)),
    lambda u: u.roll(1, dims=1) + 0.1,
)


def together(operators):
    """A map of fields (o, n, C, H, W) that applies operator i to the fields i."""
    return lambda u: torch.stack(
        [operator(fields) for operator, fields in zip(operators, u, strict=True)]
    )


def rows(operators, channels=3, side=16, flows=(None, None)):
    """Rows of the operators measured at once, and one by one."""
    o = len(operators)
    # Exact in float32, so that they are the same numbers on both ways.
    keep = torch.arange(o) % 3 / 4
    gain, noise = 1 - keep, torch.arange(o) / 8
    length = noise / 2
    meter = DynamicsMeter(SEED, channels, side)
    of_one, of_all = flows
    found = meter.measure_together(
        together(operators),
        keep=keep,
        gain=gain,
        noise_scale=noise,
        noise_length=length,
        flow=of_all,
    )
    expected = [
        meter.measure(
            operator,
            keep=float(keep[i]),
            gain=float(gain[i]),
            noise_scale=float(noise[i]),
            noise_length=float(length[i]),
            flow=of_one and of_one[i],
        )
        for i, operator in enumerate(operators)
    ]
    assert found.dtype == torch.float32
    return found, torch.stack(expected)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (5, 9)])
def test_one_row_for_each_operator(channels, side):
    operators = [lambda u, f=f: f(u.double()) for f in POINTWISE]
    found, expected = rows(operators, channels, side)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    # The rows differ: a mistaken operator would be noticed.
    assert len(found[:, DYNAMICS_NAMES.index("superposition")].unique()) > 3


def test_random_operators_with_a_flow_for_each():
    numbers = [[0.1, 0.4, 0.0], [1.3, -2.0, 0.5], [-0.4, 0.0, 2.5], [0.05, -0.1, 0.0]]
    block = TransportFlows(*numbers, grid_size=16)
    each = [TransportFlow(*own, grid_size=16) for own in zip(*numbers, strict=True)]
    operators = [ConvOperator(values(), seed=1, index=i, channels=3) for i in range(3)]
    found, expected = rows(operators, flows=(each, block.with_tables(on_cpu(block.tables))))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_number_of_operations_does_not_depend_on_that_of_operators():
    meter = DynamicsMeter(SEED, 3, 16, META)
    numbers = []
    for o in (2, 64, 64):
        keep, gain, noise = torch.empty(3, o, device=META)
        with CountOperations() as counted:
            measured = meter.measure_together(
                torch.clone, keep=keep, gain=gain, noise_scale=noise, noise_length=noise
            )
        assert measured.shape == (o, 18)
        assert measured.device == META
        numbers.append(counted.number)
    # The first call makes tables of the grid.
    assert numbers[1] == numbers[2] <= numbers[0] <= 340


def test_values_on_the_host_would_be_noticed():
    number = torch.ones(3, device=META)
    with CountOperations():
        with pytest.raises(RuntimeError, match="item"):
            float(number.sum())
        with pytest.raises(AssertionError, match="of the host"):
            torch.ones(3).to(META)
