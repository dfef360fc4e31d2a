"""The same-token rate against a slow oracle, planted tables and its invariances."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from spinlock import metrics


def oracle(tokens, families, operators, parts=None):
    """The definition, sample by sample."""
    samples = list(zip(tokens, families, operators, parts or [0] * len(tokens), strict=True))

    def compared(a, b):
        return parts is None or a[3] != b[3]

    def agreement(pairs):
        equal = [a[0] == b[0] for a, b in pairs]
        return sum(equal) / len(equal)

    own, independent = {}, {}
    for a, b in itertools.permutations(samples, 2):
        if compared(a, b):
            kinds = (a[1], a[3], b[1], b[3])
            (own if a[2] == b[2] else independent).setdefault(kinds, []).append((a, b))
    kinds = [k for k in own if k in independent]
    if not kinds:
        return float("nan"), float("nan")
    total = sum(len(own[k]) for k in kinds)
    rate = sum(len(own[k]) * agreement(own[k]) for k in kinds) / total
    chance = sum(len(own[k]) * agreement(independent[k]) for k in kinds) / total
    return rate, chance


SAMPLES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 1)),
    min_size=1,
    max_size=16,
)


@settings(max_examples=80, deadline=None)
@given(SAMPLES, st.booleans(), st.randoms())
def test_rates_are_those_of_the_definition_in_any_order(samples, with_parts, random):
    random.shuffle(samples)
    tokens, families, operators, parts = map(list, zip(*samples, strict=True))
    given_parts = parts if with_parts else None
    found = metrics.same_token_rate(
        # Labels of any kind.
        *(7 - 5 * torch.tensor(column) for column in (tokens, families, operators)),
        parts=torch.tensor(parts) if with_parts else None,
    )
    expected = oracle(tokens, families, operators, given_parts)
    assert [rate.item() for rate in found] == pytest.approx(expected, nan_ok=True)


OPERATORS = torch.arange(40) // 4
FAMILIES = torch.stack([torch.randperm(4) for _ in range(10)]).flatten()


@pytest.mark.parametrize(
    ("tokens", "rate", "chance"),
    [
        (OPERATORS, 1, 0),
        (FAMILIES, 0, 0),
        (torch.stack([OPERATORS, FAMILIES], 1), 0, 0),
        (torch.zeros(40), 1, 1),
        (OPERATORS % 2, 1, 4 / 9),
        (torch.stack([OPERATORS % 2, OPERATORS // 2], 1), 1, 0),
    ],
)
def test_planted_tokens(tokens, rate, chance):
    found = metrics.same_token_rate(tokens.long(), FAMILIES, OPERATORS)
    assert [value.item() for value in found] == pytest.approx([rate, chance])
    assert found.above_chance == found.rate - found.chance


def test_tokens_of_no_operator_are_at_chance_on_average():
    """Without bias, although there are few operators, and families have tokens of their own."""
    generator = torch.Generator().manual_seed(0)
    operators, families = torch.arange(12) // 2, torch.arange(12) % 3
    scores = []
    for _ in range(300):
        tokens = torch.randint(3, (12,), generator=generator)
        tokens = torch.where(torch.rand(12, generator=generator) < 0.5, families, tokens)
        scores.append(metrics.same_token_rate(tokens, families, operators).above_chance.item())
    assert abs(np.mean(scores)) < 3 * np.std(scores) / 300**0.5


def test_without_another_operator_there_is_no_chance():
    label = torch.tensor([0, 1, 2])
    for rate in metrics.same_token_rate(label, label, torch.zeros(3, dtype=torch.int64)):
        assert rate.isnan()
    assert metrics.same_token_rate(label, label, label).rate.isnan()
    assert metrics.same_token_rate(label[:0], label[:0], label[:0]).rate.isnan()
