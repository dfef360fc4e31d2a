"""What ICMutualInformation refuses: tokens, labels, models and arguments."""

import pytest

from spinlock.callbacks import ContractError, ICMutualInformation
from tests.callbacks import (
    SyntheticDataModule,
    TokenModel,
    quiet_trainer,
)
from tests.callbacks.token_scores import ic_information, validate


def test_tokens_beyond_the_codebook_are_refused(tmp_path):
    model = TokenModel("index")
    model.codebook_size = 8
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 8\), got values from 1000"):
        validate(tmp_path, model, SyntheticDataModule())


class LossOnly(TokenModel):
    def validation_step(self, batch, batch_idx):
        return {"loss": batch["features"].mean(), "reconstruction": batch["features"]}


class BareLoss(TokenModel):
    def validation_step(self, batch, batch_idx):
        return batch["features"].mean()


class Silent(TokenModel):
    def validation_step(self, batch, batch_idx):
        return None


class ListOfTokens(TokenModel):
    def validation_step(self, batch, batch_idx):
        return {"tokens": batch["variant"].tolist()}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (LossOnly(), "has the keys: 'loss', 'reconstruction'"),
        (BareLoss(), "is of type Tensor"),
        (Silent(), "is of type NoneType"),
        (ListOfTokens(), "has a list under that key"),
    ],
)
def test_a_model_without_tokens_is_refused_before_training(tmp_path, model, found):
    trainer = quiet_trainer(tmp_path, ic_information())
    with pytest.raises(ContractError) as error:
        trainer.fit(model, SyntheticDataModule())
    name = type(model).__name__
    step = f"{name}'s validation_step or test_step"
    assert str(error.value) == (
        "ICMutualInformation needs outputs['tokens'] ([B] or [B, Q] int64, the codebook index of "
        f"each sample), but the output of {step} {found}. Return it from {step}."
    )
    assert trainer.global_step == 0


@pytest.mark.parametrize("key", ["variant", "update_policy"])
def test_a_batch_without_labels_is_refused(tmp_path, key):
    data = SyntheticDataModule()
    del data.val.columns[key]
    keys = ", ".join(repr(k) for k in data.val.columns)
    with pytest.raises(ContractError) as error:
        validate(tmp_path, TokenModel("index"), data)
    message = str(error.value)
    assert message.startswith(f"ICMutualInformation needs batch['{key}'] ([B] int64, ")
    assert f"but the batch has the keys: {keys}." in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("variant", -1, r"variant must be in \[0, 6\), got values from -1 to 5"),
        ("variant", 6, r"variant must be in \[0, 6\), got values from 0 to 6"),
        ("update_policy", 3, r"update_policy must be in \[0, 3\), got values from 0 to 3"),
    ],
)
def test_a_label_that_has_no_name_is_refused(tmp_path, key, value, message):
    """It would be counted as another label's."""
    data = SyntheticDataModule()
    data.val.columns[key][5] = value
    with pytest.raises(ValueError, match=message):
        validate(tmp_path, TokenModel("index"), data)


def test_a_label_that_is_no_number_of_a_class_is_refused(tmp_path):
    data = SyntheticDataModule()
    data.val.columns["variant"] = data.val.columns["variant"][:, None]
    with pytest.raises(ValueError, match=r"variant must be integers \[B\], got \[\d+, 1\]"):
        validate(tmp_path, TokenModel("family"), data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_threshold": "raise"}, "on_threshold: must be one of warn, stop, got 'raise'"),
        ({"patience": 0}, "patience: must be at least 1, got 0"),
        ({"permutations": 0}, "permutations: must be at least 1, got 0"),
        ({"every_n_epochs": 0}, "every_n_epochs: must be at least 1, got 0"),
        ({"plots_every_n_epochs": -1}, "plots_every_n_epochs: must be at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ICMutualInformation(**arguments)
