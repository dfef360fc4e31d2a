"""FeatureVQVAE: shapes, gradients, training, checkpoints, and errors."""

import sys

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch import Callback
from sklearn.metrics import r2_score

from spinlock.callbacks import ContractError, FiniteCheck, ICMutualInformation
from spinlock.models import FeatureVQVAE
from tests.callbacks import SyntheticData, SyntheticDataModule, quiet_trainer

SMALL = {"hidden_dims": (32,), "latent_dim": 4, "codebook_size": 16}


def model_and_batch(**settings):
    seed_everything(0)
    return FeatureVQVAE(**(SMALL | settings)), SyntheticData(32)[:]


def trained(tmp_path, *callbacks, epochs=2, size=96, **settings):
    seed_everything(0)
    model, data = FeatureVQVAE(**(SMALL | settings)), SyntheticDataModule(size)
    trainer = quiet_trainer(tmp_path, *callbacks, max_epochs=epochs)
    trainer.fit(model, data)
    return trainer, model, data


class Losses(Callback):
    """Keeps the training loss of every step and the figures of every validation epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(outputs["loss"].item())

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.epochs.append({k: v.item() for k, v in trainer.callback_metrics.items()})


@pytest.mark.parametrize("training", [True, False])
def test_outputs(training):
    model, batch = model_and_batch()
    outputs = model.train(training)(batch)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "tokens": (32,),
        "latent": (32, 4),
        "code": (32, 4),
        "reconstruction": (32, 46),
    }
    assert outputs["tokens"].dtype == torch.int64
    assert 0 <= outputs["tokens"].min() <= outputs["tokens"].max() < model.codebook_size


def test_gradient_reaches_the_encoder_straight_through_the_codebook():
    model, batch = model_and_batch(commitment_weight=0.0)
    model.train()
    outputs = model(batch)
    (expected,) = torch.autograd.grad(
        outputs["reconstruction"].sum(), outputs["code"], retain_graph=True
    )
    (arrived,) = torch.autograd.grad(
        outputs["reconstruction"].sum(), outputs["latent"], retain_graph=True
    )
    assert torch.equal(arrived, expected)
    assert expected.abs().min() > 0
    outputs["reconstruction"].square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters())


def test_each_sample_takes_its_nearest_code():
    model, batch = model_and_batch()
    for _ in range(3):
        model.train()(batch)
    codebook = model.quantizer.codebook.clone()
    outputs = model.eval()(batch)
    distances = (outputs["latent"][:, None] - codebook[None]).square().sum(-1)
    assert torch.equal(outputs["tokens"], distances.argmin(1))
    assert torch.equal(outputs["code"], codebook[outputs["tokens"]])
    # The library's own evaluation gives the same.
    code, tokens, _ = model.quantizer(outputs["latent"])
    assert torch.equal(outputs["tokens"], tokens)
    assert torch.equal(outputs["code"], code)
    assert torch.equal(model.quantizer.codebook, codebook)


def test_evaluation_does_not_touch_the_codebook_of_an_untrained_model(tmp_path):
    model, _ = model_and_batch()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quiet_trainer(tmp_path).validate(model, SyntheticDataModule(), verbose=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("encoder", "decoder"), [(True, False), (False, True), (False, False)])
def test_conditioning_is_switched_apart(encoder, decoder):
    model, batch = model_and_batch(condition_encoder=encoder, condition_decoder=decoder)
    model.train()(batch)
    model.eval()
    changed = {**batch, "initial_features": batch["initial_features"] + 1}
    before, after = model(batch), model(changed)
    assert torch.equal(before["latent"], after["latent"]) != encoder
    same = torch.equal(before["reconstruction"], after["reconstruction"])
    assert same == (not decoder and torch.equal(before["tokens"], after["tokens"]))
    if not (encoder or decoder):
        del changed["initial_features"]
        assert torch.equal(model(changed)["reconstruction"], before["reconstruction"])


def test_training_learns(tmp_path):
    losses = Losses()
    settings = {"codebook_size": 64, "learning_rate": 3e-3}
    _, model, _ = trained(tmp_path, losses, epochs=12, size=512, **settings)
    first, last = losses.epochs[0], losses.epochs[-1]
    assert last["val/loss"] < 0.5 * first["val/loss"]
    assert last["val/r2"] > 0.7
    assert sum(losses.steps[-16:]) < 0.5 * sum(losses.steps[:16])
    tokens = model.eval()(SyntheticData(512)[:])["tokens"]
    assert len(tokens.unique()) >= 0.75 * model.codebook_size


def test_the_same_seed_gives_the_same_run(tmp_path):
    runs = []
    for _ in range(2):
        losses = Losses()
        trained(tmp_path, losses)
        runs.append(losses)
    assert runs[0].steps == runs[1].steps
    assert runs[0].epochs == runs[1].epochs


def test_logged_figures(tmp_path):
    trainer, model, data = trained(tmp_path)
    fitted = dict(trainer.callback_metrics)
    assert set(fitted) == {"train/loss", "val/loss", "val/reconstruction", "val/r2"}
    outputs = model.eval()(data.val[:])
    features, reconstruction = data.val[:]["features"], outputs["reconstruction"]
    error = (features - reconstruction).square().mean()
    commitment = (outputs["latent"] - outputs["code"]).square().mean()
    r2 = r2_score(features, reconstruction.detach(), multioutput="variance_weighted")
    assert fitted["val/reconstruction"].item() == pytest.approx(error.item(), rel=1e-5)
    assert fitted["val/loss"].item() == pytest.approx((error + 0.25 * commitment).item(), rel=1e-5)
    assert fitted["val/r2"].item() == pytest.approx(r2, rel=1e-4)
    (tested,) = trainer.test(model, data, verbose=False)
    assert set(tested) == {"test/loss", "test/reconstruction", "test/r2"}


def test_works_with_the_callbacks(tmp_path):
    trainer, _, _ = trained(tmp_path, ICMutualInformation(), FiniteCheck())
    assert -1 < trainer.callback_metrics["ic/family_ami"] < 1


def test_a_checkpoint_gives_the_same_tokens(tmp_path):
    trainer, model, data = trained(tmp_path, condition_encoder=False, hidden_dims=[24, 16])
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    loaded = FeatureVQVAE.load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams == model.hparams
    predictions = [quiet_trainer(tmp_path).predict(m, data) for m in (model, loaded)]
    for before, after in zip(*predictions, strict=True):
        assert set(before) == {"tokens", "index"}
        assert torch.equal(before["tokens"], after["tokens"])
    index = torch.cat([batch["index"] for batch in predictions[0]])
    assert torch.equal(index, data.test[:]["index"])


@pytest.mark.parametrize("key", ["features", "initial_features", "index"])
def test_a_missing_entry_is_named_with_those_there(key):
    model, batch = model_and_batch()
    del batch[key]
    keys = ", ".join(repr(k) for k in batch)
    with pytest.raises(ContractError) as error:
        model.predict_step(batch, 0)
    assert f"FeatureVQVAE needs batch['{key}'] ([B" in str(error.value)
    assert f"but the batch has the keys: {keys}." in str(error.value)


@pytest.mark.parametrize("key", ["features", "initial_features"])
def test_another_number_of_columns_is_refused(key):
    model, batch = model_and_batch(**{f"num_{key}": 13})
    with pytest.raises(ContractError, match=rf"is \[32, 46\], expected \[B, 13\].*num_{key}"):
        model(batch)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'spinlock\[vqvae\]'"):
        FeatureVQVAE()


def test_two_processes_share_the_codebook_and_the_figures(tmp_path):
    (model, _), data = model_and_batch(), SyntheticDataModule(size=128)
    callbacks = [ICMutualInformation(), FiniteCheck()]
    trainer = quiet_trainer(tmp_path, *callbacks, devices=2, strategy="ddp_spawn")
    trainer.fit(model, data)
    # Codes are averages over the 32 samples that each of the two processes has in a batch.
    counted = model.state_dict()["quantizer._codebook.cluster_size"].sum()
    assert counted.item() == pytest.approx(64, rel=0.05)
    together = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("ic/")}
    trainer = quiet_trainer(tmp_path, ICMutualInformation())
    (alone,) = trainer.validate(model, data, verbose=False)
    assert together == {k: v for k, v in alone.items() if k.startswith("ic/")}
    assert len(together) == 8
