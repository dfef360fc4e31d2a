"""Terms of the loss: features of other probes, dynamics, alignment and commitment."""

import math

import pytest
import torch

from spinlock.callbacks import ContractError
from spinlock.errors import ConfigurationError
from spinlock.models import LossConfig
from spinlock.models.probe_sets import ProbeSets
from tests.callbacks import SyntheticDataModule, quiet_trainer
from tests.models.small_models import CONDITIONED, model_and_batch


def paired(batch):
    """A batch in which the other probe of each sample is the next sample."""
    keys = ("features", "initial_features", "variant", "family", "index")
    return {**batch, **{f"other_{key}": batch[key].roll(-1, 0) for key in keys}}


def test_the_other_probe_is_predicted_under_its_own_initial_condition():
    settings = CONDITIONED | {"independence": None}
    model, batch = model_and_batch(**settings)
    batch = paired(batch)
    model.train()(batch)
    model.eval()
    outputs = model(batch)
    crossed = {"initial_features": batch["other_initial_features"]}
    decoded = model.decode(outputs["tokens"], crossed | {"variant": batch["other_variant"]})
    cross = (decoded - batch["other_features"]).square().mean()
    own = (outputs["reconstruction"] - batch["features"]).square().mean()
    distance = (outputs["latent"] - outputs["code"]).square().mean()
    assert abs(cross / own - 1) > 1e-4
    assert distance > 0
    for weight in (0.0, 0.25, 1.0):
        model.loss = LossConfig(other_probe=weight, alignment=0.0, commitment=2.0)
        expected = (1 - weight) * own + weight * cross + 2 * distance
        given = model.validation_step(batch, 0)["loss"]
        assert given.item() == pytest.approx(expected.item(), rel=1e-5)


def test_dynamics_have_an_error_of_their_own():
    model, batch = model_and_batch(num_dynamics=3, loss=LossConfig(dynamics=0.7, commitment=0.0))
    batch["dynamics"] = torch.randn(32, 3)
    probes, outputs = ProbeSets.of(batch), model.train()(batch)
    losses = model.loss.errors(probes, {**outputs, "decoded": outputs["reconstruction"]}, batch)
    features = (outputs["reconstruction"] - batch["features"]).square().mean()
    dynamics = (outputs["dynamics"] - batch["dynamics"]).square().mean()
    torch.testing.assert_close(losses["dynamics"], dynamics)
    # One probe: its features have the whole weight.
    torch.testing.assert_close(losses["loss"], features + 0.7 * dynamics)
    del batch["dynamics"]
    with pytest.raises(ContractError, match=r"the model needs batch\['dynamics'\]"):
        model.loss.errors(probes, {**outputs, "decoded": outputs["reconstruction"]}, batch)


def test_dynamics_of_no_weight_are_not_decoded():
    model, batch = model_and_batch(num_dynamics=3, loss=LossConfig(dynamics=0.0))
    assert "dynamics" not in model(batch)


def test_alignment_is_the_distance_of_the_latents_of_two_probes():
    model, batch = model_and_batch(loss=LossConfig(alignment=0.5))
    batch = paired(batch)
    model.train()(batch)
    latent = model.eval()({key: batch[key] for key in ("features", "variant")})["latent"]
    probes = ProbeSets.of(batch)
    terms = model._terms(probes, model._encoded(probes)["latents"], 0.5)
    expected = 0.25 * (latent - latent.roll(-1, 0)).square().mean()
    assert set(terms) == {"alignment"}
    torch.testing.assert_close(terms["alignment"], expected)


@pytest.mark.parametrize("setting", ["other_probe", "alignment"])
def test_terms_that_compare_probes_need_another_probe(tmp_path, setting):
    loss = LossConfig(**({"other_probe": 0.0, "alignment": 0.0} | {setting: 0.5}))
    model, _ = model_and_batch(loss=loss)
    remedy = r"set the data module's view to pairs or probes.* loss.other_probe and loss.alignment"
    with pytest.raises(ContractError, match=rf"needs batch\['other_features'\].*{remedy} to 0"):
        quiet_trainer(tmp_path).fit(model, SyntheticDataModule())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"other_probe": 1.5}, r"loss.other_probe: must be in \[0, 1\], got 1.5"),
        ({"other_probe": -0.1}, r"loss.other_probe: must be in \[0, 1\], got -0.1"),
        ({"alignment": -1.0}, "loss.alignment: must be finite and >= 0, got -1.0"),
        ({"dynamics": math.inf}, "loss.dynamics: must be finite and >= 0, got inf"),
        ({"commitment": math.nan}, "loss.commitment: must be finite and >= 0, got nan"),
        ({"commitment": "much"}, "loss.commitment: must be of type float"),
    ],
)
def test_bad_weights_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        LossConfig(**settings)
