"""OperatorConsistency on operators whose features are known to be code + initial condition / 2."""

import pytest
import torch
from sklearn.metrics import r2_score

from spinlock.callbacks import ContractError, OperatorConsistency
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError
from tests.callbacks import UPDATE_POLICIES, DecodingModel, TokenModel, quiet_trainer
from tests.callbacks.consistency import SCORES, case, spoilt_case, validate


def other(index, probes):
    """The next probe of the same operator."""
    return index // probes * probes + (index + 1) % probes


@pytest.mark.parametrize("probes", [2, 3])
def test_tokens_that_name_operators_agree_and_decode(tmp_path, probes):
    data, codes = case(probes)
    logged = validate(tmp_path, DecodingModel(codes), data)
    assert logged["same_token"] == logged["same_token_rate"] == logged["retrieval"] == 1
    assert logged["same_token_chance"] == 0
    assert logged["retrieval_candidates"] == 240 / probes
    assert logged["cross_probe_r2"] == pytest.approx(1, abs=1e-6)
    assert logged["shuffled_tokens_r2"] < 0.5
    assert logged["ic_only_r2"] < 0.7
    for policy in UPDATE_POLICIES:
        assert logged[f"cross_probe_r2/{policy}"] == pytest.approx(1, abs=1e-6)
        assert logged[f"shuffled_tokens_r2/{policy}"] < 0.5
    assert set(logged) == SCORES


def test_tokens_of_the_initial_condition_are_below_the_baseline(tmp_path):
    data, codes = case(size=960)
    columns = data.val.columns
    # Of the initial condition's family, decoded as the mean operator under it.
    columns["tokens"] = columns["family"]
    means = torch.stack(
        [codes[columns["operator"][columns["family"] == f]].mean(0) for f in range(4)]
    )
    logged = validate(tmp_path, DecodingModel(means), data)
    assert logged["same_token"] == pytest.approx(0, abs=1e-6)
    assert logged["cross_probe_r2"] < logged["ic_only_r2"] + 0.02


def test_constant_tokens_are_no_identity(tmp_path):
    data, codes = case()
    data.val.columns["tokens"] = torch.zeros(240, dtype=torch.int64)
    logged = validate(tmp_path, DecodingModel(codes.mean(0, keepdim=True)), data)
    assert logged["same_token_rate"] == logged["same_token_chance"] == 1
    assert logged["cross_probe_r2"] == logged["shuffled_tokens_r2"]
    assert logged["retrieval"] == pytest.approx(1 / 120)


def test_scores_by_hand(tmp_path):
    data, codes = spoilt_case(probes=3)
    columns = data.val.columns
    logged = validate(tmp_path, DecodingModel(codes), data)
    by_index = columns["index"].argsort()
    partner = by_index[other(columns["index"] - 1000, 3)]
    assert torch.equal(columns["operator"][partner], columns["operator"])
    a, b = columns["tokens"], columns["tokens"][partner]
    # With three probes, the pairs of next probes are all pairs.
    assert logged["same_token_rate"] == pytest.approx((a == b).float().mean().item())
    decoded = codes[a] + 0.5 * columns["initial_features"][partner]
    r2 = r2_score(columns["features"][partner], decoded, multioutput="variance_weighted")
    assert logged["cross_probe_r2"] == pytest.approx(r2, rel=1e-4)
    for number, policy in enumerate(UPDATE_POLICIES):
        own = columns["update_policy"] == number
        target = columns["features"][partner][own]
        r2 = r2_score(target, decoded[own], multioutput="variance_weighted")
        assert logged[f"cross_probe_r2/{policy}"] == pytest.approx(r2, rel=1e-4)


def test_the_view_of_pairs_gives_the_same(tmp_path):
    data, codes = case()
    expected = validate(tmp_path, DecodingModel(codes), data)
    partner = other(torch.arange(240), 2)
    columns = data.val.columns
    for key in ("features", "initial_features", "variant", "index"):
        columns[f"other_{key}"] = columns[key][partner]
    assert validate(tmp_path, DecodingModel(codes), data) == pytest.approx(expected, abs=1e-6)


def test_residual_tokens_and_sequences(tmp_path):
    data, codes = case()
    columns = data.val.columns
    expected = validate(tmp_path, DecodingModel(codes), data)
    columns["tokens"] = torch.stack([columns["tokens"] // 8, columns["tokens"] % 8], 1)
    columns["features"] = torch.stack([columns["features"] + 9, columns["features"]], 1)

    class TwoLevels(DecodingModel):
        def decode(self, tokens, batch):
            return super().decode(tokens[:, 0] * 8 + tokens[:, 1], batch)

        def validation_step(self, batch, batch_idx):
            return {"tokens": batch["tokens"]}

    logged = validate(tmp_path, TwoLevels(codes), data)
    assert logged == pytest.approx({key: expected[key] for key in logged}, abs=1e-6)
    assert set(logged) == SCORES - {"retrieval", "retrieval_candidates"}


def test_repeated_samples_count_once(tmp_path):
    data, codes = case()
    expected = validate(tmp_path, DecodingModel(codes), data)
    data.val.columns = {key: torch.cat([c, c[:5]]) for key, c in data.val.columns.items()}
    assert validate(tmp_path, DecodingModel(codes), data) == pytest.approx(expected, abs=1e-6)


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
    """They are a sample of all pairs; tokens are compared over all."""
    data, codes = case()
    columns = data.val.columns
    # The later operators' tokens are useless.
    columns["tokens"] = torch.where(columns["operator"] < 1060, columns["tokens"], 0)
    everything = validate(tmp_path, DecodingModel(codes), data)
    model = DecodingModel(codes)
    decoded = []
    decode = model.decode

    def recorded(tokens, batch):
        decoded.append((tokens, batch["initial_features"]))
        return decode(tokens, batch)

    model.decode = recorded
    some = validate(tmp_path, model, data, {"max_pairs": 120})
    # Before, the model's own steps decode; after, the pairs of each update policy.
    (own, given), (shuffled, _) = [call for call in decoded if len(call[0]) == 120]
    assert len(own) == len(given.unique(dim=0)) == 120
    assert not torch.equal(own, shuffled)
    assert torch.equal(own.sort().values, shuffled.sort().values)
    assert some["same_token"] == everything["same_token"]
    for key in ("cross_probe_r2", "shuffled_tokens_r2", "ic_only_r2"):
        assert some[key] != everything[key]
        assert some[key] == pytest.approx(everything[key], abs=0.2)
    with pytest.raises(ValueError, match="max_pairs: must be at least 2, got 1"):
        OperatorConsistency(max_pairs=1)


def test_candidates_are_bounded(tmp_path):
    data, codes = case()
    logged = validate(tmp_path, DecodingModel(codes), data, {"num_candidates": 30})
    assert logged["retrieval_candidates"] == 30


def test_kept_samples_are_bounded(tmp_path):
    data, codes = case()
    callback = OperatorConsistency(max_samples=64)
    trainer = quiet_trainer(tmp_path, callback)
    trainer.validate(DecodingModel(codes), data, verbose=False)
    assert callback._kept == 64
    with pytest.raises(ValueError, match="max_samples: must be at least 2, got 1"):
        OperatorConsistency(max_samples=1)
