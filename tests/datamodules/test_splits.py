"""Splits depend on the operator's index alone and are balanced over all axes of the design."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from benchmarks.synthetic import write_synthetic
from spinlock import datamodules
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.sobol_design import make_design
from tests.datamodules import collect, loaders, ready

FRACTIONS = (0.8, 0.1, 0.1)
# Axes of the baseline.
split_operators = partial(datamodules.split_operators, num_axes=15)


@settings(max_examples=40, derandomize=True)
@given(st.integers(1, 70_000), st.integers(0, 2**40))
def test_an_operator_never_moves_when_the_dataset_grows(count, seed):
    whole = split_operators(70_000, FRACTIONS, seed)
    np.testing.assert_array_equal(split_operators(count, FRACTIONS, seed), whole[:count])


@pytest.mark.parametrize("design_seed", [42, 0, 7])
@pytest.mark.parametrize(("count", "most"), [(500, 6), (1500, 10), (10_000, 15)])
def test_every_variant_is_split_in_the_given_fractions(count, most, design_seed):
    """Independent hashes have errors of 9, 20 and 50 at these sizes."""
    variant = make_design(GenerationConfig(count, seed=design_seed)).variant
    for split_seed in (0, 1, 42):
        split = split_operators(count, FRACTIONS, split_seed)
        for which in range(10):
            counts = np.bincount(split[variant == which], minlength=3)
            assert np.abs(counts - counts.sum() * np.array(FRACTIONS)).max() <= most
        assert np.abs(np.bincount(split) - count * np.array(FRACTIONS)).max() <= 4


@pytest.mark.parametrize("operator", ["convolutional", "transport"])
def test_splits_are_independent_of_the_parameters(operator):
    """This holds even if the design and the split have the same seed."""
    params = make_design(GenerationConfig(2000, seed=42, operator=operator)).params
    split = datamodules.split_operators(2000, FRACTIONS, 42, num_axes=params.shape[1])
    for axis in params.T:
        assert stats.ks_2samp(axis[split == 0], axis[split == 1]).pvalue > 0.01
        assert stats.ks_2samp(axis[split == 0], axis[split == 2]).pvalue > 0.01


@pytest.mark.parametrize("fractions", [(1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.6, 0.0, 0.4)])
def test_a_fraction_of_zero_is_empty(fractions):
    counts = np.bincount(split_operators(1000, fractions, 0), minlength=3)
    assert [count > 0 for count in counts] == [fraction > 0 for fraction in fractions]


def test_the_seed_decides():
    one, two = (split_operators(200, FRACTIONS, seed) for seed in (0, 1))
    assert (one != two).any()
    np.testing.assert_array_equal(one, split_operators(200, FRACTIONS, 0))


def test_probes_of_an_operator_stay_together(datasets):
    parts = loaders(ready(*datasets["probed"]))
    operators = [set(collect(loader)["operator"].tolist()) for loader in parts.values()]
    assert sum(map(len, operators)) == len(set.union(*operators)) == 30


def test_extending_from_500_to_1500_moves_no_sample(tmp_path):
    """Only the index matters, so synthetic features are sufficient."""
    before = {}
    for count in (500, 1500):
        config = GenerationConfig(count, storage=StorageConfig(fields="none"))
        folder = tmp_path / str(count)
        folder.mkdir()
        write_synthetic(folder / "a.h5", config)
        parts = loaders(ready(folder / "a.h5", config, batch_size=32))
        rows = {name: set(collect(loader)["index"].tolist()) for name, loader in parts.items()}
        for name, indices in before.items():
            assert {index for index in rows[name] if index < 500} == indices
        before = rows
    assert sum(map(len, before.values())) == 1500
