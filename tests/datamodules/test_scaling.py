"""Scalers fitted on training samples map columns to order one, and back."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from scipy import stats
from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

from spinlock.datamodules import FeatureScaler

METHODS = ["standard", "robust", "rank"]
ALL = [(method, log) for method in METHODS for log in (False, True)] + [("none", False)]


def heavy_tailed(num=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num, 4, generator=generator)
    return torch.stack([z[:, 0], (5 * z[:, 1]).exp(), 1e4 + z[:, 2], -((3 * z[:, 3]).exp())], dim=1)


def signed_log(x):
    knee = np.sort(np.abs(x), axis=0)[(len(x) - 1) // 2]
    return np.sign(x) * np.log1p(np.abs(x) / knee)


@pytest.mark.parametrize("log", [False, True])
def test_standard_and_robust_agree_with_scikit_learn(log):
    features = heavy_tailed()
    given_to = features.double().numpy()
    given_to = signed_log(given_to) if log else given_to
    for method, oracle in (("standard", StandardScaler()), ("robust", RobustScaler())):
        scaled = FeatureScaler.fit(features, method, signed_log=log).transform(features)
        np.testing.assert_allclose(scaled, oracle.fit_transform(given_to), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("log", [False, True])
def test_rank_agrees_with_the_ranks(log):
    features = heavy_tailed(900)
    scaled = FeatureScaler.fit(features, "rank", signed_log=log).transform(features)
    expected = stats.norm.ppf((stats.rankdata(features.numpy(), axis=0) - 0.5) / 900)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)


def test_rank_of_many_samples_is_that_of_scikit_learn():
    """With more than 1,001 samples, the map is interpolated between some of them."""
    features = heavy_tailed(20_000)
    scaled = FeatureScaler.fit(features, "rank", signed_log=False).transform(features)
    oracle = QuantileTransformer(output_distribution="normal", subsample=None)
    expected = oracle.fit_transform(features.double().numpy())
    inside = np.abs(expected) < 2.5
    assert np.abs(scaled.numpy() - expected)[inside].max() < 0.02
    for column in scaled.T:
        assert stats.kstest(column, "norm").statistic < 0.01


def test_equal_values_share_their_mean_rank():
    column = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 2.0])[:, None]
    scaled = FeatureScaler.fit(column, "rank", signed_log=False).transform(column)[:, 0]
    expected = stats.norm.ppf(np.array([1.5, 1.5, 1.5, 3.5, 5, 5]) / 6)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_signed_log_tames_tails(method):
    features = heavy_tailed()
    extreme = {
        log: float(
            FeatureScaler.fit(features, method, signed_log=log).transform(features)[:, 1].max()
        )
        for log in (False, True)
    }
    assert extreme[True] < 7
    if method != "rank":
        assert extreme[False] > 15


@pytest.mark.parametrize(("method", "log"), ALL)
def test_inverse(method, log):
    features = heavy_tailed()
    scaler = FeatureScaler.fit(features, method, signed_log=log)
    error = (scaler.inverse(scaler.transform(features)) - features).abs()
    # float32 has seven digits of the scaled value, hence of the whole column.
    assert (error <= 2e-5 * (features.abs() + features.std(dim=0))).all()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.sampled_from(ALL),
    st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=40),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=10),
)
# An interquartile range by which nothing can be divided.
@example(("robust", False), [0.0, 0.0, 0.0, 1.0, 2.0**-126], [0.0, 4.0])
def test_scaling_keeps_order_also_beyond_the_training_range(method, training, others):
    scaler = FeatureScaler.fit(torch.tensor(training)[:, None], method[0], signed_log=method[1])
    values = torch.tensor(sorted(others))
    scaled = scaler.transform(values[:, None])[:, 0]
    assert scaled.isfinite().all()
    assert (scaled.diff() >= 0).all()


@pytest.mark.parametrize(("method", "log"), ALL)
def test_values_beyond_the_training_range_come_back(method, log):
    features = heavy_tailed()
    scaler = FeatureScaler.fit(features, method, signed_log=log)
    beyond = 3 * features.max(dim=0).values + torch.tensor([1.0, 1.0, 1.0, 1e3])
    torch.testing.assert_close(scaler.inverse(scaler.transform(beyond)), beyond, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("method", "log"), ALL[:-1])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_columns_that_do_not_vary_become_zero(method, log, noise):
    generator = torch.Generator().manual_seed(0)
    features = torch.full((50, 1), 3.0) + noise * torch.randn(50, 1, generator=generator)
    scaler = FeatureScaler.fit(features, method, signed_log=log)
    assert torch.equal(scaler.transform(features), torch.zeros(50, 1))
    torch.testing.assert_close(scaler.inverse(torch.zeros(50, 1)), features)


def test_robust_survives_a_column_that_rarely_varies():
    column = torch.zeros(100, 1)
    column[:10, 0] = torch.arange(10.0)
    scaler = FeatureScaler.fit(column, "robust", signed_log=False)
    torch.testing.assert_close(scaler.inverse(scaler.transform(column)), column)
    assert len(scaler.transform(column).unique()) == 10


def test_none_is_the_identity():
    features = heavy_tailed()
    for log in (False, True):
        scaler = FeatureScaler.fit(features, "none", signed_log=log)
        assert torch.equal(scaler.transform(features), features)
        assert torch.equal(scaler.inverse(features), features)


@pytest.mark.parametrize(("method", "log"), ALL)
def test_sequences_are_scaled_over_all_timesteps(method, log):
    features = heavy_tailed().view(100, 5, 4)
    scaler = FeatureScaler.fit(features, method, signed_log=log)
    flat = FeatureScaler.fit(features.flatten(0, 1), method, signed_log=log)
    assert torch.equal(
        scaler.transform(features).flatten(0, 1), flat.transform(features.flatten(0, 1))
    )


@pytest.mark.parametrize(("method", "log"), ALL)
def test_the_state_is_primitives_and_gives_the_scaler_back(method, log):
    features = heavy_tailed()
    scaler = FeatureScaler.fit(features, method, signed_log=log)
    state = scaler.state_dict()

    def primitive(value):
        if isinstance(value, list):
            return all(map(primitive, value))
        return type(value) in (str, bool, float)

    assert all(map(primitive, state.values()))
    again = FeatureScaler.from_state_dict(state)
    assert torch.equal(again.transform(features), scaler.transform(features))
    assert torch.equal(again.inverse(features[:5]), scaler.inverse(features[:5]))


def test_the_description_names_every_column():
    scaler = FeatureScaler.fit(heavy_tailed(), "standard", signed_log=False)
    lines = scaler.describe(("a", "b", "c", "d")).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["a", "b", "c", "d"]
    assert f"{scaler.center[2]:.5g}" in lines[4]


def test_tails_go_on_with_the_slope_of_the_whole_distribution():
    """The slope between the last two samples, which are nearly equal here, is not used."""
    inner = torch.linspace(-1, 1, 99)
    column = torch.cat([torch.tensor([-2.0001, -2.0]), inner, torch.tensor([2.0, 2.0001])])[:, None]
    scaler = FeatureScaler.fit(column, "rank", signed_log=False)
    last = stats.norm.ppf((len(column) - 0.5) / len(column))
    beyond = scaler.transform(torch.tensor([[-3 * 2.0001], [3 * 2.0001]]))[:, 0]
    np.testing.assert_allclose(beyond, [-3 * last, 3 * last], rtol=1e-4)
