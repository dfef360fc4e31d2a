"""OperatorConsistency on operators whose features are known to be code + initial condition / 2."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_mutual_info_score, r2_score

from spinlock.callbacks import ContractError, OperatorConsistency
from spinlock.callbacks.baselines import PENALTIES, ridge_r_squared
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError
from tests.callbacks import (
    DecodingModel,
    SyntheticDataModule,
    TokenModel,
    quiet_trainer,
    with_operator_tokens,
)


def validate(tmp_path, model, data, **settings):
    trainer = quiet_trainer(tmp_path, OperatorConsistency(detailed=True), **settings)
    return trainer.validate(model, data, verbose=False)[0]


def case(probes=2, size=240):
    data = SyntheticDataModule(size, probes=probes)
    return data, with_operator_tokens(data)


def other(index, probes):
    """The next probe of the same operator."""
    return index // probes * probes + (index + 1) % probes


@pytest.mark.parametrize("probes", [2, 3])
def test_tokens_that_name_operators_agree_and_decode(tmp_path, probes):
    data, codes = case(probes)
    logged = validate(tmp_path, DecodingModel(codes), data)
    assert logged["consistency/token_agreement"] == 1
    assert logged["consistency/token_ami"] == pytest.approx(1)
    assert logged["consistency/latent_correlation"] == pytest.approx(1, abs=1e-5)
    assert logged["consistency/cross_probe_r2"] == pytest.approx(1, abs=1e-6)
    assert logged["consistency/shuffled_tokens_r2"] < 0.5
    assert logged["consistency/ic_only_r2"] < 0.7
    assert set(logged) == {
        f"consistency/{name}"
        for name in (
            "token_agreement",
            "token_ami",
            "latent_correlation",
            "cross_probe_r2",
            "shuffled_tokens_r2",
            "ic_only_r2",
        )
    }


def test_tokens_of_the_initial_condition_are_below_the_baseline(tmp_path):
    data, codes = case(size=960)
    columns = data.val.columns
    # Of the initial condition's variant, decoded as the mean operator under it.
    columns["tokens"] = columns["variant"]
    means = torch.stack(
        [codes[columns["operator"][columns["variant"] == v]].mean(0) for v in range(6)]
    )
    logged = validate(tmp_path, DecodingModel(means), data)
    assert logged["consistency/token_ami"] < 0.2
    assert logged["consistency/cross_probe_r2"] < logged["consistency/ic_only_r2"] + 0.02


def test_constant_tokens_are_no_identity(tmp_path):
    data, codes = case()
    data.val.columns["tokens"] = torch.zeros(240, dtype=torch.int64)
    logged = validate(tmp_path, DecodingModel(codes.mean(0, keepdim=True)), data)
    assert logged["consistency/token_agreement"] == 1
    assert logged["consistency/cross_probe_r2"] == logged["consistency/shuffled_tokens_r2"]
    assert logged["consistency/latent_correlation"] == 0


def test_scores_by_hand(tmp_path):
    data, codes = case(probes=3)
    columns = data.val.columns
    generator = torch.Generator().manual_seed(0)
    spoilt = torch.rand(240, generator=generator) < 0.4
    random = torch.randint(80, (240,), generator=generator) + 1000
    columns["tokens"] = torch.where(spoilt, random, columns["tokens"])
    # The order in which samples come must not matter.
    order = torch.randperm(240, generator=generator)
    data.val.columns = columns = {key: column[order] for key, column in columns.items()}
    logged = validate(tmp_path, DecodingModel(codes), data)

    by_index = columns["index"].argsort()
    partner = by_index[other(columns["index"] - 1000, 3)]
    assert torch.equal(columns["operator"][partner], columns["operator"])
    a, b = columns["tokens"], columns["tokens"][partner]
    agreement = (a == b).float().mean().item()
    assert logged["consistency/token_agreement"] == pytest.approx(agreement)
    ami = adjusted_mutual_info_score(a, b)
    assert logged["consistency/token_ami"] == pytest.approx(ami, rel=1e-4)
    decoded = codes[a] + 0.5 * columns["initial_features"][partner]
    r2 = r2_score(columns["features"][partner], decoded, multioutput="variance_weighted")
    assert logged["consistency/cross_probe_r2"] == pytest.approx(r2, rel=1e-4)
    x, y = codes[a][:, :4].numpy(), codes[b][:, :4].numpy()
    correlation = np.mean([np.corrcoef(x[:, d], y[:, d])[0, 1] for d in range(4)])
    assert logged["consistency/latent_correlation"] == pytest.approx(correlation, rel=1e-4)


def test_the_view_of_pairs_gives_the_same(tmp_path):
    data, codes = case()
    expected = validate(tmp_path, DecodingModel(codes), data)
    partner = other(torch.arange(240), 2)
    columns = data.val.columns
    for key in ("features", "initial_features", "variant", "index"):
        columns[f"other_{key}"] = columns[key][partner]
    assert validate(tmp_path, DecodingModel(codes), data) == pytest.approx(expected, abs=1e-6)
    # The pairs that a row holds, not others that the epoch would have.
    logged = validate(tmp_path, DecodingModel(codes), data, limit_val_batches=1)
    assert logged["consistency/cross_probe_r2"] == pytest.approx(1, abs=1e-6)
    columns["other_features"] = columns["features"].flip(0)
    assert validate(tmp_path, DecodingModel(codes), data)["consistency/cross_probe_r2"] < 0.5


def test_residual_tokens_and_sequences(tmp_path):
    data, codes = case()
    columns = data.val.columns
    expected = validate(tmp_path, DecodingModel(codes), data)
    columns["tokens"] = torch.stack([columns["tokens"] // 8, columns["tokens"] % 8], 1)
    columns["features"] = torch.stack([columns["features"] + 9, columns["features"]], 1)

    class Residual(DecodingModel):
        def decode(self, tokens, batch):
            return super().decode(tokens[:, 0] * 8 + tokens[:, 1], batch)

        def validation_step(self, batch, batch_idx):
            return {"tokens": batch["tokens"]}

    logged = validate(tmp_path, Residual(codes), data)
    del expected["consistency/latent_correlation"]
    assert logged == pytest.approx(expected, abs=1e-6)


def test_repeated_samples_count_once(tmp_path):
    data, codes = case()
    expected = validate(tmp_path, DecodingModel(codes), data)
    data.val.columns = {key: torch.cat([c, c[:5]]) for key, c in data.val.columns.items()}
    assert validate(tmp_path, DecodingModel(codes), data) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_ridge_baseline_against_scikit_learn(penalty):
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(60).repeat_interleave(2)
    x = torch.randn(120, 7, generator=generator) * torch.arange(7)
    y = x @ torch.randn(7, 5, generator=generator) + 4 * torch.randn(120, 5, generator=generator)
    scaled = ((x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-9))[:, 1:].double().numpy()
    residual = 0.0
    for fold in range(5):
        held = (groups % 5 == fold).numpy()
        model = Ridge(alpha=penalty * (~held).sum()).fit(scaled[~held], y[~held])
        residual += ((model.predict(scaled[held]) - y[held].numpy()) ** 2).sum()
    expected = 1 - residual / ((y - y.mean(0)) ** 2).sum().item()
    ours = ridge_r_squared(x, y, groups, penalties=[penalty])
    assert ours == pytest.approx(expected, rel=1e-4)


def test_ridge_baseline_takes_the_best_penalty_and_is_at_most_chance_on_noise():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 20, generator=generator), torch.randn(200, 3, generator=generator)
    each = [ridge_r_squared(x, y, torch.arange(200), penalties=[p]) for p in PENALTIES]
    assert ridge_r_squared(x, y, torch.arange(200)) == max(each) < 0.02
    # Without an input that varies there is the mean of the other folds, worse than one's own.
    constant = ridge_r_squared(torch.ones(200, 3), y, torch.arange(200))
    assert -0.05 < constant < 0
    assert np.isnan(
        ridge_r_squared(x, y.index_fill(0, torch.tensor([3]), np.nan), torch.arange(200))
    )
    assert np.isnan(ridge_r_squared(x, y, torch.zeros(200, dtype=torch.int64)))
    assert ridge_r_squared(x, torch.ones(200, 2), torch.arange(200)) == 0


def test_a_dataset_of_one_probe_is_refused(tmp_path):
    data, codes = case(probes=1)
    with pytest.raises(ContractError, match="found no operator with two probes among the samples"):
        validate(tmp_path, DecodingModel(codes), data)
    data.generation = GenerationConfig(240)
    with pytest.raises(ConfigurationError, match=r"Set generation\.probes_per_operator to 2"):
        validate(tmp_path, DecodingModel(codes), data)


def test_few_batches_without_pairs_are_no_error(tmp_path):
    data, codes = case(probes=1)
    with pytest.warns(RuntimeWarning, match="found no operator with two probes"):
        logged = validate(tmp_path, DecodingModel(codes), data, limit_val_batches=1)
    assert logged == {}


def test_a_model_that_cannot_decode_is_refused_before_training(tmp_path):
    with pytest.raises(
        ContractError, match=r"needs the model's decode \(method decode\(tokens, batch\)"
    ):
        validate(tmp_path, TokenModel(), case()[0])


def test_decoded_pairs_are_bounded(tmp_path):
    """They are a sample of all pairs; agreement is counted over all."""
    data, codes = case()
    columns = data.val.columns
    # The later operators' tokens are useless.
    columns["tokens"] = torch.where(columns["operator"] < 1060, columns["tokens"], 0)
    everything = validate(tmp_path, DecodingModel(codes), data)
    callback = OperatorConsistency(max_pairs=120, detailed=True)
    model = DecodingModel(codes)
    decoded = []
    decode = model.decode

    def recorded(tokens, batch):
        decoded.append((tokens, batch["initial_features"]))
        return decode(tokens, batch)

    model.decode = recorded
    trainer = quiet_trainer(tmp_path, callback)
    some = trainer.validate(model, data, verbose=False)[0]
    # The model's own steps decode too, before the epoch ends.
    (own, given), (shuffled, _) = decoded[-2:]
    assert len(own) == len(given.unique(dim=0)) == 120
    assert not torch.equal(own, shuffled)
    assert torch.equal(own.sort().values, shuffled.sort().values)
    assert some["consistency/token_ami"] == everything["consistency/token_ami"]
    for key in ("cross_probe_r2", "shuffled_tokens_r2", "ic_only_r2"):
        sampled, whole = some[f"consistency/{key}"], everything[f"consistency/{key}"]
        assert sampled != whole
        assert sampled == pytest.approx(whole, abs=0.2)
    with pytest.raises(ValueError, match="max_pairs: must be at least 2, got 1"):
        OperatorConsistency(max_pairs=1)


def test_kept_samples_are_bounded(tmp_path):
    data, codes = case()
    callback = OperatorConsistency(max_samples=64)
    trainer = quiet_trainer(tmp_path, callback)
    trainer.validate(DecodingModel(codes), data, verbose=False)
    assert callback._kept == 64
    with pytest.raises(ValueError, match="max_samples: must be at least 2, got 1"):
        OperatorConsistency(max_samples=1)
