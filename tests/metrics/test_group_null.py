"""The null of labels permuted within groups: exactness, uniformity, calibration and power."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare, kstest

from spinlock import metrics
from spinlock.metrics import group_null as module


def permuted(labels, groups, permutations, seed=0):
    blocks = metrics.group_permutations(labels, groups, permutations=permutations, seed=seed)
    return torch.cat(list(blocks))


def null_of(tokens, families, operators, permutations=99, seed=0):
    return metrics.group_permutation_null(
        metrics.mutual_information,
        tokens,
        families,
        operators,
        shape=(int(tokens.max()) + 1, int(families.max()) + 1),
        permutations=permutations,
        seed=seed,
    )


def p_value(tokens, families, null):
    shape = (int(tokens.max()) + 1, int(families.max()) + 1)
    table = torch.bincount(tokens * shape[1] + families, minlength=shape[0] * shape[1]).view(shape)
    return metrics.permutation_p_value(metrics.mutual_information(table), null).item()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=20), st.integers(0, 9))
def test_labels_stay_in_their_group(pairs, seed):
    groups = torch.tensor([group for group, _ in pairs], dtype=torch.int64)
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    rows = permuted(labels, groups, 3, seed)
    assert rows.shape == (3, len(pairs))
    for row in rows:
        for group in groups.unique():
            own = groups == group
            assert Counter(row[own].tolist()) == Counter(labels[own].tolist())


def test_all_orders_of_a_group_are_equally_likely():
    groups = torch.tensor([2, 7, 2, 7, 2])
    rows = permuted(torch.arange(5), groups, 6000)
    found = Counter(map(tuple, rows.tolist()))
    assert len(found) == 6 * 2
    assert chisquare(list(found.values())).pvalue > 0.01


def test_the_null_is_exact_in_a_case_that_can_be_enumerated():
    """Of two operators with two families each: four equally likely tables."""
    operators, families = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    null = null_of(torch.tensor([0, 1, 1, 0]), families, operators, 4000)
    # Families and tokens agree or disagree in both operators, or the tokens are independent.
    values, counts = null.round(decimals=9).unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, np.log(2)])
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_blocks_and_the_order_of_groups_do_not_matter(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    operators = torch.arange(60) // 3
    tokens, families = torch.randint(4, (2, 60), generator=generator)
    expected = null_of(tokens, families, operators, 20)
    # Another order of operators, but the same of the samples within each.
    order = torch.randint(1000, (60,), generator=generator).argsort()
    order = order[torch.argsort(operators[order], stable=True)]
    within = torch.argsort(torch.randperm(20, generator=generator)[operators], stable=True)
    assert torch.equal(null_of(tokens[within], families[within], operators[within], 20), expected)
    assert not torch.equal(null_of(tokens[order], families[order], operators[order], 20), expected)
    monkeypatch.setattr(module, "_NUMBERS", 70)
    assert torch.equal(null_of(tokens, families, operators, 20), expected)


def design(seed, operators=60, probes=4, codes=8):
    """Each operator meets all families, in random order; a random token of each operator."""
    generator = torch.Generator().manual_seed(seed)
    families = torch.rand(operators, probes, generator=generator).argsort(1).flatten()
    operator = torch.arange(operators).repeat_interleave(probes)
    token = torch.randint(codes, (operators,), generator=generator)[operator]
    other = torch.randint(codes, (operators * probes,), generator=generator)
    return operator, families, token, other, torch.rand(operators * probes, generator=generator)


def test_only_the_null_within_operators_is_calibrated():
    """Tokens depend on the operator and on chance, not on the family."""
    within, independent = [], []
    for seed in range(100):
        operator, families, token, other, coin = design(seed)
        tokens = torch.where(coin < 0.3, other, token)
        within.append(p_value(tokens, families, null_of(tokens, families, operator, seed=seed)))
        table = torch.bincount(tokens * 4 + families, minlength=32).view(8, 4)
        null = metrics.permutation_null(
            metrics.mutual_information, table, permutations=99, seed=seed
        )
        independent.append(p_value(tokens, families, null))
    assert kstest(within, "uniform").pvalue > 0.01
    assert kstest(independent, "uniform").pvalue < 1e-6
    assert np.mean(independent) > 0.8


def test_only_the_null_within_operators_sees_a_weak_dependence():
    operator, families, token, _, coin = design(0, operators=200)
    tokens = torch.where(coin < 0.04, families, token)
    assert p_value(tokens, families, null_of(tokens, families, operator)) < 0.02
    table = torch.bincount(tokens * 4 + families, minlength=32).view(8, 4)
    null = metrics.permutation_null(metrics.mutual_information, table, permutations=99)
    assert p_value(tokens, families, null) > 0.05


def test_tokens_of_the_operator_are_at_chance_exactly():
    operator, families, token, _, _ = design(1)
    null = null_of(token, families, operator)
    assert null.std() < 1e-12
    assert p_value(token, families, null) == 1
    assert p_value(families, families, null_of(families, families, operator)) < 0.02


def test_bad_arguments():
    labels = torch.arange(4)
    with pytest.raises(ValueError, match="permutations: must be at least 1, got 0"):
        permuted(labels, labels, 0)
    with pytest.raises(ValueError, match=r"must be \[N\], got \[4\] and \[3\]"):
        permuted(labels, labels[:3], 2)
