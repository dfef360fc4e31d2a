"""Losses of FeatureVQVAE on pairs of probes of one operator."""

import pytest
import torch

from spinlock.callbacks import ContractError
from tests.callbacks import SyntheticDataModule, quiet_trainer
from tests.models.small_models import NO_TERMS, model_and_batch


def paired(batch):
    """A batch in which the other probe of each sample is the next sample."""
    keys = ("features", "initial_features", "variant", "family", "index")
    return {**batch, **{f"other_{key}": batch[key].roll(-1, 0) for key in keys}}


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
