"""A checkpoint keeps the scaling and the settings of the data, and other data are refused."""

import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.datamodules import VariantSelection
from spinlock.errors import DatasetError
from tests.datamodules import collect, ready
from tests.datamodules.recorder import MeanModel
from tests.datamodules.training_runs import trainer


@pytest.fixture(scope="module")
def checkpoint(datasets, tmp_path_factory):
    """Return a checkpoint of a model trained on the dataset `single` with rank scaling."""
    path, config = datasets["single"]
    datamodule = SpinlockDataModule(path, config, scaling="rank", batch_size=32, progress=False)
    run = trainer(1)
    run.fit(MeanModel(), datamodule=datamodule)
    file = tmp_path_factory.mktemp("checkpoint") / "a.ckpt"
    run.save_checkpoint(file)
    return file


def test_a_checkpoint_keeps_the_scaling(datasets, checkpoint):
    """Test samples are scaled by the scalers of training."""
    path, config = datasets["single"]
    trained = ready(path, config, scaling="rank")
    # A scaler fitted on fewer training samples would differ.
    fewer = {"max_samples": 40, "scaling": "rank", "batch_size": 8, "progress": False}
    datamodule = SpinlockDataModule(path, config, **fewer)
    trainer().test(MeanModel(), datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
    expected, served = (collect(d.test_dataloader()) for d in (trained, datamodule))
    own = collect(ready(path, config, scaling="rank", max_samples=40).test_dataloader())
    for key in ("features", "initial_features"):
        assert torch.equal(served[key], expected[key])
        assert not torch.equal(own[key], expected[key])
    # The state may also be loaded before the file is read.
    early = SpinlockDataModule(path, config, **fewer)
    early.load_state_dict(trained.state_dict())
    early.setup()
    assert torch.equal(collect(early.test_dataloader())["features"], expected["features"])


def test_checkpoints_hold_primitives(datasets, checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    state = stored["SpinlockDataModule"]
    assert state["fingerprint"] == datasets["single"][1].fingerprint
    assert state["settings"]["split_seed"] == 0
    again = SpinlockDataModule.load_from_checkpoint(checkpoint)
    assert again.generation == datasets["single"][1]
    assert again.preparation.scaling == "rank"


def test_hyperparameters_make_the_same_data_module_again(datasets, tmp_path):
    path, config = datasets["single"]
    datamodule = SpinlockDataModule(
        path,
        config,
        train_variants=VariantSelection(exclude=("sinusoids",)),
        eval_variants="all",
        max_samples=50,
        batch_size=16,
        progress=False,
    )
    run = trainer(1)
    run.fit(MeanModel(), datamodule=datamodule)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = SpinlockDataModule.load_from_checkpoint(tmp_path / "a.ckpt")
    again.setup()
    assert str(again) == str(datamodule)
    assert again.eval_parts == ("held_in", "held_out")
    assert len(run.callback_metrics.keys() & {"val/0", "val/1"}) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("steps", {}, r"another dataset \(fingerprint .* num_timesteps: 1 there, 3 asked for"),
        ("single", {"split_seed": 1}, "other data settings: split_seed: 0 there, 1 here"),
        ("single", {"val_fraction": 0.2}, "other data settings: fractions: "),
        ("single", {"scaling": "robust"}, "scaling: 'rank' there, 'robust' here"),
        ("single", {"signed_log": False}, "signed_log: True there, False here"),
    ],
)
def test_a_checkpoint_of_other_data_is_refused(datasets, checkpoint, name, options, message):
    path, config = datasets[name]
    options = {"scaling": "rank", "batch_size": 8, "progress": False} | options
    datamodule = SpinlockDataModule(path, config, **options)
    with pytest.raises(DatasetError, match=message) as caught:
        trainer().test(MeanModel(), datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
    assert "allow_transfer=True" in str(caught.value)


def test_a_checkpoint_of_another_timestep_is_refused(datasets):
    path, config = datasets["steps"]
    state = ready(path, config).state_dict()
    ready(path, config, timestep=3).load_state_dict(state)
    with pytest.raises(DatasetError, match="data settings: timestep: 3 there, 2 here"):
        ready(path, config, timestep=2).load_state_dict(state)


def test_transfer_takes_the_scaling_along(datasets, checkpoint):
    path, config = datasets["steps"]
    datamodule = SpinlockDataModule(path, config, allow_transfer=True, batch_size=8, progress=False)
    trainer().test(MeanModel(), datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
    trained = ready(*datasets["single"], scaling="rank").feature_scaler
    raw = collect(ready(path, config, scaling="none").predict_dataloader())["features"]
    served = collect(datamodule.predict_dataloader())["features"]
    assert torch.equal(served, trained.transform(raw))


def test_a_checkpoint_of_other_features_is_refused(datasets):
    path, config = datasets["single"]
    state = ready(path, config).state_dict()
    for name in ("knee", "center", "spread"):
        state["scalers"]["features"][name].append(1.0)
    for name in ("knots", "quantiles"):
        state["scalers"]["features"][name].append([])
    with pytest.raises(DatasetError, match="columns of features than the data have: 47 there, 46"):
        SpinlockDataModule(path, config).load_state_dict(state)


def test_the_state_before_setup_has_no_scaling(datasets):
    path, config = datasets["single"]
    other = SpinlockDataModule(path, config, progress=False)
    other.load_state_dict(SpinlockDataModule(path, config).state_dict())
    other.setup()
    assert torch.equal(other.feature_scaler.center, ready(path, config).feature_scaler.center)
