"""ICMutualInformation against known dependence, and in every way that Lightning runs it."""

import re

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from sklearn import metrics as oracle

from spinlock.callbacks import ContractError, FiniteCheck, ICMutualInformation
from tests.callbacks import SyntheticDataModule, TokenModel, quiet_trainer


def random_tokens(data, codes=256):
    """Adds to every split a column ``random`` of tokens that depend on nothing."""
    generator = torch.Generator().manual_seed(3)
    for split in (data.train, data.val, data.test):
        split.columns["random"] = torch.randint(codes, (len(split),), generator=generator)
    return data


def validate(tmp_path, model, data, *callbacks, **settings):
    trainer = quiet_trainer(tmp_path, *(callbacks or [ICMutualInformation()]), **settings)
    (logged,) = trainer.validate(model, data, verbose=False)
    return logged


def test_tokens_that_are_the_variant_score_one(tmp_path):
    data = SyntheticDataModule()
    logged = validate(tmp_path, TokenModel("ic_type"), data)
    variants, families = data.val.columns["ic_type"], data.val.columns["ic_family"]
    assert logged["ic/variant_ami"] == logged["ic/variant_nmi"] == 1
    for label, values in (("variant", variants), ("family", families)):
        entropy = oracle.mutual_info_score(values, values)
        assert logged[f"ic/{label}_mi"] == pytest.approx(entropy, rel=1e-6)
    assert 0 < logged["ic/family_ami"] < 1


def test_tokens_that_are_random_score_zero(tmp_path):
    data = random_tokens(SyntheticDataModule(size=2000, batch_size=250))
    logged = validate(tmp_path, TokenModel("random"), data)
    for label in ("variant", "family"):
        assert abs(logged[f"ic/{label}_ami"]) < 0.01
        # What the adjustment is for: 256 codes share a lot with anything, by chance.
        assert logged[f"ic/{label}_mi"] > 0.15


@pytest.mark.parametrize("batch_size", [7, 96])
@pytest.mark.parametrize("limit", [1.0, 3])
def test_figures_are_those_of_all_samples_seen(tmp_path, batch_size, limit):
    data = random_tokens(SyntheticDataModule(batch_size=batch_size), codes=5)
    logged = validate(tmp_path, TokenModel("random"), data, limit_val_batches=limit)
    seen = min(96, 3 * batch_size) if limit == 3 else 96
    tokens = data.val.columns["random"][:seen]
    for label, key in (("variant", "ic_type"), ("family", "ic_family")):
        labels = data.val.columns[key][:seen]
        mi = oracle.mutual_info_score(labels, tokens)
        assert logged[f"ic/{label}_mi"] == pytest.approx(mi, rel=1e-5)
        cells = len(set(zip(labels.tolist(), tokens.tolist(), strict=True)))
        excess = len(labels.unique()) + len(tokens.unique()) - cells - 1
        corrected = mi + excess / (2 * seen)
        assert logged[f"ic/{label}_mi_corrected"] == pytest.approx(corrected, rel=1e-4)
        nmi = oracle.normalized_mutual_info_score(labels, tokens)
        assert logged[f"ic/{label}_nmi"] == pytest.approx(nmi, rel=1e-5)
        ami = oracle.adjusted_mutual_info_score(labels, tokens)
        assert logged[f"ic/{label}_ami"] == pytest.approx(ami, rel=1e-4)


def test_logged_keys_are_those_of_the_docstring(tmp_path):
    documented = set(re.findall(r"``(ic/\w+)``", ICMutualInformation.__doc__))
    data, model = SyntheticDataModule(), TokenModel()
    trainer = quiet_trainer(tmp_path, ICMutualInformation(), limit_train_batches=1)
    trainer.fit(model, data)
    assert set(trainer.callback_metrics) == documented
    (logged,) = trainer.test(model, data, verbose=False)
    assert set(logged) == {f"test/{key}" for key in documented}
    assert logged["test/ic/variant_ami"] == 1


class Recorder(Callback):
    """Keeps what is logged when training starts and at the end of every validation."""

    def __init__(self):
        self.at_start = None
        self.epochs = []

    def on_train_start(self, trainer, pl_module):
        self.at_start = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.epochs.append(dict(trainer.callback_metrics))


class NotLoggingWhileSanityChecking(TokenModel):
    def log_dict(self, *args, **kwargs):
        assert not self.trainer.sanity_checking
        super().log_dict(*args, **kwargs)


def test_sanity_checking_is_not_logged_and_epochs_do_not_mix(tmp_path):
    data, recorder = random_tokens(SyntheticDataModule(), codes=5), Recorder()
    settings = {"max_epochs": 2, "limit_train_batches": 1, "num_sanity_val_steps": 1}
    trainer = quiet_trainer(tmp_path, ICMutualInformation(), recorder, **settings)
    trainer.fit(NotLoggingWhileSanityChecking("random"), data)
    alone = validate(tmp_path, TokenModel("random"), data)
    assert recorder.at_start == {}
    assert recorder.epochs == [alone, alone]


def test_order_of_callbacks_does_not_matter(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    logged = []
    for order in (1, -1):
        stopping = EarlyStopping("ic/variant_ami", patience=5)
        callbacks = [stopping, FiniteCheck(), ICMutualInformation()][::order]
        trainer = quiet_trainer(tmp_path, *callbacks, limit_train_batches=1)
        trainer.fit(TokenModel("random"), data)
        logged.append(trainer.callback_metrics)
    assert logged[0] == logged[1]
    assert len(logged[0]) == 8


def test_plain_data_loaders_and_unknown_codebook_size_give_the_same_figures(tmp_path):
    data, model = random_tokens(SyntheticDataModule(), codes=40), TokenModel("random")
    expected = validate(tmp_path, model, data)
    assert validate(tmp_path, model, data.val_dataloader()) == expected
    model.codebook_size = 64
    assert validate(tmp_path, model, data) == expected


def test_several_validation_loaders_are_pooled(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    halves = torch.utils.data.random_split(data.val, [40, 56])
    loaders = [torch.utils.data.DataLoader(half, batch_size=16) for half in halves]
    expected = validate(tmp_path, TokenModel("random"), data)
    trainer = quiet_trainer(tmp_path, ICMutualInformation())
    model = TokenModel("random")
    model.validation_step = lambda batch, batch_idx, dataloader_idx: {"tokens": batch["random"]}
    logged = trainer.validate(model, loaders, verbose=False)
    assert logged[0] == expected


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
        return {"tokens": batch["ic_type"].tolist()}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (LossOnly(), "has the keys: 'loss', 'reconstruction'"),
        (BareLoss(), "is of type Tensor"),
        (Silent(), "is of type NoneType"),
        (ListOfTokens(), "has a list there"),
    ],
)
def test_a_model_without_tokens_is_told_so_before_training(tmp_path, model, found):
    trainer = quiet_trainer(tmp_path, ICMutualInformation())
    with pytest.raises(ContractError) as error:
        trainer.fit(model, SyntheticDataModule())
    name = type(model).__name__
    step = f"{name}'s validation_step or test_step"
    assert str(error.value) == (
        "ICMutualInformation needs outputs['tokens'] ([B] int64, the codebook index of each "
        f"sample), but the output of {step} {found}. Return it from {step}."
    )
    assert trainer.global_step == 0


@pytest.mark.parametrize("key", ["ic_type", "ic_family"])
def test_a_batch_without_labels_is_told_so(tmp_path, key):
    data = SyntheticDataModule()
    del data.val.columns[key]
    keys = ", ".join(repr(k) for k in data.val.columns)
    with pytest.raises(ContractError) as error:
        validate(tmp_path, TokenModel("index"), data)
    message = str(error.value)
    assert message.startswith(f"ICMutualInformation needs batch['{key}'] ([B] int64, ")
    assert f"but the batch has the keys: {keys}." in message
