"""A model that was loaded from a checkpoint is given data that are scaled as in its training."""

import dataclasses

import pytest
import torch

from benchmarks.synthetic import write_synthetic
from spinlock import SpinlockDataModule
from spinlock.datamodules import SpinlockStreamModule, ViewOptions
from spinlock.errors import DatasetError
from spinlock.models import FeatureVQVAE
from tests.datamodules import collect
from tests.datamodules.training_runs import trainer
from tests.helpers import small_config

VIEW = ViewOptions("pairs", columns=("responses", "noise"), selection="invariant")


def data(dataset, **options):
    options = {"view": VIEW, "batch_size": 32, "max_samples": 75, "progress": False} | options
    return SpinlockDataModule(*dataset, **options)


@pytest.fixture(scope="module")
def other(datasets, tmp_path_factory):
    """Another dataset with the same columns."""
    path = tmp_path_factory.mktemp("other") / "other.h5"
    config = dataclasses.replace(datasets["responding"][1], num_samples=60, seed=7)
    write_synthetic(path, config)
    return path, config


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    """The data module of a training run, and its checkpoint."""
    datamodule, run = data(datasets["responding"], max_samples=60), trainer(1)
    model = FeatureVQVAE(latent_dim=4, codebook_size=8, hidden_dims=(8,))
    run.fit(model, datamodule=datamodule)
    file = tmp_path_factory.mktemp("trained") / "a.ckpt"
    run.save_checkpoint(file)
    return datamodule, file


def predicted(file, datamodule, **options):
    model = FeatureVQVAE.load_from_checkpoint(file)
    batches = trainer().predict(model, datamodule, **options)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_a_loaded_model_decides_on_the_scaling(datasets, trained):
    """As `ckpt_path` does; a fresh data module would scale by its own training samples."""
    datamodule, file = trained
    fresh = data(datasets["responding"])
    found = predicted(file, fresh)
    assert fresh.state_dict() == datamodule.state_dict()
    alone = data(datasets["responding"])
    alone.setup()
    assert alone.state_dict() != datamodule.state_dict()
    named = predicted(file, alone, ckpt_path=file)
    assert all(torch.equal(found[key], named[key]) for key in named)
    rows = [collect(each.predict_dataloader())["features"] for each in (fresh, datamodule)]
    assert torch.equal(*rows)


def test_a_data_module_that_is_ready_reads_its_file_again_only_if_needed(
    datasets, trained, monkeypatch
):
    datamodule, file = trained
    reads = []
    monkeypatch.setattr(datamodule, "_prepare", lambda fitted: reads.append(1))
    predicted(file, datamodule)
    assert not reads


def test_a_model_without_a_checkpoint_is_given_the_scaling_of_these_data(datasets, trained):
    """Also after another model, or after a model whose data were refused."""
    _, file = trained
    alone = data(datasets["responding"])
    alone.setup()
    new = FeatureVQVAE(latent_dim=4, codebook_size=8, hidden_dims=(8,))
    run = trainer(1, limit_train_batches=1, limit_val_batches=1)
    for options in ({}, {"ckpt_path": file}):
        datamodule = data(datasets["responding"])
        predicted(file, datamodule, **options)
        assert datamodule.state_dict() != alone.state_dict()
        rows = [collect(each.predict_dataloader())["features"] for each in (datamodule, alone)]
        assert not torch.equal(*rows)
        run.validate(new, datamodule, verbose=False)
        assert datamodule.state_dict() == alone.state_dict()
        rows = [collect(each.predict_dataloader())["features"] for each in (datamodule, alone)]
        assert torch.equal(*rows)
    refusing = data(datasets["responding"], scaling="rank")
    with pytest.raises(DatasetError, match="other data settings"):
        predicted(file, refusing)
    run.validate(new, refusing, verbose=False)


def test_a_state_that_was_loaded_by_hand_is_kept(datasets, trained):
    """A model that comes from no checkpoint does not discard it."""
    trained_on, file = trained
    datamodule = SpinlockDataModule.load_from_checkpoint(file, max_samples=75)
    predicted(file, datamodule)
    new = FeatureVQVAE(latent_dim=4, codebook_size=8, hidden_dims=(8,))
    trainer(1, limit_val_batches=1).validate(new, datamodule, verbose=False)
    assert datamodule.state_dict() == trained_on.state_dict()


@pytest.mark.parametrize("key", ["fractions", "odd"])
def test_tensors_in_a_state_are_refused(datasets, trained, key):
    """They cannot be compared; the author of a checkpoint is not trusted."""
    trained_on, file = trained
    model = FeatureVQVAE.load_from_checkpoint(file)
    settings = model.data_state["settings"] | {key: torch.zeros(2)}
    model.data_state = model.data_state | {"settings": settings}
    message = rf"not valid: settings.{key}: must be .* got tensor"
    with pytest.raises(DatasetError, match=message):
        trainer().predict(model, trained_on)
    model.data_state = None
    trainer().predict(model, trained_on)


def test_a_loaded_model_refuses_other_data(datasets, trained, other):
    _, file = trained
    for datamodule, message in (
        (data(other), "trained on another dataset .* set allow_transfer=True"),
        (data(datasets["responding"], scaling="rank"), "other data settings: scaling"),
        (data(datasets["responding"], view="pairs"), "other data settings: columns"),
    ):
        with pytest.raises(DatasetError, match=message):
            predicted(file, datamodule)
        # What was prepared before is not given to the model either.
        with pytest.raises(DatasetError, match=message):
            datamodule.predict_dataloader()


def test_transfer_takes_scaling_and_columns_of_the_loaded_model(trained, other):
    datamodule, file = trained
    transferred = data(other, allow_transfer=True)
    predicted(file, transferred)
    assert transferred.invariant == datamodule.invariant
    assert transferred.state_dict()["scalers"] == datamodule.state_dict()["scalers"]


def test_a_checkpoint_of_the_trainer_precedes_that_of_the_model(datasets, other, tmp_path):
    files = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    for dataset, file in zip((datasets["responding"], other), files, strict=True):
        run, model = trainer(1), FeatureVQVAE(latent_dim=4, codebook_size=8, hidden_dims=(8,))
        run.fit(model, datamodule=data(dataset, view="pairs"))
        run.save_checkpoint(file)
    datamodule = data(other, view="pairs")
    loaded = FeatureVQVAE.load_from_checkpoint(files[0])
    trainer().predict(loaded, datamodule, ckpt_path=files[1])
    assert loaded.data_state["fingerprint"] == other[1].fingerprint
    assert datamodule.state_dict() == loaded.data_state


def test_names_of_columns_are_compared(datasets):
    datamodule = data(datasets["responding"], view="features", allow_transfer=True)
    datamodule.setup()
    state = datamodule.state_dict()
    assert state["columns"]["features"] == list(datamodule.feature_names)
    names = state["columns"]["features"]
    for columns, message in (
        (["other", *names[1:]], r"features than the data have: only there: \['other'\], only here"),
        (names[::-1], "features than the data have: the same columns in another order"),
    ):
        given = state | {"columns": state["columns"] | {"features": columns}}
        with pytest.raises(DatasetError, match=message):
            data(datasets["responding"], view="features", allow_transfer=True).load_state_dict(
                given
            )
    # Other dynamics are left out, since only training needs them.
    given = state | {"columns": state["columns"] | {"dynamics": ["a"]}}
    datamodule.load_state_dict(given)
    assert set(datamodule.scalers) == {"features", "initial_features"}


def test_a_stream_adopts_the_scaling_of_a_loaded_model():
    config = small_config(1)
    sizes = {"batch_size": 4, "num_batches": 1, "eval_samples": 4, "population": 1000}
    trained = SpinlockStreamModule(config, scaling_samples=8, device="cpu", **sizes)
    trained.setup()
    model = FeatureVQVAE(46, num_dynamics=0, latent_dim=4, codebook_size=8, hidden_dims=(8,))
    model.data_state = trained.state_dict()
    model.data_state["scalers"]["features"]["center"][0] += 1.0
    fresh = SpinlockStreamModule(config, scaling_samples=8, device="cpu", **sizes)
    trainer().validate(model, fresh, verbose=False)
    assert fresh.state_dict() == model.data_state
    refused = SpinlockStreamModule(config, scaling_samples=9, device="cpu", **sizes)
    with pytest.raises(DatasetError, match="scaling_samples: 8 there, 9 here"):
        trainer().validate(model, refused, verbose=False)
