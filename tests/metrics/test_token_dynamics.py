"""Transitions and dwell times, against loops and planted chains."""

import math
from itertools import groupby, pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr

from spinlock.metrics import TokenDynamics
from spinlock.metrics.spearman import rank_correlation

SEQUENCES = st.lists(
    st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=6
).map(torch.tensor)


@settings(max_examples=50, deadline=None)
@given(SEQUENCES)
def test_transitions_and_dwells_against_loops(sequence):
    counts = torch.zeros(4, 4, dtype=torch.int64)
    lengths = []
    for row in sequence.tolist():
        for a, b in pairwise(row):
            counts[a, b] += 1
        lengths += [len(list(run)) for _, run in groupby(row)]
    metric = TokenDynamics(4, ["a", "b"])
    metric.update(sequence, torch.ones(len(sequence), dtype=torch.int64))
    assert torch.equal(metric.transitions[1], counts)
    assert not metric.transitions[0].any()
    assert metric.occupancy[1].tolist() == sequence.flatten().bincount(minlength=4).tolist()
    expected = sum(lengths) / len(lengths)
    assert metric.compute()["dwell_time/b"].item() == pytest.approx(expected)


def test_a_single_timestep_has_no_transitions():
    metric = TokenDynamics(3, ["a"])
    metric.update(torch.tensor([[1], [2]]), torch.zeros(2, dtype=torch.int64))
    assert not metric.transitions.any()
    assert metric.compute()["stay_probability"] == 0
    assert metric.compute()["dwell_time"] == 1


def chain(stay, samples, length, seed):
    """A Markov chain on four tokens that keeps its token with a given probability."""
    generator = torch.Generator().manual_seed(seed)
    sequence = torch.randint(4, (samples, 1), generator=generator)
    for _ in range(length - 1):
        step = torch.randint(1, 4, (samples, 1), generator=generator)
        keep = torch.rand(samples, 1, generator=generator) < stay
        last = sequence[:, -1:]
        sequence = torch.cat([sequence, torch.where(keep, last, (last + step) % 4)], dim=1)
    return sequence


def test_planted_chains_of_two_policies():
    metric = TokenDynamics(4, ["slow", "fast", "absent"])
    slow, fast = chain(0.9, 200, 100, 0), chain(0.2, 200, 100, 1)
    # In two batches, mixed.
    for part in (slice(0, 100), slice(100, 200)):
        policy = torch.cat(
            [torch.zeros(100, dtype=torch.int64), torch.ones(100, dtype=torch.int64)]
        )
        metric.update(torch.cat([slow[part], fast[part]]), policy)
    scores = {name: value.item() for name, value in metric.compute().items()}
    assert scores["stay_probability/slow"] == pytest.approx(0.9, abs=0.01)
    assert scores["stay_probability/fast"] == pytest.approx(0.2, abs=0.01)
    assert scores["stay_probability"] == pytest.approx(0.55, abs=0.01)
    # Dwells end with probability 1 - stay in each step, or with the trajectory.
    for name, stay in (("slow", 0.9), ("fast", 0.2)):
        expected = 100 / (1 + 99 * (1 - stay))
        assert scores[f"dwell_time/{name}"] == pytest.approx(expected, rel=0.02)
    assert "dwell_time/absent" not in scores
    # Tokens are even under both policies; what follows them is not.
    assert abs(scores["policy_ami"]) < 0.01

    def entropy(stay):
        return -stay * math.log(stay) - (1 - stay) * math.log((1 - stay) / 3)

    assert scores["next_token_entropy"] == pytest.approx(entropy(0.55), abs=0.01)
    expected = entropy(0.55) - (entropy(0.9) + entropy(0.2)) / 2
    assert scores["transition_policy_mi"] == pytest.approx(expected, abs=0.01)


def test_policies_without_influence_have_none():
    found = []
    for seed in range(20):
        metric = TokenDynamics(4, ["a", "b"])
        metric.update(chain(0.5, 40, 10, seed), torch.arange(40) % 2)
        found.append(metric.compute()["transition_policy_mi"].item())
    # By chance, 12 degrees of freedom and 360 transitions have 12 / 720 = 0.017 nats.
    assert abs(sum(found) / 20) < 0.005


def test_kept_tokens_are_correlated_with_the_dynamics():
    """The rank correlation is that of scipy, pooled and averaged over update policies."""
    stay = torch.linspace(0.1, 0.9, 30)
    sequence = torch.cat([chain(p.item(), 1, 40, seed) for seed, p in enumerate(stay)])
    policy = torch.arange(30) % 2
    dynamics = torch.stack([stay + policy, torch.zeros(30)], 1)
    metric = TokenDynamics(4, ["a", "b"], ["lyapunov", "memory"])
    for part in (slice(0, 11), slice(11, 30)):
        metric.update(sequence[part], policy[part], dynamics[part])
    scores = metric.compute()
    kept = (sequence[:, 1:] == sequence[:, :-1]).double().mean(1)

    def expected(rows):
        return spearmanr(kept[rows].numpy(), dynamics[rows, 0].numpy()).statistic

    assert scores["stay_correlation/lyapunov"].item() == pytest.approx(expected(policy >= 0))
    within = (expected(policy == 0) + expected(policy == 1)) / 2
    key = "stay_correlation_within_policy/lyapunov"
    assert scores[key].item() == pytest.approx(within)
    assert within > 0.8 > scores["stay_correlation/lyapunov"]
    assert scores["stay_correlation/memory"] == 0


def test_ties_share_their_rank():
    a, b, c = torch.randint(5, (3, 60), generator=torch.Generator().manual_seed(0))
    found = rank_correlation(a, torch.stack([b, c.float(), torch.ones(60)], 1))
    expected = [spearmanr(a, b).statistic, spearmanr(a, c).statistic, 0]
    assert found.tolist() == pytest.approx(expected)
    assert not rank_correlation(torch.ones(60), b[:, None]).any()


def test_states_fit_devices_without_float64():
    metric = TokenDynamics(4, ["a"], ["memory"])
    metric.update(torch.zeros(3, 5).long(), torch.zeros(3).long(), torch.rand(3, 1).double())
    (rows,) = metric.trajectories
    assert rows.dtype == torch.float32
    assert metric.compute()["stay_correlation/memory"].dtype == torch.float64
