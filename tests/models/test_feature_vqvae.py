"""FeatureVQVAE: shapes, gradients, training, pairs, checkpoints, and errors."""

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch import Callback
from sklearn.metrics import r2_score

from spinlock.callbacks import ContractError, FiniteCheck, ICMutualInformation
from spinlock.errors import ConfigurationError
from spinlock.models import FeatureVQVAE, IndependenceConfig, QuantizerConfig, ScheduleConfig
from spinlock.models.feature_vqvae import _MOST_LATENTS
from spinlock.models.quantizers import LearnedCodebooks
from tests.callbacks import VARIANTS, SyntheticData, SyntheticDataModule, quiet_trainer
from tests.forks import in_two_ranks

SMALL = {"hidden_dims": (32,), "latent_dim": 4, "codebook_size": 16, "num_variants": len(VARIANTS)}
NO_TERMS = IndependenceConfig(sliced_wasserstein=0, mutual_information=0, code_entropy=0)
TERMS = ("sliced_wasserstein", "mutual_information", "code_entropy")


def model_and_batch(**settings):
    seed_everything(0)
    return FeatureVQVAE(**(SMALL | settings)), SyntheticData(32)[:]


def trained(tmp_path, *callbacks, epochs=2, size=96, **settings):
    seed_everything(0)
    model, data = FeatureVQVAE(**(SMALL | settings)), SyntheticDataModule(size)
    trainer = quiet_trainer(tmp_path, *callbacks, max_epochs=epochs)
    trainer.fit(model, data)
    return trainer, model, data


def paired(batch):
    """A batch in which the other probe of each sample is the next sample."""
    keys = ("features", "initial_features", "variant", "family", "index")
    return {**batch, **{f"other_{key}": batch[key].roll(-1, 0) for key in keys}}


class Steps(Callback):
    """Records losses, learning rates and logged values, and whether the codebook exists."""

    def __init__(self):
        self.losses, self.codebook, self.rates, self.epochs = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.codebook.append(pl_module.quantizer.is_initialized)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

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
    assert not torch.equal(outputs["code"], outputs["latent"])
    (expected,) = torch.autograd.grad(
        outputs["reconstruction"].sum(), outputs["code"], retain_graph=True
    )
    (arrived,) = torch.autograd.grad(
        outputs["reconstruction"].sum(), outputs["latent"], retain_graph=True
    )
    assert torch.equal(arrived, expected)
    assert expected.abs().min() > 0
    outputs["reconstruction"].square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.autoencoder.encoder.parameters())


def test_evaluation_does_not_touch_the_codebook_of_an_untrained_model(tmp_path):
    model, _ = model_and_batch()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quiet_trainer(tmp_path).validate(model, SyntheticDataModule(), verbose=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_decode_gives_the_reconstruction_and_follows_the_initial_condition():
    model, batch = model_and_batch()
    model.train()(batch)
    model.eval()
    outputs = model(batch)
    known = {key: batch[key] for key in ("initial_features", "variant")}
    assert torch.equal(model.decode(outputs["tokens"], known), outputs["reconstruction"])
    for key in known:
        other = known | {key: known[key].roll(1, 0)}
        assert not torch.equal(model.decode(outputs["tokens"], other), outputs["reconstruction"])


@pytest.mark.parametrize("encoder", [[], ["variant"], ["initial_features"]])
@pytest.mark.parametrize("decoder", [[], ["variant"], ["initial_features"]])
def test_conditions_of_encoder_and_decoder_are_independent(encoder, decoder):
    model, batch = model_and_batch(
        encoder_conditions=encoder, decoder_conditions=decoder, normalization="pooled"
    )
    model.train()(batch)
    model.eval()
    before = model(batch)
    for condition, key in (("variant", "variant"), ("initial_features", "initial_features")):
        after = model({**batch, key: batch[key].roll(1, 0)})
        assert torch.equal(before["latent"], after["latent"]) != (condition in encoder)
        same = torch.equal(before["reconstruction"], after["reconstruction"])
        tokens = torch.equal(before["tokens"], after["tokens"])
        assert same == (condition not in decoder and tokens)


def test_initial_features_are_added_times_a_factor_for_each_column():
    model, batch = model_and_batch(carry_initial=True)
    outputs = model.train()(batch)
    factors = model.autoencoder.initial_factors
    assert torch.equal(factors, torch.ones(46))
    plain = model.autoencoder.decoder(model.autoencoder.decoder_inputs(outputs["code"], batch))
    expected = plain + batch["initial_features"]
    torch.testing.assert_close(outputs["reconstruction"], expected)
    (gradient,) = torch.autograd.grad(outputs["reconstruction"].sum(), factors)
    torch.testing.assert_close(gradient, batch["initial_features"].sum(0))
    with pytest.raises(ConfigurationError, match=r"carry_initial: requires .*; got 13 and 46"):
        FeatureVQVAE(**SMALL, carry_initial=True, num_initial_features=13)


@pytest.mark.parametrize("normalization", ["variant", "pooled", "none"])
def test_normalization_is_by_variant_pooled_or_none(normalization):
    model, batch = model_and_batch(normalization=normalization)
    batch = {key: torch.cat([value] * 4) for key, value in batch.items()}
    latent = model.train()(batch)["latent"]
    by_variant = [latent[batch["variant"] == v].mean(0).abs().max() for v in range(6)]
    assert (latent.mean(0).abs().max() < 1e-4) == (normalization != "none")
    assert (max(by_variant) < 1e-4) == (normalization == "variant")


def test_training_learns(tmp_path):
    steps = Steps()
    settings = {"codebook_size": 64, "independence": NO_TERMS}
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
        model._remember(torch.zeros(1000, 4))
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
    trained(tmp_path, Terms(), epochs=4, schedule=schedule)
    assert set(values) == set(TERMS)
    for name in TERMS:
        assert values[name][0] == 0
        assert values[name][-1] != 0
    # The ramp takes six of the twelve steps.
    assert values["code_entropy"][1] > 0


def test_terms_of_no_weight_are_left_out(tmp_path):
    trainer, _, _ = trained(tmp_path, independence=NO_TERMS)
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
    with pytest.raises(ConfigurationError, match="2 data loaders, held_in and held_out"):
        trainer.validate(model, dataloaders=[*loaders, loaders[0]], verbose=False)


def test_pairs_weigh_the_features_under_the_other_probe():
    model, batch = model_and_batch(commitment_weight=0.0)
    batch = paired(batch)
    model.train()(batch)
    model.eval()
    outputs = model(batch)
    crossed = {"initial_features": batch["other_initial_features"]}
    decoded = model.decode(outputs["tokens"], crossed | {"variant": batch["other_variant"]})
    cross = (decoded - batch["other_features"]).square().mean()
    own = (outputs["reconstruction"] - batch["features"]).square().mean()
    assert abs(cross / own - 1) > 1e-3
    for weight in (0.0, 0.25, 1.0):
        model.pair_weight = weight
        losses = model._losses(batch, outputs)
        expected = (1 - weight) * own + weight * cross
        assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert losses["reconstruction"].item() == pytest.approx(own.item(), rel=1e-5)


def test_alignment_is_the_distance_of_the_latents_of_two_probes():
    model, batch = model_and_batch(alignment_weight=0.5, independence=NO_TERMS)
    batch = paired(batch)
    model.train()(batch)
    model.eval()
    latent = model(batch)["latent"]
    terms = model._terms(batch, latent, 0.5)
    expected = 0.25 * (latent - latent.roll(-1, 0)).square().mean()
    assert set(terms) == {"alignment"}
    torch.testing.assert_close(terms["alignment"], expected)


@pytest.mark.parametrize("setting", ["pair_weight", "alignment_weight"])
def test_pairs_need_the_other_probe(tmp_path, setting):
    model, _ = model_and_batch(**{setting: 0.5})
    with pytest.raises(ContractError, match=r"the model needs batch\['.*features'\]"):
        quiet_trainer(tmp_path).fit(model, SyntheticDataModule())


def test_works_with_the_callbacks(tmp_path):
    trainer, _, _ = trained(tmp_path, ICMutualInformation(), FiniteCheck())
    assert -1 < trainer.callback_metrics["ic/family_ami"] < 1


KINDS = {
    "vector": QuantizerConfig(),
    "residual": QuantizerConfig("residual", num_codebooks=2),
    "grouped": QuantizerConfig("grouped", num_codebooks=2),
    "finite_scalar": QuantizerConfig("finite_scalar", levels=(4, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_same_tokens(tmp_path, kind):
    trainer, model, data = trained(tmp_path, quantizer=KINDS[kind], hidden_dims=[24, 16])
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


def test_hyperparameters_are_primitives():
    model, _ = model_and_batch(quantizer=KINDS["finite_scalar"], schedule=ScheduleConfig())

    def leaves(value):
        children = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            for child in children:
                yield from leaves(child)
        else:
            yield value

    assert all(isinstance(v, str | int | float | None) for v in leaves(dict(model.hparams)))
    assert model.hparams.quantizer["levels"] == [4, 4]


@pytest.mark.parametrize("key", ["features", "initial_features", "variant", "index"])
def test_a_missing_entry_is_named_with_the_existing_ones(key):
    model, batch = model_and_batch()
    del batch[key]
    keys = ", ".join(repr(k) for k in batch)
    with pytest.raises(ContractError) as error:
        model.predict_step(batch, 0)
    assert f"the model needs batch['{key}'] ([B" in str(error.value)
    assert f"but the batch has the keys: {keys}." in str(error.value)


@pytest.mark.parametrize("key", ["features", "initial_features"])
def test_another_number_of_columns_is_refused(key):
    model, batch = model_and_batch(**{f"num_{key}": 13})
    with pytest.raises(ContractError, match=rf"is \[32, 46\], expected \[B, 13\].*num_{key}"):
        model(batch)


def test_another_number_of_variants_is_refused(tmp_path):
    model, batch = model_and_batch(num_variants=4)
    with pytest.raises(ContractError, match="has variant 5, but the model has 4"):
        model(batch)
    with pytest.raises(ConfigurationError, match=r"has 4 variants.*set model.num_variants"):
        quiet_trainer(tmp_path).fit(model, SyntheticDataModule())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pair_weight": 1.5}, r"pair_weight: must be in \[0, 1\], and .*; got 1.5 and 0.0"),
        ({"alignment_weight": -1.0}, r"alignment_weight at least 0; got 0.0 and -1.0"),
        ({"normalization": "layer"}, "normalization: must be one of 'variant', 'pooled', 'none'"),
        (
            {"encoder_conditions": ["update_policy"]},
            r"conditions\[0\]: must be one of 'initial_features'",
        ),
        ({"encoder_conditions": ["variant", "variant"]}, "each once"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        FeatureVQVAE(**(SMALL | settings))


def test_an_endless_run_needs_a_schedule_without_fractions(tmp_path):
    model, _ = model_and_batch()
    trainer = quiet_trainer(tmp_path, max_epochs=-1)
    with pytest.raises(ConfigurationError, match=r"length is not known; set trainer.max_epochs"):
        trainer.fit(model, SyntheticDataModule())


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
