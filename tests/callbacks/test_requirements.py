"""What a callback needs and does not get is named before training."""

import pytest
import torch

from spinlock import callbacks, contract
from tests.callbacks import quiet_trainer, with_operator_tokens
from tests.callbacks.watching import WATCHING, Model, model_and_data

NEEDS = {
    callbacks.CodebookUsage: (("tokens",), ()),
    callbacks.ICMutualInformation: (("tokens",), ("variant", "update_policy", "params")),
    callbacks.OperatorConsistency: (
        ("tokens",),
        (
            "features",
            "initial_features",
            "variant",
            "family",
            "update_policy",
            "operator",
            "index",
        ),
    ),
    callbacks.ReconstructionByGroup: (("reconstruction",), ("features",)),
    callbacks.TokenTransfer: (("tokens", "reconstruction"), ("features",)),
}


class Lacking(Model):
    lacks = ()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        outputs = super().validation_step(batch, batch_idx)
        return {key: value for key, value in outputs.items() if key not in self.lacks}


@pytest.mark.parametrize(
    ("callback", "key"), [(c, key) for c, (outputs, _) in NEEDS.items() for key in outputs]
)
def test_a_missing_output_is_reported_before_training(tmp_path, callback, key):
    _, data = model_and_data()
    model = Lacking(with_operator_tokens(data))
    model.lacks = (key,)
    trainer = quiet_trainer(tmp_path, callback(**WATCHING[callback]))
    with pytest.raises(contract.ContractError) as error:
        trainer.fit(model, data)
    message = str(error.value)
    assert message.startswith(f"{callback.__name__} needs outputs[{key!r}] (")
    assert (
        "but the output of Lacking's validation_step or test_step has the keys: 'loss'" in message
    )
    assert trainer.global_step == 0


class Quiet(Model):
    """Whatever the batch lacks, its outputs are there."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        tokens = batch["tokens"]
        return {"tokens": tokens, "reconstruction": torch.zeros(len(tokens), 46)}


@pytest.mark.parametrize(
    ("callback", "key"), [(c, key) for c, (_, batch) in NEEDS.items() for key in batch]
)
def test_a_missing_batch_entry_is_reported_before_training(tmp_path, callback, key):
    _, data = model_and_data()
    model = Quiet(with_operator_tokens(data))
    del data.val.columns[key]
    trainer = quiet_trainer(tmp_path, callback(**WATCHING[callback]))
    with pytest.raises(contract.ContractError) as error:
        trainer.fit(model, data)
    keys = ", ".join(repr(k) for k in data.val.columns)
    message = str(error.value)
    assert message.startswith(f"{callback.__name__} needs batch[{key!r}] (")
    assert f"but the batch has the keys: {keys}." in message
    assert trainer.global_step == 0


ATTRIBUTES = {
    callbacks.CodebookUsage: ("codebook_size",),
    callbacks.ICMutualInformation: (
        "codebook_size",
        "variant_names",
        "variant_families",
        "update_policy_names",
        "parameter_space",
    ),
    callbacks.OperatorConsistency: ("decode", "dynamics_names", "update_policy_names"),
    callbacks.ReconstructionByGroup: (
        "family_names",
        "update_policy_names",
        "variant_names",
        "normalization_names",
    ),
    callbacks.TokenTransfer: ("codebook_size",),
}


@pytest.mark.parametrize(
    ("callback", "attribute"), [(c, name) for c, names in ATTRIBUTES.items() for name in names]
)
def test_a_missing_attribute_is_reported(tmp_path, monkeypatch, callback, attribute):
    """Names and sizes are required, not guessed."""
    model, data = model_and_data()
    of_model = attribute in contract.MODEL
    monkeypatch.setattr(type(model if of_model else data), attribute, None, raising=False)
    if of_model and attribute in vars(model):
        delattr(model, attribute)
    trainer = quiet_trainer(tmp_path, callback(**WATCHING[callback]))
    with pytest.raises(contract.ContractError) as error:
        trainer.validate(model, data, verbose=False)
    holder = "model" if of_model else "data module"
    assert str(error.value).startswith(f"{callback.__name__} needs the {holder}'s {attribute} (")
    assert f"Add it to the {holder}" in str(error.value)


def test_plain_data_loaders_have_no_names(tmp_path):
    model, data = model_and_data()
    trainer = quiet_trainer(tmp_path, callbacks.ICMutualInformation())
    with pytest.raises(contract.ContractError, match="wrap them in a LightningDataModule"):
        trainer.validate(model, data.val_dataloader(), verbose=False)


def set_data():
    """Sets of two probes, as in the view ``probes``."""
    model, data = model_and_data()
    for split in (data.train, data.val, data.test):
        columns = split.columns
        for key in ("features", "initial_features", "variant", "family", "index"):
            columns[key] = torch.stack([columns[key], columns[key]], 1)
    model.validation_step = lambda batch, batch_idx, dataloader_idx: {
        "tokens": batch["tokens"],
        "reconstruction": batch["features"][:, 0],
    }
    return model, data


@pytest.mark.parametrize("callback", [c for c in NEEDS if c is not callbacks.CodebookUsage])
@pytest.mark.parametrize("sanity_steps", [2, 0])
def test_sets_of_probes_are_refused(tmp_path, callback, sanity_steps):
    """Before training, and without a sanity check in the first epoch, even if none is due."""
    model, data = set_data()
    watching = callback(**WATCHING[callback], every_n_epochs=5)
    trainer = quiet_trainer(tmp_path, watching, num_sanity_val_steps=sanity_steps)
    with pytest.raises(contract.ContractError) as error:
        trainer.fit(model, data)
    message = str(error.value)
    assert message.startswith(f"{callback.__name__} scores single samples, but batch['index'] is")
    assert "[16, 2]: each row of the batch is a set of probes, as in the view probes" in message
    assert "Evaluate with a view that has one sample in each row, such as pairs" in message
    assert (trainer.current_epoch, bool(trainer.global_step)) == (0, not sanity_steps)


def test_the_codebook_is_used_by_sets(tmp_path):
    logged = []
    for model, data in (model_and_data(), set_data()):
        trainer = quiet_trainer(tmp_path, callbacks.CodebookUsage(plots_every_n_epochs=0))
        logged.append(trainer.validate(model, data, verbose=False))
    assert logged[0] == logged[1]
    assert logged[0]


@pytest.mark.parametrize(
    "tokens", [torch.zeros(16, 2, 2, dtype=torch.int64), torch.zeros(16), torch.zeros(16).bool()]
)
def test_tokens_of_another_shape_or_type_are_refused(tmp_path, tokens):
    model, data = model_and_data()
    model.validation_step = lambda batch, batch_idx, dataloader_idx: {"tokens": tokens}
    with pytest.raises(contract.ContractError, match=r"but Model returned \[16.*\] torch\."):
        quiet_trainer(tmp_path, callbacks.CodebookUsage()).validate(model, data)
