"""The null of labels permuted among and within groups: uniformity, calibration and power."""

from collections import Counter
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare, kstest

from spinlock import metrics
from spinlock.metrics import group_null as module


def permuted(labels, groups, permutations, seed=0, strata=None):
    blocks = metrics.group_permutations(
        labels, groups, strata=strata, permutations=permutations, seed=seed
    )
    return torch.cat(list(blocks))


def null_of(tokens, families, operators, permutations=99, seed=0, strata=None):
    return metrics.group_permutation_null(
        metrics.mutual_information,
        tokens,
        families,
        operators,
        strata=strata,
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


def rows_of_groups(labels, groups, strata):
    """Labels of each group as a set, by stratum."""
    return Counter(
        (int(strata[groups == group][0]), tuple(sorted(labels[groups == group].tolist())))
        for group in groups.unique()
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=20), st.integers(0, 9))
def test_groups_of_a_stratum_exchange_all_labels(pairs, seed):
    groups = torch.tensor([group for group, _ in pairs], dtype=torch.int64)
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    strata = (groups + seed) % 2
    for row in permuted(labels, groups, 3, seed, strata):
        assert rows_of_groups(row, groups, strata) == rows_of_groups(labels, groups, strata)


def test_all_exchanges_and_orders_are_equally_likely():
    groups = torch.tensor([4, 9, 3, 9, 4, 1, 7, 8, 8])
    strata = torch.tensor([5, 5, 5, 5, 5, 5, 2, 2, 2])
    rows = permuted(torch.arange(9), groups, 6000, strata=strata)
    # Groups 4 and 9 exchange two labels each, groups 3 and 1 one; three pairs have an order.
    found = Counter(map(tuple, rows.tolist()))
    assert len(found) == 2 * 2 * 2**3
    assert chisquare(list(found.values())).pvalue > 0.01


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


@pytest.mark.parametrize("exchange", [False, True])
def test_blocks_and_the_order_of_groups_do_not_matter(monkeypatch, exchange):
    generator = torch.Generator().manual_seed(0)
    # Operators of three samples, and some of two.
    operators = torch.arange(60) // 3 + (torch.arange(60) % 12 == 0)
    tokens, families = torch.randint(4, (2, 60), generator=generator)

    def null(rows):
        strata = operators[rows] % 3 if exchange else None
        return null_of(tokens[rows], families[rows], operators[rows], 20, strata=strata)

    expected = null(torch.arange(60))
    # Another order of operators, but the same of the samples within each.
    order = torch.randint(1000, (60,), generator=generator).argsort()
    order = order[torch.argsort(operators[order], stable=True)]
    within = torch.argsort(torch.randperm(21, generator=generator)[operators], stable=True)
    assert torch.equal(null(within), expected)
    assert not torch.equal(null(order), expected)
    monkeypatch.setattr(module, "_NUMBERS", 170)
    assert torch.equal(null(torch.arange(60)), expected)


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


def two_families(operators=500, singles=0):
    """Operators with the families 0 and 2, or 1 and 3; some have lost a probe."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(2, (operators,), generator=generator).repeat_interleave(2)
    operator, place = torch.arange(2 * operators) // 2, torch.arange(2 * operators) % 2
    kept = (operator >= singles) | (place == operator % 2)
    return operator[kept], kind[kept], (kind + 2 * place)[kept]


@pytest.mark.parametrize("singles", [0, 450, 500])
def test_a_dependence_on_what_differs_between_operators_is_seen(singles):
    operator, kind, family = two_families(singles=singles)
    for tokens, information in ((kind, log(2)), (family, 2 * log(2))):
        null = null_of(tokens, family, operator, strata=operator % 3)
        assert null.mean() < 0.02
        assert metrics.mutual_information(
            torch.bincount(tokens * 4 + family, minlength=16).view(4, 4)
        ) == pytest.approx(information, abs=0.02)
        assert p_value(tokens, family, null) == pytest.approx(0.01)
    # Within operators, the label that all probes have in common cannot change.
    assert p_value(kind, family, null_of(kind, family, operator)) == 1


@pytest.mark.parametrize("probes", [2, 4])
def test_tokens_of_the_operator_are_calibrated(probes):
    """Operators with one to P of their probes, and tokens that depend on nothing else."""
    p_values = []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        operator, place = torch.arange(60).repeat_interleave(probes), torch.arange(60 * probes)
        left = torch.randint(1, probes + 1, (60,), generator=generator)
        kept = place % probes < left[operator]
        family = torch.rand(60, 4, generator=generator).argsort(1)[:, :probes].flatten()
        # The update policy determines the token in part.
        policy = torch.randint(3, (60,), generator=generator)
        token = 2 * policy + torch.randint(4, (60,), generator=generator)
        operator, family = operator[kept], family[kept]
        token, policy = token[operator], policy[operator]
        null = null_of(token, family, operator, seed=seed, strata=policy)
        p_values.append(p_value(token, family, null))
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_a_group_has_one_stratum():
    with pytest.raises(ValueError, match="strata: all samples of a group must have the same"):
        permuted(torch.arange(4), torch.tensor([0, 0, 1, 1]), 2, strata=torch.tensor([0, 1, 2, 2]))


def test_bad_arguments():
    labels = torch.arange(4)
    with pytest.raises(ValueError, match="permutations: must be at least 1, got 0"):
        permuted(labels, labels, 0)
    with pytest.raises(ValueError, match=r"must be \[N\], got \[4\] and \[3\]"):
        permuted(labels, labels[:3], 2)
