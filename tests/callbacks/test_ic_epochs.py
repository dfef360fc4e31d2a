"""ICMutualInformation over epochs: sanity checking, order, loaders, thresholds and checkpoints."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

from spinlock.callbacks import FiniteCheck
from tests.callbacks import (
    SyntheticDataModule,
    TokenModel,
    quiet_trainer,
)
from tests.callbacks.token_scores import ic_information, random_tokens, validate


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
    trainer = quiet_trainer(tmp_path, ic_information(), recorder, **settings)
    trainer.fit(NotLoggingWhileSanityChecking("random"), data)
    alone = validate(tmp_path, TokenModel("random"), data)
    assert recorder.at_start == {}
    assert recorder.epochs == [alone, alone]


def test_order_of_callbacks_does_not_matter(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    logged = []
    for order in (1, -1):
        stopping = EarlyStopping("ic/variant_ami", patience=5)
        callbacks = [stopping, FiniteCheck(), ic_information()][::order]
        trainer = quiet_trainer(tmp_path, *callbacks, limit_train_batches=1)
        trainer.fit(TokenModel("random"), data)
        logged.append(trainer.callback_metrics)
    assert logged[0] == logged[1]
    assert len(logged[0]) > 30


def test_several_validation_loaders_are_pooled(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    halves = torch.utils.data.random_split(data.val, [40, 56])
    loaders = [torch.utils.data.DataLoader(half, batch_size=16) for half in halves]
    expected = validate(tmp_path, TokenModel("random"), data)
    data.val_dataloader = lambda: loaders
    model = TokenModel("random")
    model.validation_step = lambda batch, batch_idx, dataloader_idx: {"tokens": batch["random"]}
    trainer = quiet_trainer(tmp_path, ic_information())
    logged = trainer.validate(model, data, verbose=False)
    assert logged[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("threshold", "exceeded"), [(0.5, True), (1.0, False)])
def test_threshold_warns(tmp_path, threshold, exceeded):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        validate(
            tmp_path,
            TokenModel("variant"),
            SyntheticDataModule(),
            ic_information(threshold=threshold),
        )
    said = [str(w.message) for w in caught if "above the threshold" in str(w.message)]
    assert len(said) == exceeded
    if exceeded:
        assert (
            "_ami is 1.000, above the threshold of 0.5 in 1 successive validation epoch(s)"
            in said[0]
        )


def test_threshold_stops_training_after_its_patience(tmp_path):
    callback = ic_information(threshold=0.5, on_threshold="stop", patience=3)
    trainer = quiet_trainer(tmp_path, callback, max_epochs=9, limit_train_batches=1)
    with pytest.warns(RuntimeWarning, match="training stops"):
        trainer.fit(TokenModel("variant"), SyntheticDataModule())
    assert trainer.current_epoch == 3
    assert trainer.state.finished


def test_patience_is_restored_from_a_checkpoint(tmp_path):
    def fit(epochs, checkpoint):
        callback = ic_information(threshold=0.5, on_threshold="stop", patience=3)
        trainer = quiet_trainer(tmp_path, callback, max_epochs=epochs, limit_train_batches=1)
        trainer.fit(TokenModel("variant"), SyntheticDataModule(), ckpt_path=checkpoint)
        return trainer

    first = fit(2, None)
    first.save_checkpoint(tmp_path / "two.ckpt")
    with pytest.warns(RuntimeWarning, match="training stops"):
        resumed = fit(9, tmp_path / "two.ckpt")
    assert resumed.current_epoch == 3


def test_every_n_epochs(tmp_path):
    recorder = Recorder()
    callback = ic_information(every_n_epochs=2)
    settings = {"max_epochs": 4, "limit_train_batches": 1, "num_sanity_val_steps": 0}
    trainer = quiet_trainer(tmp_path, callback, recorder, **settings)
    seen = []
    callback._finish = lambda trainer, pl_module: seen.append(trainer.current_epoch) or {}
    trainer.fit(TokenModel("variant"), SyntheticDataModule())
    assert seen == [1, 3]
