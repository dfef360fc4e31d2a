"""Token files: aligned with sample indices, whole or absent."""

import os

import h5py
import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DataLoader, Subset

from spinlock.callbacks import ContractError, TokenWriter
from spinlock.errors import ConfigurationError
from spinlock.models import FeatureVQVAE, QuantizerConfig
from tests.callbacks import VARIANTS, SyntheticData, SyntheticDataModule, quiet_trainer
from tests.forks import in_two_ranks

SMALL = {"hidden_dims": (32,), "latent_dim": 4, "codebook_size": 16, "num_variants": len(VARIANTS)}


def model(**settings):
    seed_everything(0)
    made = FeatureVQVAE(**(SMALL | settings)).train()
    made(SyntheticData(64)[:])
    return made.eval()


class Shuffled(SyntheticDataModule):
    """Predicts on samples 2000 to 2036 in no order."""

    def predict_dataloader(self):
        order = torch.randperm(37, generator=torch.Generator().manual_seed(0)).tolist()
        return DataLoader(Subset(SyntheticData(37, 2000), order), batch_size=8)


@pytest.mark.parametrize(
    "quantizer", [QuantizerConfig(), QuantizerConfig("residual", num_codebooks=3)]
)
def test_tokens_are_in_order_of_the_index(tmp_path, quantizer):
    path = tmp_path / "tokens.h5"
    network = model(quantizer=quantizer)
    quiet_trainer(tmp_path, TokenWriter(path)).predict(network, Shuffled())
    data = SyntheticData(37, 2000)
    expected = network(data[:])["tokens"].numpy()
    with h5py.File(path) as file:
        assert set(file) == {"index", "tokens"}
        assert np.array_equal(file["index"], data.columns["index"])
        assert np.array_equal(file["tokens"], expected)
        assert file["tokens"].dtype == np.int64
        assert file.attrs["codebook_size"] == 16
        assert file.attrs["model"] == "FeatureVQVAE"
    assert len(np.unique(expected)) > 4


def test_two_processes_write_one_file(tmp_path):
    path = tmp_path / "tokens.h5"
    network, data = model(), Shuffled()

    def predict():
        trainer = quiet_trainer(tmp_path, TokenWriter(path), devices=2, strategy="ddp")
        trainer.predict(network, data, return_predictions=False)

    in_two_ranks(predict)
    with h5py.File(path) as file:
        # 37 samples: one of them was repeated to give both processes equally many.
        assert file["index"][:].tolist() == list(range(2000, 2037))
        expected = network(SyntheticData(37, 2000)[:])["tokens"].numpy()
        assert np.array_equal(file["tokens"], expected)


def test_a_file_is_not_written_over(tmp_path):
    path = tmp_path / "tokens.h5"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        quiet_trainer(tmp_path, TokenWriter(path)).predict(model(), Shuffled())
    assert path.read_text() == "precious"


@pytest.mark.parametrize("taken", [b"", b"\x89PNG\r\n\x1a\n", "directory", "dangling link", "pipe"])
def test_whatever_is_there_is_kept(tmp_path, taken):
    path = tmp_path / "tokens.h5"
    if taken == "directory":
        path.mkdir()
    elif taken == "dangling link":
        path.symlink_to("nothing")
    elif taken == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(taken)
    before = path.lstat()
    with pytest.raises(ConfigurationError, match=r"tokens\.h5 .*choose another file"):
        quiet_trainer(tmp_path, TokenWriter(path)).predict(model(), Shuffled())
    after = path.lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["tokens.h5"]


@pytest.mark.parametrize("out", ["data.h5", "hard.h5", "link.h5", "data.h5.lock", "data.h5.parts"])
def test_the_dataset_is_kept(tmp_path, out):
    (tmp_path / "data.h5").write_text("precious")
    os.link(tmp_path / "data.h5", tmp_path / "hard.h5")
    (tmp_path / "link.h5").symlink_to("data.h5")
    before = sorted(os.listdir(tmp_path))
    data = Shuffled()
    data.path = tmp_path / "data.h5"
    with pytest.raises(ConfigurationError, match=r"is the dataset .* that is read, or belongs"):
        quiet_trainer(tmp_path, TokenWriter(tmp_path / out)).predict(model(), data)
    assert (tmp_path / "data.h5").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_that_comes_into_being_meanwhile_is_kept(tmp_path):
    path = tmp_path / "tokens.h5"

    class Other(Callback):
        def on_predict_start(self, trainer, pl_module):
            path.write_text("precious")

    with pytest.raises(ConfigurationError, match="exists already"):
        quiet_trainer(tmp_path, TokenWriter(path), Other()).predict(model(), Shuffled())
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["tokens.h5"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"folder of .*nowhere.tokens.h5 does not exist"):
        quiet_trainer(tmp_path, TokenWriter(tmp_path / "nowhere" / "tokens.h5")).predict(
            model(), Shuffled()
        )


class Silent(LightningModule):
    codebook_size = 8

    def predict_step(self, batch, batch_idx):
        return {"tokens": batch["variant"]}


def test_predictions_without_index_are_refused(tmp_path):
    with pytest.raises(
        ContractError, match=r"needs index in the return value of Silent.predict_step"
    ):
        quiet_trainer(tmp_path, TokenWriter(tmp_path / "t.h5")).predict(Silent(), Shuffled())
    assert not (tmp_path / "t.h5").exists()


def test_a_model_without_codebook_size_is_refused_before_predicting(tmp_path, monkeypatch):
    monkeypatch.setattr(Silent, "codebook_size", None)
    with pytest.raises(ContractError, match="TokenWriter needs the model's codebook_size"):
        quiet_trainer(tmp_path, TokenWriter(tmp_path / "t.h5")).predict(Silent(), Shuffled())


def test_other_stages_do_not_mind_the_file(tmp_path):
    path = tmp_path / "tokens.h5"
    path.write_text("precious")
    quiet_trainer(tmp_path, TokenWriter(path)).validate(
        model(), SyntheticDataModule(), verbose=False
    )
