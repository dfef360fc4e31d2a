"""Scores of prototypes on samples of a dataset."""

import dataclasses

import pytest
import torch

from spinlock.configuration.file_content import StorageConfig
from spinlock.errors import ConfigurationError
from spinlock.generation import generate
from spinlock.prototypes import prototype_scores
from spinlock.storage import read_columns, schema
from tests.helpers import small_config

CONFIG = small_config(24, grid_size=24, base_channels=(2, 3), probes_per_operator=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same dataset with and without its fields."""
    folder = tmp_path_factory.mktemp("scores")
    without = dataclasses.replace(CONFIG.storage, fields="none")
    for name, storage in (("with", CONFIG.storage), ("without", without)):
        config = dataclasses.replace(CONFIG, storage=storage)
        generate(config, folder / f"{name}.h5", progress=False)
    assert isinstance(without, StorageConfig)
    return folder


def scale(features):
    """A standardization with fixed numbers that keeps all columns of order one."""
    return torch.sign(features) * torch.log1p(10 * features.abs())


@pytest.fixture(scope="module")
def exact(files):
    index = torch.arange(24)
    return prototype_scores(files / "with.h5", index, (index // 4)[:, None], scale, device="cpu")


def test_operators_predict_their_own_samples(exact):
    """Only the noise differs."""
    assert set(exact.r2) == set(CONFIG.mixture.families)
    assert all(score > 0.9 for score in exact.r2.values())
    assert sorted(exact.index.tolist()) == list(range(24))


def test_other_operators_do_not(exact, files):
    index = torch.arange(24)
    others = (index // 4 + 3)[:, None] % 6
    wrong = prototype_scores(files / "with.h5", index, others, scale, device="cpu")
    assert all(wrong.r2[name] < score - 0.3 for name, score in exact.r2.items())


def test_scores_are_those_of_each_family(exact, files):
    columns = read_columns(
        files / "with.h5",
        [schema.IC_FAMILIES, schema.PER_TIMESTEP],
        24,
        one_timestep_of=[schema.PER_TIMESTEP],
    )
    true = scale(torch.from_numpy(columns[schema.PER_TIMESTEP]))
    assert torch.equal(exact.true, true[exact.index])
    family = columns[schema.IC_FAMILIES][exact.index]
    for name, score in exact.r2.items():
        own = torch.from_numpy(family == name)
        total = (exact.true[own] - exact.true[own].mean(0)).square().sum()
        residual = (exact.predicted[own] - exact.true[own]).square().sum()
        assert score == pytest.approx(float(1 - residual / total), abs=1e-4)


def test_initial_conditions_that_are_not_stored_are_drawn_again(exact, files):
    index = exact.index[::5]
    given = torch.from_numpy(index), torch.from_numpy(index // 4)[:, None]
    found = prototype_scores(files / "without.h5", *given, scale, device="cpu")
    rows = [exact.index.tolist().index(sample) for sample in found.index]
    torch.testing.assert_close(found.predicted, exact.predicted[rows], rtol=1e-3, atol=1e-3)


def test_the_first_samples_of_each_family_are_scored(files):
    index = torch.arange(20, 4, -1)
    given = index, (index // 4)[:, None]
    found = prototype_scores(
        files / "without.h5", *given, scale, samples_per_family=1, device="cpu"
    )
    assert len(found.index) == 4
    assert all(index >= 16 for index in found.index)
    # One sample has no variance.
    assert all(score != score for score in found.r2.values())


@pytest.mark.parametrize(
    ("index", "options", "message"),
    [
        ([0, 24], {}, r"2 samples in 0\.\.23"),
        ([0], {}, r"one for each row of prototypes; got 1"),
        ([0, 1], {"timestep": 2}, r"timestep: must be in 1\.\.1, got 2"),
    ],
)
def test_what_is_not_there_is_refused(files, index, options, message):
    with pytest.raises(ConfigurationError, match=message):
        prototype_scores(
            files / "with.h5",
            torch.tensor(index),
            torch.zeros(2, 1, dtype=torch.int64),
            scale,
            **options,
        )
