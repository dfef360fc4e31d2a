"""Initial conditions of a block are those of its samples, in few operations."""

import numpy as np
import pytest
import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import SimulationError
from spinlock.simulation.block_initial_conditions import BlockInitialConditions
from spinlock.simulation.field_synthesis import scaled_to_variance
from spinlock.simulation.initial_conditions import (
    BandLimited,
    GaussianBlobs,
    GaussianNoise,
    InitialCondition,
    Sinusoids,
)
from spinlock.simulation.randomness import Stream, normal
from spinlock.simulation.variants import InitialConditions
from tests.counting import CountOperations, on_cpu, on_meta

BUILT_IN = InitialConditions(GenerationConfig(1)).variants


class Rows(InitialCondition):
    """A variant of a user, in two operations and views."""

    def raw(self, seed, index, channels, grid_size):
        drawn = normal(
            seed, Stream.INITIAL_CONDITION, index, channels * grid_size, device=index.device
        )
        return drawn.view(-1, channels, grid_size, 1).expand(-1, -1, -1, grid_size)


class Steep(GaussianBlobs):
    """A subclass of a built-in variant, whose fields differ."""

    WIDTHS = (0.02, 0.03)


class Constant(InitialCondition):
    def raw(self, seed, index, channels, grid_size):
        return torch.ones(len(index), channels, grid_size, grid_size, device=index.device)


def block(variants, channels=3, grid_size=32):
    return BlockInitialConditions(variants, seed=7, channels=channels, grid_size=grid_size)


CUSTOM = (Rows(2.0), *BUILT_IN, Steep(), BandLimited("mid", 3.0), Rows(0.5), Sinusoids(1.5))


@pytest.mark.parametrize(
    ("variants", "which"),
    [
        (BUILT_IN, list(range(10)) * 2),
        (CUSTOM, [13, 3, 0, 11, 9, 14, 6, 12, 12, 1, 10, 7, 13, 0]),
        (CUSTOM, [0, 13]),
        (BUILT_IN, [9, 9]),
        (BUILT_IN, [5, 8, 6, 8]),
        (BUILT_IN, [4]),
    ],
)
@pytest.mark.parametrize(("channels", "grid_size"), [(3, 32), (1, 25)])
def test_fields_are_those_of_each_sample(variants, which, channels, grid_size):
    index, variant = np.arange(100, 100 + len(which)), np.array(which)
    draw = block(variants, channels, grid_size)
    fields = draw.fields(variant, on_cpu(draw.tables(index, variant)))
    assert fields.dtype == torch.float32
    for field, sample, position in zip(fields, index, which, strict=True):
        own = torch.tensor([sample])
        expected = variants[position].fields(7, own, channels, grid_size)[0]
        torch.testing.assert_close(field, expected, rtol=1e-6, atol=1e-6)


def test_a_constant_field_stops_a_cpu_but_no_other_device():
    draw, variant = block((GaussianNoise(), Constant())), np.array([1, 0])
    tables = draw.tables(np.arange(2), variant)
    with pytest.raises(SimulationError, match=r"constant fields for samples \[0\]"):
        draw.fields(variant, on_cpu(tables))
    assert draw.fields(variant, on_meta(tables)).shape == (2, 3, 32, 32)
    scaled, power = scaled_to_variance(torch.full((1, 2, 8, 8), 0.1), 1.0)
    assert scaled.isnan().all()
    assert power == 0


def operations(variants, which):
    variant = np.array(which)
    draw = block(variants)
    tables = on_meta(draw.tables(np.arange(len(which)), variant))
    draw.fields(variant, tables)
    with CountOperations() as counted:
        assert draw.fields(variant, tables).shape == (len(which), 3, 32, 32)
    return counted


def test_operations_do_not_grow_with_the_block():
    counted = operations(BUILT_IN, list(range(10)))
    assert operations(BUILT_IN, list(range(10)) * 6).names == counted.names
    assert counted.number <= 55
    tables = {"seed": 7, "channels": 3, "grid_size": 32}
    with CountOperations() as own:
        CUSTOM[0].fields(index=torch.empty(2, dtype=torch.int64, device="meta"), **tables)
    more = operations((*BUILT_IN, CUSTOM[0]), list(range(11)) * 2)
    assert more.number <= counted.number + own.number + 2
