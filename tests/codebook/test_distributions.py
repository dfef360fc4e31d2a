"""Comparisons with the population, and the words for them."""

import numpy as np
import pytest

from spinlock.codebook.distributions import Population, explained_share, quantiles
from spinlock.codebook.token_words import _WORDS, describe_token
from spinlock.codebook.track_panels import (
    Track,
    dynamics_tracks,
    live_axes,
    parameter_properties,
    parameter_tracks,
)
from spinlock.simulation.dynamics_columns import DYNAMICS_NAMES
from tests.helpers import small_config


def test_random_tokens_explain_nothing_and_true_ones_everything():
    random = np.random.default_rng(0)
    values = random.normal(size=(2000, 1))
    chance = [explained_share([values], random.integers(0, 200, 2000))[0] for _ in range(40)]
    assert np.mean(chance) == pytest.approx(0, abs=0.02)
    tokens = np.searchsorted(np.quantile(values, np.arange(0.01, 1, 0.01)), values[:, 0])
    assert explained_share([values], tokens)[0] > 0.95
    # Half of the variance is between the tokens.
    tokens = random.integers(0, 50, 5000)
    values = (random.normal(size=50)[tokens] + random.normal(size=5000))[:, None]
    between = np.var(values[:, 0]) - 1
    assert explained_share([values], tokens)[0] == pytest.approx(between / np.var(values), abs=0.03)


def test_shares_that_cannot_be_known_are_nan():
    assert np.isnan(explained_share([np.arange(3.0)[:, None]], np.arange(3))).all()
    assert np.isnan(explained_share([np.ones((4, 1))], np.array([0, 0, 1, 1]))).all()


def test_a_choice_is_explained_by_tokens_that_fix_its_value():
    """Its coordinate in the unit cube is not fixed, because a value is a part of the axis."""
    config = small_config(8)
    random = np.random.default_rng(2)
    points = random.uniform(size=(900, 15))
    column = config.space.names.index("activation")
    tokens = (3 * points[:, column]).astype(np.int64)
    shares = dict(
        zip(
            live_axes(config),
            explained_share(parameter_properties(config, points), tokens),
            strict=True,
        )
    )
    assert shares.pop("activation") == pytest.approx(1)
    assert all(abs(share) < 0.02 for share in shares.values())
    assert explained_share([points[:, [column]]], tokens)[0] < 0.95


def test_the_population_is_uniform():
    random = np.random.default_rng(1)
    population = Population.of(np.exp(3 * random.normal(size=(999, 2))))
    expected = np.array([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]])
    assert quantiles(population.ranks) == pytest.approx(expected, abs=1e-3)
    assert population.scores.std(axis=0) == pytest.approx(1, abs=0.01)


def test_tokens_at_one_end_are_marked():
    ranks = np.array([[0.9, 0.02, 0.45, 0.1], [0.95, 0.05, 0.5, 0.9], [0.99, 0.01, 0.55, 0.5]])
    ranks = np.repeat(ranks, 3, axis=0)
    tracks = dynamics_tracks(100 * ranks, ranks)
    assert [track.kind for track in tracks] == ["h", "l", "m", "w"]
    assert tracks[0].text == "95 ± 3.7"
    few = dynamics_tracks(100 * ranks[:7], ranks[:7])
    assert [track.kind for track in few] == ["w"] * 4


def test_choices_are_shares_and_ranges_have_values():
    config = small_config(8)
    points = np.full((4, 15), 0.5)
    points[:, config.space.names.index("activation")] = [0.1, 0.9, 0.95, 0.99]
    points[:, config.space.names.index("dropout_rate")] = [0, 0, 1, 1]
    tracks = dict(zip(live_axes(config), parameter_tracks(config, points), strict=True))
    assert tracks["activation"].shares.tolist() == [0.25, 0, 0.75]
    assert tracks["activation"].text == "silu 75%"
    assert tracks["num_layers"].text == "4 100%"
    assert tracks["dropout_rate"].text == "0 – 0.3"
    assert tracks["dropout_rate"].kind == "w"
    assert tracks["noise_scale"].text.startswith("0.0032 – ")
    assert isinstance(tracks["alpha"], Track)
    assert tracks["num_layers"].kind == "d"
    twice = dict(zip(live_axes(config), parameter_tracks(config, points[[0, 1] * 4]), strict=True))
    assert (twice["activation"].kind, twice["num_layers"].kind) == ("d", "c")


def test_every_column_of_the_dynamics_has_words():
    assert set(_WORDS) == set(DYNAMICS_NAMES)


def test_words_are_for_the_largest_differences():
    scores = np.array([0.4, -1.0, 2.0, 0.9])
    names = ("noise", "true_diffusion", "lyapunov", "mine")
    many = ["unstable", "sharpening", "high mine"]
    assert describe_token(scores, 100, names, np.eye(4)) == many
    assert describe_token(scores, 100, names, np.ones((4, 4))) == ["unstable"]
    assert describe_token(0.1 * scores, 100, names, np.eye(4)) == []
    # Three standard errors of the mean of four operators are 1.5.
    assert describe_token(scores, 4, names, np.eye(4)) == ["unstable"]


@pytest.mark.parametrize("operators", [1, 2, 3, 5, 8, 20, 40])
def test_random_operators_hardly_ever_have_words(operators):
    random = np.random.default_rng(operators)
    population = Population.of(random.normal(size=(1500, len(DYNAMICS_NAMES))))
    scores, alike = population.scores, np.eye(len(DYNAMICS_NAMES))
    tokens = [random.choice(1500, operators, replace=False) for _ in range(600)]
    words = [describe_token(scores[t].mean(0), operators, DYNAMICS_NAMES, alike) for t in tokens]
    assert np.mean([len(some) > 0 for some in words]) < 0.06
