"""FiniteCheck names what is not finite, before it does harm."""

import warnings

import pytest
import torch

from spinlock.callbacks import FiniteCheck
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import NonFiniteError
from tests.callbacks import VARIANTS, SyntheticDataModule, TokenModel, quiet_trainer

NAN, INF = float("nan"), float("inf")


def planted(split, sample=40, column=29, value=NAN):
    """A data module with one bad feature in one sample of a split."""
    data = SyntheticDataModule()
    getattr(data, split).columns["features"][sample, column] = value
    return data


def run(trainer, stage, model, data):
    {"train": trainer.fit, "val": trainer.validate, "test": trainer.test}[stage](model, data)


@pytest.mark.parametrize(
    ("split", "index", "word"),
    [("train", 40, "train"), ("val", 1040, "validate"), ("test", 2040, "test")],
)
def test_a_planted_nan_is_named_by_column_index_and_variant(tmp_path, split, index, word):
    data = planted(split)
    variant = VARIANTS[getattr(data, split).columns["variant"][40]]
    trainer = quiet_trainer(tmp_path, FiniteCheck())
    with pytest.raises(FloatingPointError) as error:
        run(trainer, split, TokenModel(), data)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"FiniteCheck: non-finite values in {word} (epoch 0, step ")
    assert lines[1] == (
        f"  batch['features']: 1 NaN; columns feature_bd (1 NaN); samples {index} ({variant}); "
        f"variants {variant} (1)"
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_policy_warn_names_the_same_and_continues(tmp_path, split):
    data = planted(split)
    index, variant = (getattr(data, split).columns[key][40] for key in ("index", "variant"))
    trainer = quiet_trainer(tmp_path, FiniteCheck("warn"))
    with pytest.warns(RuntimeWarning, match="FiniteCheck") as caught:
        run(trainer, split, TokenModel(), data)
    named = f"columns feature_bd (1 NaN); samples {index} ({VARIANTS[variant]})"
    assert any(named in str(warning.message) for warning in caught)
    assert trainer.state.finished


def test_sanity_checking_is_checked_too(tmp_path):
    with pytest.raises(NonFiniteError, match="in sanity_check"):
        quiet_trainer(tmp_path, FiniteCheck()).fit(TokenModel(), planted("val"))


def test_counts_by_column_and_samples_are_cut_short_when_many(tmp_path):
    data = planted("val", sample=3, value=INF)
    data.val.columns["features"][5:20, 0] = NAN
    data.val.columns["params"][7, 2] = -INF
    with pytest.raises(FloatingPointError) as error:
        quiet_trainer(tmp_path, FiniteCheck()).validate(TokenModel(), data)
    features, params, loss = str(error.value).splitlines()[1:]
    assert "15 NaN, 1 Inf; columns feature_aa (15 NaN), feature_bd (1 Inf);" in features
    assert "samples 1003 (" in features
    assert " and 6 more; variants " in features
    counted = data.val.columns["variant"][[3, *range(5, 20)]].bincount(minlength=6)
    for variant, count in zip(VARIANTS, counted.tolist(), strict=True):
        assert (f"{variant} ({count})" in features.partition("variants")[2]) == (count > 0)
    variant = VARIANTS[data.val.columns["variant"][7]]
    assert params == (
        f"  batch['params']: 1 Inf; columns column 2 (1 Inf); samples 1007 ({variant}); "
        f"variants {variant} (1)"
    )
    assert loss.startswith("  outputs['loss']: 1 NaN; in the batch of samples 1000 (")


def test_without_a_data_module_columns_are_numbered(tmp_path):
    data = planted("val")
    with pytest.raises(FloatingPointError) as error:
        quiet_trainer(tmp_path, FiniteCheck()).validate(TokenModel(), data.val_dataloader())
    assert "columns column 29 (1 NaN); samples 1040\n" in str(error.value)


def test_batches_outside_the_contract_are_checked_too(tmp_path):
    bad = torch.utils.data.TensorDataset(torch.tensor([[0.0, 1.0], [INF, 0.0]]))
    model = TokenModel()
    model.validation_step = lambda batch, batch_idx: None
    loader = torch.utils.data.DataLoader(bad, batch_size=2)
    with pytest.raises(FloatingPointError) as error:
        quiet_trainer(tmp_path, FiniteCheck()).validate(model, loader)
    assert str(error.value).endswith("\n  batch[0]: 1 Inf; columns column 0 (1 Inf)")


def test_a_bad_batch_is_caught_before_the_model_sees_it(tmp_path):
    model = TokenModel()
    seen = []
    model.training_step = lambda batch, batch_idx: seen.append(batch)
    data = SyntheticDataModule(size=32)
    data.train.columns["initial_features"][0, 0] = NAN
    with pytest.raises(FloatingPointError, match="initial_features"):
        quiet_trainer(tmp_path, FiniteCheck()).fit(model, data)
    assert not seen


class Overflowing(TokenModel):
    def training_step(self, batch, batch_idx):
        return self.weight * INF


def test_a_bad_loss_is_caught_before_it_moves_the_weights(tmp_path):
    model = Overflowing()
    with pytest.raises(FloatingPointError, match="loss: 1 Inf; in the batch of samples"):
        quiet_trainer(tmp_path, FiniteCheck()).fit(model, SyntheticDataModule())
    assert model.weight == 1
    assert model.weight.grad is None


class BadOutput(TokenModel):
    """Finite loss; a reconstruction with one Inf."""

    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), **self._outputs(batch)}

    def validation_step(self, batch, batch_idx):
        return self._outputs(batch)

    def _outputs(self, batch):
        reconstruction = batch["features"].clone()
        reconstruction[2, 1] = INF
        return {"reconstruction": reconstruction}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_outputs_are_checked(tmp_path, split):
    data = SyntheticDataModule()
    trainer = quiet_trainer(tmp_path, FiniteCheck(), limit_val_batches=1 if split == "val" else 0)
    with pytest.raises(FloatingPointError) as error:
        run(trainer, split, BadOutput(), data)
    assert "\n  outputs['reconstruction']: 1 Inf; columns feature_ab (1 Inf); samples " in str(
        error.value
    )


@pytest.mark.parametrize(("every", "found"), [(1, True), (2, False), (3, False)])
def test_check_every_n_steps(tmp_path, every, found):
    # Sample 40 is in the second of three batches.
    callback = FiniteCheck("warn", check_every_n_steps=every)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(tmp_path, callback).validate(TokenModel(), planted("val"), verbose=False)
    assert any("FiniteCheck" in str(warning.message) for warning in caught) == found


def test_finite_training_says_nothing(tmp_path):
    data = SyntheticDataModule()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="FiniteCheck")
        quiet_trainer(tmp_path, FiniteCheck()).fit(TokenModel(), data)


@pytest.mark.parametrize("policy", ["raise", "warn", "stop"])
def test_all_processes_follow_the_one_that_found_something(tmp_path, monkeypatch, policy):
    trainer = quiet_trainer(tmp_path, FiniteCheck(policy), num_sanity_val_steps=0)
    decisions = []

    def another_process_found_one(decision, all):
        decisions.append((decision, all))
        return True

    monkeypatch.setattr(trainer.strategy, "reduce_boolean_decision", another_process_found_one)
    if policy == "raise":
        with pytest.raises(FloatingPointError, match="non-finite values in validate"):
            trainer.validate(TokenModel(), SyntheticDataModule())
    else:
        with pytest.warns(RuntimeWarning, match="non-finite values in validate"):
            trainer.validate(TokenModel(), SyntheticDataModule())
        assert trainer.should_stop == (policy == "stop")
    assert set(decisions) == {(False, False)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "ignore"}, "policy: must be one of raise, warn, stop, got 'ignore'"),
        ({"check_every_n_steps": 0}, "check_every_n_steps: must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FiniteCheck(**arguments)


def test_policy_stop_ends_training_in_an_orderly_way(tmp_path):
    # Sample 40 is in one of three batches of each of four epochs.
    trainer = quiet_trainer(tmp_path, FiniteCheck("stop"), max_epochs=4, num_sanity_val_steps=0)
    with pytest.warns(RuntimeWarning, match="FiniteCheck: non-finite values in train"):
        trainer.fit(TokenModel(), planted("train"))
    assert trainer.state.finished
    assert 1 <= trainer.global_step <= 3


class BadGradient(TokenModel):
    """A finite loss whose gradient is NaN: the derivative of a norm at 0."""

    def training_step(self, batch, batch_idx):
        return (self.weight - self.weight.detach()).square().sqrt()


@pytest.mark.parametrize("gradients", [True, False])
def test_gradients_are_checked_on_request(tmp_path, gradients):
    model = BadGradient()
    settings = {"limit_val_batches": 0, "limit_train_batches": 1}
    trainer = quiet_trainer(tmp_path, FiniteCheck(gradients=gradients), **settings)
    if gradients:
        with pytest.raises(
            FloatingPointError, match=r"gradient\['weight'\]: 1 NaN; in the batch of"
        ):
            trainer.fit(model, SyntheticDataModule())
        assert model.weight == 1
    else:
        trainer.fit(model, SyntheticDataModule())
        assert model.weight.isnan()


def test_finite_values_whose_sum_overflows_are_finite(tmp_path):
    data = SyntheticDataModule()
    data.val.columns["features"][:, 0] = 3e38
    model = TokenModel()
    model.validation_step = lambda batch, batch_idx: None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="FiniteCheck")
        quiet_trainer(tmp_path, FiniteCheck()).validate(model, data, verbose=False)


def test_infinities_that_cancel_are_found(tmp_path):
    data = planted("val", column=3, value=INF)
    data.val.columns["features"][41, 5] = -INF
    with pytest.raises(
        FloatingPointError, match=r"2 Inf; columns feature_ad \(1 Inf\), feature_af"
    ):
        quiet_trainer(tmp_path, FiniteCheck()).validate(TokenModel(), data)


def test_sequences_name_feature_columns_too(tmp_path):
    data = SyntheticDataModule()
    sequence = data.val.columns["features"][:, None].repeat(1, 5, 1)
    sequence[40, 2, 29] = sequence[40, 3, 29] = NAN
    data.val.columns["features"] = sequence
    with pytest.raises(FloatingPointError) as error:
        quiet_trainer(tmp_path, FiniteCheck()).validate(TokenModel(), data)
    assert "batch['features']: 2 NaN; columns feature_bd (2 NaN); samples 1040" in str(error.value)


def test_totals_count_columns_and_variants_and_survive_a_checkpoint(tmp_path):
    data, callback = planted("val"), FiniteCheck("warn")
    data.val.columns["features"][50:53, 0] = INF
    with pytest.warns(RuntimeWarning, match="FiniteCheck"):
        quiet_trainer(tmp_path, callback).validate(TokenModel(), data, verbose=False)
    rows = data.val.columns["variant"][[40, 50, 51, 52]].tolist()
    # The loss of this model is the mean of the features: NaN or Inf in both batches.
    assert callback.column_counts == {
        "batch['features']:feature_aa": 3,
        "batch['features']:feature_bd": 1,
        "outputs['loss']": 1,
    }
    assert callback.variant_counts == {
        VARIANTS[v]: rows.count(v) for v in sorted(set(rows), key=rows.index)
    }
    other = FiniteCheck("warn")
    other.load_state_dict(callback.state_dict())
    assert other.column_counts == callback.column_counts
    assert other.variant_counts == callback.variant_counts


def test_the_message_says_how_to_compute_a_sample_again(tmp_path):
    data = planted("val")
    data.generation = GenerationConfig(2000)
    with pytest.raises(FloatingPointError) as error:
        quiet_trainer(tmp_path, FiniteCheck()).validate(TokenModel(), data)
    assert str(error.value).endswith(
        "to compute sample 1040 again: "
        "spinlock.simulation.simulator.Simulator(datamodule.generation).samples(1040, 1041)"
    )
