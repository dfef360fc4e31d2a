"""Metrics against scikit-learn, exact enumeration and hand computation."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial import distance
from sklearn import metrics as oracle
from sklearn.metrics.cluster import (
    contingency_matrix,
    expected_mutual_information as oracle_expected,
)
from torch import Tensor

from spinlock import metrics

FUNCTIONS = (
    metrics.mutual_information,
    metrics.normalized_mutual_information,
    metrics.adjusted_mutual_information,
    metrics.conditional_entropy,
    metrics.codebook_perplexity,
    metrics.codebook_usage,
    metrics.dead_codes,
)


def draw(samples: int, codes: int, classes: int, dependence: float = 0.0) -> tuple[Tensor, Tensor]:
    """Labels that agree modulo the number of codes with probability `dependence`."""
    generator = torch.Generator().manual_seed(samples + codes)
    labels = torch.randint(classes, (samples,), generator=generator)
    tokens = torch.randint(codes, (samples,), generator=generator)
    agree = torch.rand(samples, generator=generator) < dependence
    return torch.where(agree, labels % codes, tokens), labels


def table(tokens: Tensor, labels: Tensor) -> Tensor:
    counts = torch.zeros(int(tokens.max()) + 1, int(labels.max()) + 1, dtype=torch.int64)
    return counts.index_put((tokens, labels), torch.tensor(1), accumulate=True)


ZEROS, RANGE = torch.zeros(50, dtype=torch.int64), torch.arange(50)
LABELINGS = {
    "independent": draw(500, 17, 5),
    "dependent": draw(500, 17, 5, 0.5),
    "more codes than samples": draw(40, 256, 10, 0.3),
    "large": draw(200_000, 256, 10, 0.01),
    "identical": (RANGE % 7, RANGE % 7),
    "renamed": (RANGE % 7, 6 - RANGE % 7),
    "one class": (RANGE % 7, ZEROS),
    "one code": (ZEROS, RANGE % 7),
    "one class, one code": (ZEROS, ZEROS),
    "distinct codes": (RANGE, RANGE % 7),
    "all distinct": (RANGE, RANGE),
    "all but two distinct": (RANGE, RANGE.clamp(min=1)),
    "one sample": (ZEROS[:1], ZEROS[:1]),
}


@pytest.mark.parametrize("name", LABELINGS)
def test_agrees_with_scikit_learn(name):
    tokens, labels = LABELINGS[name]
    counts = table(tokens, labels)
    cells = contingency_matrix(labels, tokens, sparse=True)
    expected = {
        metrics.mutual_information: oracle.mutual_info_score(labels, tokens),
        metrics.normalized_mutual_information: oracle.normalized_mutual_info_score(labels, tokens),
        metrics.adjusted_mutual_information: oracle.adjusted_mutual_info_score(labels, tokens),
        metrics.expected_mutual_information: oracle_expected(cells, len(tokens)),
        metrics.conditional_entropy: (1 - oracle.homogeneity_score(labels, tokens))
        * _entropy(labels),
        metrics.codebook_perplexity: np.exp(_entropy(tokens)),
    }
    for function, value in expected.items():
        ours = function(counts)
        assert ours.dtype == torch.float64
        # Log-factorials of 200,000 are of the order of 2e6: that much of the 16 digits is gone.
        assert ours.item() == pytest.approx(value, rel=1e-9, abs=1e-10), function


def _entropy(labels: Tensor) -> float:
    p = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(p * np.log(p)).sum())


def test_chance_level_is_the_mean_over_all_permutations():
    tokens, labels = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])
    every = [
        metrics.mutual_information(table(tokens[list(order)], labels))
        for order in itertools.permutations(range(6))
    ]
    expected = torch.stack(every).mean()
    torch.testing.assert_close(metrics.expected_mutual_information(table(tokens, labels)), expected)


def test_miller_madow_by_hand():
    counts = torch.tensor([[4, 1, 0], [0, 3, 2]])
    # 2 codes, 3 classes, 4 occupied cells, 10 samples: (1 + 2 − 3) / 20 = 0.
    assert metrics.mutual_information(counts, corrected=True) == metrics.mutual_information(counts)
    counts = torch.tensor([[4, 1, 1], [1, 3, 2]])
    difference = metrics.mutual_information(counts, corrected=True) - metrics.mutual_information(
        counts
    )
    assert difference.item() == pytest.approx((1 + 2 - 5) / 24)


def test_miller_madow_removes_the_bias_of_independent_labels():
    generator = torch.Generator().manual_seed(0)
    plug_in, corrected = [], []
    for _ in range(100):
        counts = table(*torch.randint(8, (2, 1000), generator=generator))
        plug_in.append(metrics.mutual_information(counts))
        corrected.append(metrics.mutual_information(counts, corrected=True))
    bias = 7 * 7 / 2000
    assert torch.stack(plug_in).mean().item() == pytest.approx(bias, rel=0.1)
    assert abs(torch.stack(corrected).mean().item()) < 0.1 * bias


@pytest.mark.parametrize("function", FUNCTIONS)
def test_order_of_codes_and_classes_does_not_matter(function):
    counts = table(*LABELINGS["dependent"])
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(counts.shape[0], generator=generator)
    columns = torch.randperm(counts.shape[1], generator=generator)
    torch.testing.assert_close(function(counts[rows][:, columns]), function(counts))


@pytest.mark.parametrize(
    "function",
    [f for f in FUNCTIONS if f not in (metrics.codebook_usage, metrics.dead_codes)],
)
def test_codes_and_classes_that_do_not_occur_change_nothing(function):
    counts = table(*LABELINGS["dependent"])
    assert function(torch.nn.functional.pad(counts, (0, 4, 0, 9))) == function(counts)


def test_usage_and_perplexity():
    counts = torch.tensor([[3, 0], [0, 3], [1, 2], [0, 0]])
    assert metrics.codebook_usage(counts) == 0.75
    assert metrics.dead_codes(counts) == 1
    assert metrics.codebook_perplexity(counts).item() == pytest.approx(3)


@pytest.mark.parametrize("shape", [(0, 0), (4, 3)])
def test_without_samples_values_are_the_documented_ones(shape):
    empty = torch.zeros(shape, dtype=torch.int64)
    values = {function: function(empty).item() for function in FUNCTIONS}
    assert values == {
        metrics.mutual_information: 0,
        metrics.normalized_mutual_information: 1,
        metrics.adjusted_mutual_information: 1,
        metrics.conditional_entropy: 0,
        metrics.codebook_perplexity: 1,
        metrics.codebook_usage: 0,
        metrics.dead_codes: shape[0],
    }
    assert metrics.mutual_information(empty, corrected=True) == 0
    assert metrics.expected_mutual_information(empty) == 0


def test_a_table_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"\[\.\.\., codes, classes\], got \[5\]"):
        metrics.mutual_information(torch.zeros(5))


@pytest.mark.parametrize("codes", [17, 30])
def test_accumulating_batches_equals_the_table_of_all(codes, device):
    tokens, labels = (x.to(device) for x in LABELINGS["dependent"])
    metric = metrics.TokenContingency(codes, 5).to(device)
    for batch in tokens.argsort().split(64):
        metric.update(tokens[batch], labels[batch])
    metric.update(tokens[:0], labels[:0])
    found = metric.compute()["joint"].cpu()
    assert torch.equal(found[:17], table(tokens.cpu(), labels.cpu()))
    assert not found[17:].any()
    metric.reset()
    assert not metric.contingency.any()


def test_forward_gives_the_batch_and_accumulates():
    metric = metrics.TokenContingency(3, 2)
    first = metric(torch.tensor([0, 0]), torch.tensor([1, 1]))["joint"]
    second = metric(torch.tensor([2, 0]), torch.tensor([0, 1]))["joint"]
    assert first.tolist() == [[0, 2], [0, 0], [0, 0]]
    assert second.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert metric.compute()["joint"].tolist() == [[0, 3], [0, 0], [1, 0]]


def test_counts_are_integers():
    metric = metrics.TokenContingency(4, num_classes=3)
    assert metric.contingency.dtype == torch.int64
    metric.update(torch.tensor([1], dtype=torch.uint8), torch.tensor([2], dtype=torch.int32))
    assert metric.compute()["joint"].dtype == torch.int64


@pytest.mark.parametrize(
    ("tokens", "labels", "message"),
    [
        ([0, 4], [0, 0], r"tokens must be in \[0, 4\), got values from 0 to 4"),
        ([0, -1], [0, 0], r"tokens must be in \[0, 4\), got values from -1 to 0"),
        ([0, 0], [3, 0], r"classes must be in \[0, 3\), got values from 0 to 3"),
        ([0.0, 1.0], [0, 0], "tokens must be integers, got torch.float32"),
        ([0, 0], [True, False], "classes must be integers, got torch.bool"),
        ([[0, 1]], [0, 0], r"classes \[B\], got \[1, 2\] and \[2\]"),
    ],
)
def test_bad_labels_are_refused_and_not_counted(tokens, labels, message):
    metric = metrics.TokenContingency(4, num_classes=3)
    with pytest.raises(ValueError, match=message):
        metric.update(torch.tensor(tokens), torch.tensor(labels))
    assert not metric.contingency.any()


@pytest.mark.parametrize("sizes", [{"num_codes": 0}, {"num_classes": -1}, {"num_levels": 0}])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match=f"{next(iter(sizes))}: must be at least 1"):
        metrics.TokenContingency(**({"num_codes": 2, "num_classes": 2} | sizes))


STACKABLE = [*FUNCTIONS, metrics.expected_mutual_information]


@pytest.mark.parametrize("function", STACKABLE)
def test_a_stack_of_tables_is_a_table_at_a_time(function):
    names = ["independent", "dependent", "one class", "one code", "identical"]
    tables = [table(*LABELINGS[name]) for name in names]
    padded = [torch.nn.functional.pad(t, (0, 7 - t.shape[1], 0, 17 - t.shape[0])) for t in tables]
    stack = torch.stack([*padded, torch.zeros(17, 7, dtype=torch.int64)]).view(2, 3, 17, 7)
    expected = torch.stack([function(t) for t in stack.view(6, 17, 7)]).view(2, 3)
    torch.testing.assert_close(function(stack), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pieces", [1, 100])
def test_chance_level_does_not_depend_on_how_its_terms_are_cut(pieces, monkeypatch):
    counts = table(*LABELINGS["dependent"])
    expected = metrics.expected_mutual_information(counts)
    monkeypatch.setattr("spinlock.metrics.chance._TERMS", pieces)
    torch.testing.assert_close(metrics.expected_mutual_information(counts), expected)


def test_conditional_information_is_the_difference_of_informations():
    """I(T; C | G) = I(T; (C, G)) − I(T; G)."""
    generator = torch.Generator().manual_seed(2)
    counts = torch.randint(20, (4, 6, 5), generator=generator)
    both = metrics.mutual_information(counts.transpose(0, 1).flatten(1))
    group = metrics.mutual_information(counts.sum(2).T)
    ours = metrics.conditional_mutual_information(counts)
    torch.testing.assert_close(ours, both - group)


def test_pooling_can_hide_what_conditioning_shows():
    # The token is the class in one group, and the other class in the other.
    counts = torch.tensor([[[50, 0], [0, 50]], [[0, 50], [50, 0]]])
    assert metrics.mutual_information(counts.sum(0)) == 0
    ours = metrics.conditional_mutual_information(counts).item()
    assert ours == pytest.approx(np.log(2))
    assert metrics.conditional_mutual_information(counts, adjusted=True).item() == 1


def test_adjusted_conditional_information():
    counts = torch.stack([table(*LABELINGS[name]) for name in ("dependent", "independent")])
    one = metrics.conditional_mutual_information(counts[:1], adjusted=True)
    torch.testing.assert_close(one, metrics.adjusted_mutual_information(counts[0]))
    same = metrics.conditional_mutual_information(counts[[0, 0]], adjusted=True)
    torch.testing.assert_close(same, one)
    # Groups have 500 samples each: by hand, from scikit-learn's terms.
    terms = []
    for name in ("dependent", "independent"):
        tokens, labels = LABELINGS[name]
        cells = contingency_matrix(labels, tokens, sparse=True)
        most = (_entropy(labels) + _entropy(tokens)) / 2
        terms.append((oracle.mutual_info_score(labels, tokens), oracle_expected(cells, 500), most))
    information, chance, most = np.mean(terms, axis=0)
    ours = metrics.conditional_mutual_information(counts, adjusted=True).item()
    assert ours == pytest.approx((information - chance) / (most - chance), rel=1e-9)
    empty = torch.zeros(2, 3, 4, dtype=torch.int64)
    assert metrics.conditional_mutual_information(empty) == 0
    assert metrics.conditional_mutual_information(empty, adjusted=True) == 1


def test_jensen_shannon_divergence_against_scipy():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(30, (40, 2), generator=generator)
    counts[:, 1] *= 5
    p, q = (counts / counts.sum(0)).double().T.numpy()
    expected = distance.jensenshannon(p, q) ** 2
    assert metrics.jensen_shannon_divergence(counts).item() == pytest.approx(expected, rel=1e-6)


def test_jensen_shannon_divergence_at_its_bounds():
    assert metrics.jensen_shannon_divergence(torch.tensor([[3, 30], [1, 10]])) == 0
    disjoint = metrics.jensen_shannon_divergence(torch.tensor([[3, 0], [0, 10]]))
    assert disjoint.item() == pytest.approx(np.log(2))
    assert metrics.jensen_shannon_divergence(torch.tensor([[3, 0], [1, 0]])).isnan()
    with pytest.raises(ValueError, match=r"\[\.\.\., codes, 2\], got \[4, 3\]"):
        metrics.jensen_shannon_divergence(torch.zeros(4, 3))
