"""FeatureVQVAE: outputs, gradients, conditions, normalization and checkpoints."""

import pytest
import torch

from spinlock.models import (
    FeatureVQVAE,
    IndependenceConfig,
    LossConfig,
    QuantizerConfig,
    ScheduleConfig,
)
from tests.callbacks import SyntheticDataModule, quiet_trainer
from tests.models.small_models import CONDITIONED, model_and_batch, trained


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
    model, batch = model_and_batch(loss=LossConfig(commitment=0.0))
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
    model, batch = model_and_batch(**CONDITIONED)
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
    model, batch = model_and_batch(encoder_conditions=encoder, decoder_conditions=decoder)
    model.train()(batch)
    model.eval()
    before = model(batch)
    for condition, key in (("variant", "variant"), ("initial_features", "initial_features")):
        after = model({**batch, key: batch[key].roll(1, 0)})
        assert torch.equal(before["latent"], after["latent"]) != (condition in encoder)
        same = torch.equal(before["reconstruction"], after["reconstruction"])
        tokens = torch.equal(before["tokens"], after["tokens"])
        assert same == (condition not in decoder and tokens)


@pytest.mark.parametrize("normalization", ["variant", "pooled", "none"])
def test_normalization_is_by_variant_pooled_or_none(normalization):
    model, batch = model_and_batch(normalization=normalization)
    batch = {key: torch.cat([value] * 4) for key, value in batch.items()}
    latent = model.train()(batch)["latent"]
    by_variant = [latent[batch["variant"] == v].mean(0).abs().max() for v in range(6)]
    assert (latent.mean(0).abs().max() < 1e-4) == (normalization != "none")
    assert (max(by_variant) < 1e-4) == (normalization == "variant")


KINDS = {
    "vector": QuantizerConfig(),
    "residual": QuantizerConfig("residual", num_codebooks=2),
    "grouped": QuantizerConfig("grouped", num_codebooks=2),
    "finite_scalar": QuantizerConfig("finite_scalar", levels=(4, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_same_tokens(tmp_path, kind):
    settings = {**CONDITIONED, "quantizer": KINDS[kind], "hidden_dims": [24, 16]}
    trainer, model, data = trained(tmp_path, **settings)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    loaded = FeatureVQVAE.load_from_checkpoint(path, weights_only=True)
    assert loaded.hparams == model.hparams
    predictions = [quiet_trainer(tmp_path).predict(m, data) for m in (model, loaded)]
    for before, after in zip(*predictions, strict=True):
        assert set(before) == {"index", "operator", "tokens", "latent"}
        assert all(torch.equal(before[key], after[key]) for key in before)
    index = torch.cat([batch["index"] for batch in predictions[0]])
    assert torch.equal(index, data.test[:]["index"])


def test_hyperparameters_are_primitives():
    model, _ = model_and_batch(
        **CONDITIONED, quantizer=KINDS["finite_scalar"], schedule=ScheduleConfig()
    )

    def leaves(value):
        children = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            for child in children:
                yield from leaves(child)
        else:
            yield value

    assert all(isinstance(v, str | int | float | None) for v in leaves(dict(model.hparams)))
    assert model.hparams.quantizer["levels"] == [4, 4]


def test_an_empty_mapping_stands_for_the_default_terms():
    model, _ = model_and_batch(independence={})
    assert model.independence.config == IndependenceConfig()
