"""Splits: balanced, stable, and a function of the operator alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spinlock.datamodules import split_operators

FRACTIONS = (0.8, 0.1, 0.1)


@settings(max_examples=50, derandomize=True)
@given(st.integers(0, 2**31), st.integers(1, 400), st.integers(0, 10**6))
def test_an_operator_never_moves_when_the_dataset_grows(draw, count, seed):
    variant = np.random.default_rng(draw).integers(0, 10, 500)
    whole = split_operators(variant, FRACTIONS, seed)
    np.testing.assert_array_equal(split_operators(variant[:count], FRACTIONS, seed), whole[:count])


@pytest.mark.parametrize("fractions", [FRACTIONS, (0.6, 0.25, 0.15), (0.5, 0.5, 0.0)])
def test_every_variant_is_split_in_the_given_fractions(fractions):
    variant = np.random.default_rng(0).integers(0, 10, 3000)
    split = split_operators(variant, fractions, 0)
    for which in range(10):
        members = split[variant == which]
        counts = np.bincount(members, minlength=3)
        assert np.abs(counts - len(members) * np.array(fractions)).max() < 3


def test_the_seed_decides():
    variant = np.zeros(200, dtype=np.int64)
    one, two = (split_operators(variant, FRACTIONS, seed) for seed in (0, 1))
    assert (one != two).any()
    np.testing.assert_array_equal(one, split_operators(variant, FRACTIONS, 0))
