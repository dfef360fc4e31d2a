"""Probes of a batch: which of them make a token, and their errors and distances."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from spinlock.callbacks import ContractError
from spinlock.models.probe_sets import ProbeSets


def sets(operators=6, probes=4, **options):
    """Features that count the operators in hundreds, the probes in tens and the columns in ones."""
    parts = (100 * torch.arange(operators), 10 * torch.arange(probes), torch.arange(3))
    features = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    batch = {
        "features": features.float(),
        "initial_features": -features.float(),
        "variant": torch.arange(operators * probes).view(operators, probes),
        "operator": torch.arange(operators),
    }
    return ProbeSets.of(batch, **options), batch


def pair(**options):
    _, batch = sets(probes=2)
    keys = ("features", "initial_features", "variant")
    first = {key: batch[key][:, 0] for key in keys}
    others = {f"other_{key}": batch[key][:, 1] for key in keys}
    return ProbeSets.of({**first, **others, "operator": batch["operator"]}, **options)


def test_a_sample_is_its_own_token():
    _, batch = sets(probes=1)
    probes = ProbeSets.of({key: values.view(6, -1) for key, values in batch.items()}, random=True)
    assert probes.num_probes == 1
    assert probes.pooled.all()
    assert not probes.has_others
    assert torch.equal(probes.rows["features"], batch["features"][:, 0])
    assert set(probes.rows) == {"features", "initial_features", "variant"}
    assert probes.distance(probes.rows["features"]) == 0


@pytest.mark.parametrize("random", [False, True])
def test_the_token_of_a_pair_is_that_of_the_first_probe(random):
    probes, (_, batch) = pair(random=random), sets(probes=2)
    assert probes.pooled.tolist() == [[True, False]] * 6
    assert probes.has_others
    for key, values in probes.rows.items():
        assert torch.equal(values, batch[key].flatten(0, 1))
    assert torch.equal(probes.pool(probes.rows["features"]), batch["features"][:, 0])


def test_conditions_that_the_other_probe_lacks_are_left_out():
    _, batch = sets(probes=1)
    batch = {key: values.view(6, -1) for key, values in batch.items()}
    probes = ProbeSets.of({**batch, "other_features": batch["features"]})
    assert set(probes.rows) == {"features"}


def test_sets_are_pooled_whole_in_evaluation():
    probes, batch = sets()
    assert probes.pooled.all()
    assert not probes.has_others
    for key, values in probes.rows.items():
        assert torch.equal(values, batch[key].flatten(0, 1))
    torch.testing.assert_close(probes.pool(probes.rows["features"]), batch["features"].mean(1))
    _, others = probes.errors(probes.rows["features"], torch.zeros(24, 3))
    assert others == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 6))
def test_training_pools_some_probes_and_predicts_the_others(seed, count):
    drawn = []
    for _ in range(2):
        torch.manual_seed(seed)
        drawn.append(sets(operators=40, probes=count, random=True)[0].pooled)
    pooled = drawn[0]
    assert torch.equal(*drawn)
    assert (pooled.sum(1) >= 1).all()
    assert (pooled.sum(1) <= count - 1).all()


def test_every_probe_and_every_number_of_probes_is_pooled_equally_often():
    torch.manual_seed(0)
    pooled = sets(operators=6000, probes=4, random=True)[0].pooled
    shares = pooled.sum(1).bincount(minlength=5) / 6000
    torch.testing.assert_close(shares[1:4], torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    # Two of four probes are pooled on average.
    torch.testing.assert_close(pooled.float().mean(0), torch.full((4,), 0.5), atol=0.03, rtol=0)


@pytest.mark.parametrize("make", [pair, lambda: sets(random=True)[0], lambda: sets()[0]])
def test_sums_against_loops(make):
    torch.manual_seed(1)
    probes = make()
    operators, count = probes.pooled.shape
    values, target = torch.randn(2, operators * count, 5, dtype=torch.float64)
    means, own, others, distances = [], [], [], []
    for operator in range(operators):
        rows = range(operator * count, (operator + 1) * count)
        chosen = [row for row in rows if probes.pooled[operator, row - rows[0]]]
        means.append(sum(values[row] for row in chosen) / len(chosen))
        for row in rows:
            error = ((values[row] - target[row]) ** 2).sum() / 5
            (own if row in chosen else others).append(error)
            distances += [
                ((values[row] - values[another]) ** 2).sum() / 5
                for another in rows
                if row < another
            ]
    torch.testing.assert_close(probes.pool(values), torch.stack(means))
    pooled, rest = probes.errors(values, target)
    torch.testing.assert_close(pooled, sum(own) / len(own))
    assert probes.has_others == bool(others)
    if others:
        torch.testing.assert_close(rest, sum(others) / len(others))
    torch.testing.assert_close(probes.distance(values), sum(distances) / len(distances))


def test_values_of_operators_are_repeated_for_their_probes():
    probes, _ = sets()
    spread = probes.spread(torch.arange(6.0)[:, None])
    assert spread.flatten().tolist() == [operator for operator in range(6) for _ in range(4)]


def test_features_of_all_timesteps_are_refused():
    batch = {"features": torch.zeros(6, 4, 3), "variant": torch.zeros(6, dtype=torch.int64)}
    with pytest.raises(ContractError, match=r"is \[6, 4, 3\] but batch\['variant'\] is \[6\].*Seq"):
        ProbeSets.of(batch)
