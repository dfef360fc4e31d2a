"""SequenceVQVAE: a token for each timestep, and logged scores of their dynamics."""

import pytest
import torch
from torch.utils.data import DataLoader

from spinlock.callbacks import ContractError, ICMutualInformation
from spinlock.errors import ConfigurationError
from spinlock.models import FeatureVQVAE, LossConfig, QuantizerConfig, SequenceVQVAE
from spinlock.models.probe_sets import ProbeSets
from tests.callbacks import UPDATE_POLICIES, SyntheticData, SyntheticDataModule, quiet_trainer
from tests.models.small_models import CONDITIONED, SMALL, small_model

STEPS = 5


class Sequences(SyntheticData):
    """Features that change over time from those of the sample to those of the next sample."""

    def __init__(self, size, first_index=0):
        super().__init__(size, first_index)
        share = torch.linspace(0, 1, STEPS)[:, None]
        features = self.columns["features"][:, None]
        self.columns["features"] = (1 - share) * features + share * features.roll(1, 0)


class SequenceDataModule(SyntheticDataModule):
    def __init__(self, size=64):
        super().__init__(size)
        self.train, self.val, self.test = (Sequences(size, n) for n in (0, 1000, 2000))


def fitted(tmp_path, *callbacks, **settings):
    model, data = small_model(SequenceVQVAE, **(CONDITIONED | settings)), SequenceDataModule()
    trainer = quiet_trainer(tmp_path, *callbacks, max_epochs=6)
    trainer.fit(model, data)
    return trainer, model, data


def test_outputs_are_those_of_each_timestep_by_itself(tmp_path):
    _, model, data = fitted(tmp_path)
    batch = data.val[:8]
    outputs = model.eval()(batch)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "tokens": (8,),
        "token_sequence": (8, STEPS),
        "latent": (8, 4),
        "code": (8, 4),
        "reconstruction": (8, 46),
    }
    assert torch.equal(outputs["tokens"], outputs["token_sequence"][:, -1])
    single = FeatureVQVAE(**SMALL, **CONDITIONED).eval()
    single.load_state_dict({k: v for k, v in model.state_dict().items() if "dynamics" not in k})
    for step in range(STEPS):
        alone = single({**batch, "features": batch["features"][:, step]})
        assert torch.equal(alone["tokens"], outputs["token_sequence"][:, step])
    torch.testing.assert_close(alone["reconstruction"], outputs["reconstruction"])


def test_scores_are_over_all_timesteps(tmp_path):
    trainer, model, data = fitted(tmp_path, ICMutualInformation())
    logged = {k: v.item() for k, v in trainer.callback_metrics.items()}
    batch = data.val[:]
    tokens = model.eval()(batch)["token_sequence"]
    rows = model._rows(batch)
    error = (FeatureVQVAE.decode(model, tokens.flatten(), rows) - rows["features"]).square().mean()
    assert logged["val/reconstruction"] == pytest.approx(error.item(), rel=1e-5)
    stay = (tokens[:, 1:] == tokens[:, :-1]).float().mean().item()
    assert logged["sequence/stay_probability"] == pytest.approx(stay)
    for number, name in enumerate(UPDATE_POLICIES):
        own = tokens[batch["update_policy"] == number]
        changes = (own[:, 1:] != own[:, :-1]).sum().item()
        expected = own.numel() / (len(own) + changes)
        assert logged[f"sequence/dwell_time/{name}"] == pytest.approx(expected)
    (tested,) = trainer.test(model, data, verbose=False)
    assert 0 < tested["test/sequence/stay_probability"] < 1


def test_a_checkpoint_gives_the_same_sequences(tmp_path):
    trainer, model, data = fitted(tmp_path)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = SequenceVQVAE.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    before, after = (quiet_trainer(tmp_path).predict(m, data) for m in (model, loaded))
    for one, other in zip(before, after, strict=True):
        assert set(one) == {"index", "operator", "tokens", "latent", "token_sequence"}
        assert torch.equal(one["token_sequence"], other["token_sequence"])


@pytest.mark.parametrize("kind", ["residual", "grouped"])
def test_several_codebooks_are_refused(tmp_path, kind):
    model = small_model(SequenceVQVAE, quantizer=QuantizerConfig(kind, num_codebooks=2))
    with pytest.raises(ConfigurationError, match=r"quantizer.num_codebooks must be 1, got 2"):
        quiet_trainer(tmp_path).fit(model, SequenceDataModule())


def test_terms_that_compare_probes_have_no_effect(tmp_path):
    with_terms, without = (
        fitted(tmp_path, loss=LossConfig(other_probe=weight, alignment=weight))[1].state_dict()
        for weight in (0.5, 0.0)
    )
    assert all(torch.equal(value, without[key]) for key, value in with_terms.items())


def test_dynamics_are_decoded_at_each_timestep():
    model, data = small_model(SequenceVQVAE, num_dynamics=2), Sequences(8)
    batch = {**data[:], "dynamics": torch.zeros(8, 2)}
    loss, rows = model.train().loss, model._rows(batch)
    outputs = model._encoded(ProbeSets.of(rows))
    assert outputs["dynamics"].shape == (8 * STEPS, 2)
    error = loss.errors(ProbeSets.of(rows), outputs, rows)["dynamics"]
    torch.testing.assert_close(error, outputs["dynamics"].square().mean())
    assert torch.equal(model(batch)["dynamics"], model._outputs(outputs, batch)["dynamics"])


def test_single_timesteps_are_refused():
    with pytest.raises(ContractError, match=r"is \[4, 46\], expected \[B, T, F\].*to sequence"):
        SequenceVQVAE(**SMALL)(SyntheticData(4)[:])


def test_policies_need_names(tmp_path):
    loader = DataLoader(Sequences(8), batch_size=8)
    with pytest.raises(ContractError, match="needs the data module's update_policy_names"):
        quiet_trainer(tmp_path).fit(SequenceVQVAE(**SMALL), loader)
