"""CodebookUsage against counts by hand."""

import pytest
import torch

from spinlock.callbacks import CodebookUsage
from tests.callbacks import SyntheticDataModule, TokenModel, quiet_trainer


def validate(tmp_path, model, data):
    trainer = quiet_trainer(tmp_path, CodebookUsage(plots_every_n_epochs=0, detailed=True))
    return trainer.validate(model, data, verbose=False)[0]


def test_usage_perplexity_and_dead_codes(tmp_path):
    data, model = SyntheticDataModule(), TokenModel("tokens")
    # 48, 24 and 24 samples of codes 0, 2 and 5 of 8.
    data.val.columns["tokens"] = torch.tensor([0, 0, 2, 5]).repeat(24)
    model.codebook_size = 8
    logged = validate(tmp_path, model, data)
    assert logged["codebook/usage"] == 3 / 8
    assert logged["codebook/dead_codes"] == 5
    entropy = -(0.5 * torch.tensor(0.5).log() + 0.5 * torch.tensor(0.25).log())
    assert logged["codebook/perplexity"] == pytest.approx(entropy.exp().item())
    assert len(logged) == 3


def test_a_codebook_of_one_code(tmp_path):
    data, model = SyntheticDataModule(), TokenModel("tokens")
    data.val.columns["tokens"] = torch.zeros(96, dtype=torch.int64)
    model.codebook_size = 1
    logged = validate(tmp_path, model, data)
    assert logged["codebook/usage"] == 1
    assert logged["codebook/dead_codes"] == 0
    assert logged["codebook/perplexity"] == 1


def test_levels_are_reported_apart_and_together(tmp_path):
    data, model = SyntheticDataModule(), TokenModel("tokens")
    parts = torch.tensor([[0, 1], [0, 1], [1, 2], [1, 0]]).repeat(24, 1)
    data.val.columns["tokens"] = parts
    model.codebook_size = 4
    logged = validate(tmp_path, model, data)
    assert logged["codebook/usage/level_0"] == 2 / 4
    assert logged["codebook/usage/level_1"] == 3 / 4
    assert logged["codebook/usage"] == 5 / 8
    assert logged["codebook/dead_codes/level_0"] == 2
    assert logged["codebook/dead_codes/level_1"] == 1
    assert logged["codebook/dead_codes"] == 3
    assert logged["codebook/perplexity/level_0"] == pytest.approx(2)
    # Combinations 01, 12 and 10, with shares 1/2, 1/4 and 1/4.
    assert logged["codebook/perplexity"] == pytest.approx(2 * 2**0.5)


def test_one_level_with_a_dimension_is_one_level(tmp_path):
    data = SyntheticDataModule()
    flat = validate(tmp_path, TokenModel("variant"), data)
    data.val.columns["column"] = data.val.columns["variant"][:, None]
    assert validate(tmp_path, TokenModel("column"), data) == flat


class SequenceModel(TokenModel):
    codebook_size = 4

    def validation_step(self, batch, batch_idx):
        return {"tokens": batch["sequence"][:, -1], "token_sequence": batch["sequence"]}


def test_transitions_are_counted_along_time(tmp_path):
    data = SyntheticDataModule()
    data.val.columns["sequence"] = torch.tensor([[0, 0, 3], [1, 1, 1]]).repeat(48, 1)
    callback = CodebookUsage(plots_every_n_epochs=0, detailed=True)
    trainer = quiet_trainer(tmp_path, callback)
    logged = trainer.validate(SequenceModel(), data, verbose=False)[0]
    assert logged["codebook/self_transition"] == 0.75
    expected = torch.zeros(4, 4, dtype=torch.int64)
    expected[0, 0] = expected[0, 3] = 48
    expected[1, 1] = 96
    assert torch.equal(callback._transition_counts, expected)


def test_sequences_of_one_timestep_have_no_transitions(tmp_path):
    data = SyntheticDataModule()
    data.val.columns["sequence"] = torch.tensor([[3], [1]]).repeat(48, 1)
    trainer = quiet_trainer(tmp_path, CodebookUsage(detailed=True))
    logged = trainer.validate(SequenceModel(), data, verbose=False)[0]
    assert logged["codebook/perplexity"] == pytest.approx(2)
    assert "codebook/self_transition" not in logged


def test_many_samples_are_counted_in_parts(tmp_path, monkeypatch):
    data = SyntheticDataModule()
    whole = validate(tmp_path, TokenModel("variant"), data)
    monkeypatch.setattr("spinlock.callbacks.epoch_tables._WAITING", 40)
    assert validate(tmp_path, TokenModel("variant"), data) == whole
