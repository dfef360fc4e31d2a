"""Token files: aligned with sample indices, whole or absent, with the operators of each code."""

import os

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DataLoader, Subset

from spinlock.callbacks import ContractError, TokenWriter
from spinlock.errors import ConfigurationError
from spinlock.storage import read_tokens
from tests.callbacks import SyntheticData, SyntheticDataModule, quiet_trainer
from tests.forks import in_two_ranks

# Operators of the synthetic samples 2000..2036 have the numbers of the samples.
TRAINING = torch.tensor([2001, 2004, 2009])


class Rounding(LightningModule):
    """The latent is a known function of the operator, and the token its integer part."""

    codebook_size = 16

    def __init__(self, levels=1):
        super().__init__()
        self.levels = levels

    def latent(self, batch):
        number = batch["operator"].float() - 2000
        return torch.stack([number * 16 / 37, torch.zeros_like(number)], dim=1)

    def codes(self, tokens):
        return torch.stack([tokens.float(), torch.zeros(len(tokens))], dim=1)

    def predict_step(self, batch, batch_idx):
        latent = self.latent(batch)
        tokens = latent[:, 0].long()
        if self.levels > 1:
            tokens = torch.stack([tokens + level for level in range(self.levels)], dim=1) % 16
        return {k: batch[k] for k in ("index", "operator")} | {"tokens": tokens, "latent": latent}


class Shuffled(SyntheticDataModule):
    """Predicts on samples 2000 to 2036 in no order."""

    def predict_dataloader(self):
        order = torch.randperm(37, generator=torch.Generator().manual_seed(0)).tolist()
        return DataLoader(Subset(SyntheticData(37, 2000), order), batch_size=8)


def predicted(tmp_path, model, data, **options):
    path = tmp_path / "tokens.h5"
    quiet_trainer(tmp_path, TokenWriter(path, **options)).predict(model, data)
    return read_tokens(path)


@pytest.mark.parametrize("levels", [1, 3])
def test_rows_are_in_order_of_the_index(tmp_path, levels):
    model = Rounding(levels)
    found = predicted(tmp_path, model, Shuffled())
    expected = model.predict_step(SyntheticData(37, 2000)[:], 0)
    for name, values in expected.items():
        assert np.array_equal(getattr(found, name), values.numpy()), name
    assert found.tokens.dtype == np.int64
    assert found.latent.dtype == np.float32
    assert (found.codebook_size, found.model) == (16, "Rounding")
    assert len(np.unique(found.tokens)) == 16
    # The data module does not say what it trains on.
    assert found.training is found.prototypes is found.codes is None


class Split(Shuffled):
    training_samples = TRAINING


class Halved(Rounding):
    """NumPy has no bfloat16, which models return with ``precision: bf16-true``."""

    def latent(self, batch):
        return super().latent(batch).bfloat16()

    def codes(self, tokens):
        return super().codes(tokens).bfloat16()


def test_latents_and_codes_of_half_precision(tmp_path):
    found = predicted(tmp_path, Halved(), Split())
    expected = Halved().latent(SyntheticData(37, 2000)[:])
    assert found.latent.dtype == found.codes.dtype == np.float32
    assert np.array_equal(found.latent, expected.float().numpy())
    assert np.array_equal(found.codes[:, 0], np.arange(16))


def test_prototypes_are_the_nearest_training_operators(tmp_path):
    found = predicted(tmp_path, Rounding(), Split(), num_prototypes=4)
    assert found.index[found.training].tolist() == TRAINING.tolist()
    assert found.codes[:, 0].tolist() == list(range(16))
    places = (TRAINING - 2000).double() * 16 / 37
    for code, (operators, distances) in enumerate(
        zip(found.prototypes, found.prototype_distances, strict=True)
    ):
        distance = (places - code).abs()
        assert operators.tolist() == [*TRAINING[distance.argsort()].tolist(), -1]
        assert distances[:3] == pytest.approx(distance.sort().values.numpy(), abs=1e-5)
        assert distances[3] == np.inf


def test_without_codes_tokens_are_the_means_of_their_training_samples(tmp_path, monkeypatch):
    monkeypatch.delattr(Rounding, "codes")
    found = predicted(tmp_path, Rounding(), Split(), num_prototypes=1)
    assert found.codes is None
    used = found.tokens[found.training]
    assert found.prototypes[used, 0].tolist() == TRAINING.tolist()
    assert found.prototype_distances[used, 0] == pytest.approx(0)
    assert (np.delete(found.prototypes, used, axis=0) == -1).all()


@pytest.mark.parametrize("has_codes", [True, False])
def test_without_training_samples_there_are_no_prototypes(tmp_path, monkeypatch, has_codes):
    """As in a small file that another one's checkpoint tokenizes."""
    monkeypatch.setattr(Split, "training_samples", TRAINING[:0])
    if not has_codes:
        monkeypatch.delattr(Rounding, "codes")
    found = predicted(tmp_path, Rounding(), Split())
    assert not found.training.any()
    assert (found.prototypes == -1).all()
    assert (found.prototype_distances == np.inf).all()


def test_several_codebooks_have_no_prototypes(tmp_path):
    found = predicted(tmp_path, Rounding(2), Split())
    assert found.training.sum() == 3
    assert found.prototypes is None


class Sets(Split):
    """Two probes of each operator, in one row."""

    training_samples = torch.arange(2000, 2015)

    def predict_dataloader(self):
        data = SyntheticData(36, 2000, probes=2)
        for key in ("index", "features"):
            data.columns[key] = data.columns[key].unflatten(0, (18, 2))
        data.columns["operator"] = data.columns["operator"][::2]
        order = torch.randperm(18, generator=torch.Generator().manual_seed(0)).tolist()
        return DataLoader(Subset(data, order), batch_size=8)


def test_a_set_of_probes_has_one_row(tmp_path):
    found = predicted(tmp_path, Rounding(), Sets(), num_prototypes=1)
    assert found.index.tolist() == [[2000 + 2 * i, 2001 + 2 * i] for i in range(18)]
    assert found.operator.tolist() == list(range(2000, 2018))
    # Sample 2014 is in the training split, and 2015 is not.
    assert found.training.tolist() == [True] * 7 + [False] * 11
    assert found.prototypes.max() == 2006


def test_two_processes_write_one_file(tmp_path):
    path = tmp_path / "tokens.h5"

    def predict():
        trainer = quiet_trainer(tmp_path, TokenWriter(path), devices=2, strategy="ddp")
        trainer.predict(model, Split(), return_predictions=False)

    model = Rounding()
    # ddp needs a parameter.
    model.unused = torch.nn.Parameter(torch.zeros(1))
    in_two_ranks(predict)
    found = read_tokens(path)
    # 37 samples: one of them was repeated to give both processes equally many.
    assert found.index.tolist() == list(range(2000, 2037))
    expected = model.predict_step(SyntheticData(37, 2000)[:], 0)
    assert np.array_equal(found.tokens, expected["tokens"].numpy())
    assert found.prototypes.shape == (16, 8)


def test_a_file_is_not_written_over(tmp_path):
    path = tmp_path / "tokens.h5"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        quiet_trainer(tmp_path, TokenWriter(path)).predict(Rounding(), Shuffled())
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
        quiet_trainer(tmp_path, TokenWriter(path)).predict(Rounding(), Shuffled())
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
        quiet_trainer(tmp_path, TokenWriter(tmp_path / out)).predict(Rounding(), data)
    assert (tmp_path / "data.h5").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_that_comes_into_being_meanwhile_is_kept(tmp_path):
    path = tmp_path / "tokens.h5"

    class Other(Callback):
        def on_predict_start(self, trainer, pl_module):
            path.write_text("precious")

    with pytest.raises(ConfigurationError, match="exists already"):
        quiet_trainer(tmp_path, TokenWriter(path), Other()).predict(Rounding(), Shuffled())
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["tokens.h5"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"folder of .*nowhere.tokens.h5 does not exist"):
        quiet_trainer(tmp_path, TokenWriter(tmp_path / "nowhere" / "tokens.h5")).predict(
            Rounding(), Shuffled()
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
    writer = TokenWriter(path)
    trainer = quiet_trainer(tmp_path, writer)
    for stage in ("fit", "validate", "test"):
        writer.setup(trainer, Rounding(), stage)
    with pytest.raises(ConfigurationError):
        writer.setup(trainer, Rounding(), "predict")


def test_more_codes_than_a_token_file_holds_are_refused_before_predicting(tmp_path, monkeypatch):
    monkeypatch.setattr(Silent, "codebook_size", (1 << 16) + 1)
    trainer = quiet_trainer(tmp_path, TokenWriter(tmp_path / "t.h5"))
    with pytest.raises(ConfigurationError, match="at most 65536 codes, and the model has 65537"):
        trainer.predict(Silent(), Shuffled())
    assert not (tmp_path / "t.h5").exists()
