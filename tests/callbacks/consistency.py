"""OperatorConsistency on synthetic data: its data, its scores, and validation."""

import torch

from spinlock.callbacks import OperatorConsistency
from tests.callbacks import (
    UPDATE_POLICIES,
    SyntheticDataModule,
    quiet_trainer,
    with_operator_tokens,
)


def validate(tmp_path, model, data, settings=None, **trainer_settings):
    callback = OperatorConsistency(detailed=True, **(settings or {}))
    trainer = quiet_trainer(tmp_path, callback, **trainer_settings)
    logged = trainer.validate(model, data, verbose=False)[0]
    return {key.removeprefix("consistency/"): value for key, value in logged.items()}


def case(probes=2, size=240):
    data = SyntheticDataModule(size, probes=probes)
    return data, with_operator_tokens(data)


SCORES = {
    "same_token",
    "same_token_rate",
    "same_token_chance",
    "retrieval",
    "retrieval_candidates",
    "cross_probe_r2",
    "shuffled_tokens_r2",
    "ic_only_r2",
    *(f"cross_probe_r2/{policy}" for policy in UPDATE_POLICIES),
    *(f"shuffled_tokens_r2/{policy}" for policy in UPDATE_POLICIES),
}


def spoilt_case(probes):
    """Tokens of which 40 % are of another operator, in any order of samples."""
    data, codes = case(probes)
    columns = data.val.columns
    generator = torch.Generator().manual_seed(0)
    spoilt = torch.rand(240, generator=generator) < 0.4
    random = torch.randint(60, (240,), generator=generator) + 1000
    columns["tokens"] = torch.where(spoilt, random, columns["tokens"])
    order = torch.randperm(240, generator=generator)
    data.val.columns = {key: column[order] for key, column in columns.items()}
    return data, codes
