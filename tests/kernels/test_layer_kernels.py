"""Kernels of layers, in Triton's interpreter, equal the plain versions of the operations."""

from contextlib import contextmanager

import pytest
import torch

from spinlock.kernels.operands import read_operands
from spinlock.runtime.one_copy import copy_to_device
from spinlock.simulation.operator_group import OperatorGroup, OperatorGroupPlan
from tests.helpers import values
from tests.kernels.interpreter import LAUNCHERS, RecordedOperations, launcher, loops_of_any_length

SIDE = 8
NETWORKS = [
    {"num_layers": 1, "normalization": "none", "activation": "relu", "kernel_size": 3},
    {"num_layers": 2, "normalization": "batch", "activation": "silu", "kernel_size": 5},
    {"num_layers": 4, "normalization": "instance", "activation": "gelu", "kernel_size": 3},
]


# Layers of two tiles of channels, more channels of fields than a tile has, and an odd grid.
WIDE = [{"num_layers": 4, "normalization": "instance", "activation": "gelu", "kernel_size": 1}]


def group_of(networks, base_channels, channels, first, precision="float32", others=()):
    """A group of operators, and the first of its fields."""
    side, counts = first
    operators = [
        (
            2**40 + number,
            values(base_channels=base, grid_size=side, dropout_rate=0.3, **own),
        )
        for number, (own, base) in enumerate(zip(networks, base_channels, strict=True))
    ]
    plan = OperatorGroupPlan(
        operators,
        first,
        dict(others),
        seed=2**63 + 42,
        channels=channels,
        precision=precision,
    )
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(sum(counts), channels, side, side, generator=generator)
    return OperatorGroup(plan, copy_to_device(plan.arrays(), torch.device("cpu"))), fields


def recorded_group(precision):
    """The operations of a group of three operators that share no shape."""
    others = {"later": (SIDE, [1, 1, 2])}
    with torch.no_grad(), RecordedOperations() as recorded, new_memory_is_nan():
        group, fields = group_of(NETWORKS, (4, 7, 10), 3, (SIDE, [1, 2, 1]), precision, others)
        group.apply(group.first(fields), "later")
    return recorded.calls


@contextmanager
def new_memory_is_nan():
    """Let torch.empty return NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module", params=["float32", "tf32", "bfloat16"])
def calls(request):
    return recorded_group(request.param)


# Arguments that an operation writes to.
WRITTEN = {
    "pack_fields": (1, 2),
    "convolve": (4,),
    "moments": (1,),
    "calibrate_scales": (1, 2),
    "finish_layers": (5, 6),
    "calibrate_output": (1,),
    "bound_output": (2,),
    "silence_channels": (1,),
    "draw_weights": (0, 1),
}
OPERANDS = ("pack_fields", "finish_layers", "draw_weights")
# An operand can be rounded to the neighbor of what the plain version has.
NEIGHBOR = {torch.float16: 1e-6, torch.float32: 2**-10, torch.bfloat16: 2**-7}


@pytest.mark.parametrize("name", sorted(LAUNCHERS))
def test_kernels_equal_the_plain_versions(name, calls, monkeypatch):
    own = [(before, after) for called, before, after in calls if called == name]
    # The first calls belong to calibration, the last one to the later application.
    chosen = own if name == "finish_layers" else [own[0], own[-1]]
    compare(name, chosen, monkeypatch)


@pytest.mark.parametrize("name", ["convolve", "moments", "calibrate_scales", "finish_layers"])
def test_kernels_of_several_tiles_equal_the_plain_versions(name, monkeypatch):
    with torch.no_grad(), RecordedOperations() as recorded, new_memory_is_nan():
        group, fields = group_of(WIDE, (20,), 18, (17, [2]))
        group.first(fields)
    own = [(before, after) for called, before, after in recorded.calls if called == name]
    # The last block has 80 channels.
    compare(name, own[-2:], monkeypatch)


def test_operators_do_not_depend_on_the_others_of_their_group():
    """Their results are equal, bit for bit."""
    with torch.no_grad():
        group, fields = group_of(NETWORKS, (4, 7, 10), 3, (SIDE, [1, 2, 1]))
        together = group.first(fields)
        group, _ = group_of(NETWORKS[:1], (4,), 3, (SIDE, [1]))
        assert torch.equal(group.first(fields[:1]), together[:1])
        group, _ = group_of(NETWORKS[:2], (4, 7), 3, (SIDE, [1, 2]))
        assert torch.equal(group.first(fields[:3]), together[:3])


def compare(name, calls, monkeypatch):
    """Run the kernel of an operation on the arguments of recorded calls."""
    assert calls
    for before, after in calls:
        if name == "convolve" and before[0].dtype == torch.bfloat16:
            # The interpreter cannot multiply bfloat16 matrices; float32 has the same products.
            before = [value.float() if is_bfloat16(value) else value for value in before]
        with loops_of_any_length(monkeypatch):
            launcher(name)(*before)
        actual, expected = ([given[place] for place in WRITTEN[name]] for given in (before, after))
        limit = 4e-7
        if name in OPERANDS:
            limit = NEIGHBOR[actual[0].dtype]
            actual, expected = [read_operands(*actual)], [read_operands(*expected)]
            # torch computes GELU to 1.2e-6 on some CPUs.
            torch.testing.assert_close(actual, expected, rtol=limit, atol=2e-6, equal_nan=True)
        for one, other in zip(actual, expected, strict=True):
            # What an operation does not write stays NaN.
            written = other.isfinite()
            assert torch.equal(one.isfinite(), written)
            difference = (one - other)[written].double().norm()
            assert difference <= limit * other[written].double().norm()


def is_bfloat16(value):
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
