"""Sizes of models that the data module knows, and data whose sizes differ from the model's."""

import dataclasses

import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.callbacks import ContractError
from spinlock.datamodules import ViewOptions
from spinlock.errors import ConfigurationError
from spinlock.models import FeatureVQVAE, LossConfig, SequenceVQVAE
from tests.callbacks import SyntheticDataModule, quiet_trainer
from tests.models.small_models import CONDITIONED, ONE_PROBE, model_and_batch
from tests.models.training_runs import data, trainer_with

COLUMNS = {"columns": ("responses", "noise"), "selection": "invariant"}
SIZES = ("num_features", "num_dynamics", "num_initial_features", "num_variants")


def fitted(datamodule, kind=FeatureVQVAE, **settings):
    torch.manual_seed(0)
    model = kind(latent_dim=4, hidden_dims=(16,), codebook_size=8, **settings)
    trainer = trainer_with(max_epochs=1)
    trainer.fit(model, datamodule)
    return trainer, model


def predicted(model, datamodule):
    batches = trainer_with().predict(model, datamodule)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize("view", ["pairs", "probes"])
def test_sizes_are_those_of_the_data(datasets, tmp_path, view):
    datamodule = data(datasets, "responses", view=ViewOptions(view, **COLUMNS), batch_size=9)
    trainer, model = fitted(datamodule)
    assert {key: model.hparams[key] for key in SIZES} == {
        "num_features": len(datamodule.invariant.selected),
        "num_dynamics": len(datamodule.dynamics_names),
        # These serve conditions only.
        "num_initial_features": 0,
        "num_variants": 1,
    }
    batch = next(iter(datamodule.val_dataloader()))
    assert model(batch)["dynamics"].shape == batch["dynamics"].shape
    assert {"val/dynamics", "val/r2"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = FeatureVQVAE.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.hparams == model.hparams
    before, after = predicted(model, datamodule), predicted(loaded, datamodule)
    assert set(before) == {"index", "operator", "tokens", "latent"}
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_conditions_have_the_sizes_of_the_data(datasets):
    datamodule = data(datasets, view="pairs")
    _, model = fitted(datamodule, **CONDITIONED)
    sizes = (46, 0, 46, datamodule.num_variants)
    assert tuple(model.hparams[key] for key in SIZES) == sizes
    assert model.autoencoder.num_groups == datamodule.num_variants


def test_sequences_have_the_sizes_of_the_data(datasets):
    _, model = fitted(data(datasets, "steps", view="sequence"), SequenceVQVAE)
    assert (model.hparams["num_features"], model.hparams["num_dynamics"]) == (46, 0)


def test_a_token_of_identical_probes_is_the_token_of_one(datasets):
    datamodule = data(datasets, "responses", view=ViewOptions("probes", **COLUMNS), batch_size=9)
    _, model = fitted(datamodule)
    features = next(iter(datamodule.val_dataloader()))["features"][:, 0]
    alone = model.eval()({"features": features})
    repeated = model({"features": features[:, None].expand(-1, 5, -1)})
    assert torch.equal(alone["tokens"], repeated["tokens"])
    for key in ("latent", "reconstruction", "dynamics"):
        torch.testing.assert_close(alone[key], repeated[key])
    assert torch.equal(model.quantize(alone["latent"]), alone["tokens"])


def test_one_probe_of_each_operator_is_enough(datasets):
    """The columns are then a fixed list."""
    datamodule = data(datasets, "one probe", view=ViewOptions("responses", selection="invariant"))
    trainer, model = fitted(datamodule, loss=ONE_PROBE)
    assert datamodule.invariant.operator == ()
    assert model.hparams["num_features"] == len(datamodule.invariant.selected)
    assert trainer.test(model, datamodule, verbose=False)[0]["test/dynamics"] > 0
    found = predicted(model, datamodule)
    assert found["index"].tolist() == found["operator"].tolist() == list(range(60))


@pytest.mark.parametrize("name", ["no dynamics", "transport"])
def test_data_with_other_dynamics_are_tokenized(datasets, name):
    """By a model that decodes its own, which only training needs."""
    datamodule = data(datasets, "responses", view=ViewOptions("pairs", **COLUMNS))
    _, model = fitted(datamodule)
    path, config = datasets[name]
    other = SpinlockDataModule(
        path,
        config,
        view=ViewOptions("pairs", **COLUMNS),
        allow_transfer=True,
        progress=False,
    )
    other.load_state_dict(datamodule.state_dict())
    expected, found = predicted(model, datamodule), predicted(model, other)
    # The responses of the two files are the same.
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert other.dynamics_names != datamodule.dynamics_names
    assert "dynamics" not in next(iter(other.predict_dataloader()))


def test_a_file_without_training_operators_has_the_columns_of_a_checkpoint(datasets):
    datamodule = data(datasets, "responses", view=ViewOptions("pairs", **COLUMNS))
    datamodule.setup()
    path, config = datasets["responses"]
    options = {"view": ViewOptions("pairs", **COLUMNS), "progress": False}
    options |= {"val_fraction": 0.5, "test_fraction": 0.49}
    few = dataclasses.replace(config, num_samples=9)
    with pytest.raises(ConfigurationError, match="the train split is empty"):
        SpinlockDataModule(path, few, **options).setup()
    other = SpinlockDataModule(path, few, allow_transfer=True, **options)
    other.setup()
    with pytest.raises(ConfigurationError, match="the train split is empty"):
        other.predict_dataloader()
    other.load_state_dict(datamodule.state_dict())
    assert other.training_samples.tolist() == []
    assert other.feature_names == datamodule.feature_names
    batches = [next(iter(each.predict_dataloader()))["features"] for each in (datamodule, other)]
    assert torch.equal(batches[0][:9], batches[1])


def test_data_loaders_do_not_know_the_sizes(tmp_path):
    loader = SyntheticDataModule().train_dataloader()
    with pytest.raises(ContractError, match="FeatureVQVAE needs the data module's feature_names"):
        quiet_trainer(tmp_path).fit(FeatureVQVAE(), loader)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_features": 13}, r"'features'\] is \[\d+, 46\], expected .*num_features"),
        ({"num_dynamics": 2}, r"the model needs batch\['dynamics'\]"),
        ({"num_initial_features": 5, **CONDITIONED}, r"'initial_features'\] .*num_initial_feat"),
        (
            {"num_variants": 3, **CONDITIONED},
            "has 3 variants, the data module has 6; set model",
        ),
    ],
)
def test_other_sizes_than_those_of_the_data_are_refused(tmp_path, settings, message):
    model, _ = model_and_batch(**settings)
    with pytest.raises((ContractError, ConfigurationError), match=message):
        quiet_trainer(tmp_path).fit(model, SyntheticDataModule())


def test_the_loss_is_a_setting_of_a_checkpoint(datasets, tmp_path):
    loss = LossConfig(other_probe=0.2, alignment=0.3, dynamics=0.0, commitment=0.4)
    datamodule = data(datasets, "responses", view=ViewOptions("pairs", **COLUMNS))
    trainer, model = fitted(datamodule, loss=loss)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = FeatureVQVAE.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.loss == model.loss == loss
    assert model.hparams["num_dynamics"] == 0
