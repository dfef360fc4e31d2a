"""Training of FeatureVQVAE: learning, warm-up, terms, rates, logged values and processes."""

import pytest
import torch
from lightning.pytorch import Callback
from sklearn.metrics import r2_score

from spinlock.callbacks import FiniteCheck, ICMutualInformation
from spinlock.errors import ConfigurationError
from spinlock.models import ScheduleConfig
from spinlock.models.quantizers import LearnedCodebooks
from spinlock.models.resumable import _MOST_LATENTS
from tests.callbacks import SyntheticData, SyntheticDataModule, quiet_trainer
from tests.forks import in_two_ranks
from tests.models.small_models import CONDITIONED, Steps, model_and_batch, trained

TERMS = ("sliced_wasserstein", "mutual_information", "code_entropy")


def test_training_learns(tmp_path):
    steps = Steps()
    settings = CONDITIONED | {"independence": None, "codebook_size": 64}
    _, model, _ = trained(tmp_path, steps, epochs=15, size=512, **settings)
    last = steps.epochs[-1]
    assert last["val/r2"] > 0.7
    assert sum(steps.losses[-16:]) < 0.5 * sum(steps.losses[:16])
    tokens = model.eval()(SyntheticData(512)[:])["tokens"]
    assert len(tokens.unique()) >= 0.75 * model.codebook_size


def test_warm_up_is_continuous_and_ends_in_a_codebook_of_its_latents(tmp_path):
    steps = Steps()
    schedule = ScheduleConfig(warmup=0.5, ramp=0.0)
    _, model, _ = trained(tmp_path, steps, epochs=4, schedule=schedule)
    # 4 epochs of 3 steps.
    assert steps.codebook == [False] * 6 + [True] * 6
    assert len(model.quantizer.codebooks[0].unique(dim=0)) == 16


def test_k_means_sees_all_latents_of_the_warm_up(tmp_path, monkeypatch):
    given = []
    initialize = LearnedCodebooks.initialize

    def spy(self, latents, batch_size):
        if not self.is_initialized:
            given.append((len(latents), batch_size))
        initialize(self, latents, batch_size)

    monkeypatch.setattr(LearnedCodebooks, "initialize", spy)
    trained(tmp_path, epochs=4, schedule=ScheduleConfig(warmup=0.5))
    # 6 of 12 batches of 32.
    assert given == [(192, 32)]


def test_latents_of_the_warm_up_are_bounded():
    model, _ = model_and_batch()
    for _ in range(40):
        model.remember(torch.zeros(1000, 4))
    assert _MOST_LATENTS <= sum(map(len, model._recent)) < _MOST_LATENTS + 1000


def test_terms_are_ramped_and_logged(tmp_path):
    values = {}

    class Terms(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            for name in TERMS:
                key = f"train/{name}"
                if key in trainer.callback_metrics:
                    values.setdefault(name, []).append(trainer.callback_metrics[key].item())

    schedule = ScheduleConfig(warmup=0.0, ramp=0.5)
    trained(tmp_path, Terms(), epochs=4, schedule=schedule, **CONDITIONED)
    assert set(values) == set(TERMS)
    for name in TERMS:
        assert values[name][0] == 0
        assert values[name][-1] != 0
    # The ramp takes six of the twelve steps.
    assert values["code_entropy"][1] > 0


def test_a_model_has_no_terms_by_default(tmp_path):
    trainer, _, _ = trained(tmp_path)
    assert set(trainer.callback_metrics) == {
        "train/loss",
        "val/loss",
        "val/reconstruction",
        "val/r2",
    }


def test_the_learning_rate_rises_and_falls(tmp_path):
    steps = Steps()
    trained(tmp_path, steps, epochs=40, learning_rate=1.0)
    assert steps.rates[0] < 0.1
    assert 0.5 < max(steps.rates) < 1
    assert steps.rates[-1] < 0.02


def test_a_model_can_be_trained_again_for_another_time(tmp_path):
    _, model, data = trained(tmp_path, epochs=1)
    steps = Steps()
    quiet_trainer(tmp_path, steps, max_epochs=40).fit(model, data)
    assert steps.rates.index(max(steps.rates)) < 60
    assert steps.rates[59] > 0.3 * model.learning_rate


def test_the_same_seed_gives_the_same_run(tmp_path):
    runs = []
    for _ in range(2):
        steps = Steps()
        trained(tmp_path, steps)
        runs.append(steps)
    assert runs[0].losses == runs[1].losses
    assert runs[0].epochs == runs[1].epochs


def test_logged_scores(tmp_path):
    trainer, model, data = trained(tmp_path)
    fitted = dict(trainer.callback_metrics)
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


def test_a_second_loader_is_logged_under_its_own_name(tmp_path):
    model, _ = model_and_batch()
    data = SyntheticDataModule()
    quiet_trainer(tmp_path).fit(model, data)
    trainer = quiet_trainer(tmp_path)
    loaders = [data.val_dataloader(), data.test_dataloader()]
    trainer.validate(model, dataloaders=loaders, verbose=False)
    both = {k: v.item() for k, v in trainer.callback_metrics.items()}
    for prefix, data_part in (("val", data.val), ("val/held_out", data.test)):
        outputs = model.eval()(data_part[:])
        target = data_part[:]["features"]
        r2 = r2_score(target, outputs["reconstruction"].detach(), multioutput="variance_weighted")
        assert both[f"{prefix}/r2"] == pytest.approx(r2, rel=1e-4)
    with pytest.raises(ConfigurationError, match="two data loaders, held_in and held_out"):
        trainer.validate(model, dataloaders=[*loaders, loaders[0]], verbose=False)


def test_works_with_the_callbacks(tmp_path):
    trainer, _, _ = trained(tmp_path, ICMutualInformation(), FiniteCheck())
    assert -1 < trainer.callback_metrics["ic/family_ami"] < 1


def test_two_processes_share_the_codebook_and_the_scores(tmp_path):
    (model, _), data = model_and_batch(), SyntheticDataModule(size=128)

    def fit():
        callbacks = [ICMutualInformation(), FiniteCheck()]
        trainer = quiet_trainer(tmp_path, *callbacks, devices=2, strategy="ddp")
        trainer.fit(model, data)
        if trainer.is_global_zero:
            torch.save(model.state_dict(), tmp_path / "trained.pt")
        return {key: value.item() for key, value in trainer.callback_metrics.items()}

    logged, _ = in_two_ranks(fit)
    model.load_state_dict(torch.load(tmp_path / "trained.pt", weights_only=True))
    # Codes are averages over the 32 samples that each of the two processes has in a batch.
    counted = model.quantizer._books[0]._codebook.cluster_size.sum()
    assert counted.item() == pytest.approx(64, rel=0.1)
    together = {k: v for k, v in logged.items() if k.startswith("ic/")}
    trainer = quiet_trainer(tmp_path, ICMutualInformation())
    (alone,) = trainer.validate(model, data, verbose=False)
    assert together == {k: v for k, v in alone.items() if k.startswith("ic/")}
    assert len(together) >= 8
