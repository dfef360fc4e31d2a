"""Tokens of synthetic data identify the operator, although the initial condition shifts it."""

import pytest
import torch
from lightning import seed_everything
from torch.utils.data import DataLoader, TensorDataset

from spinlock import metrics
from spinlock.models import FeatureVQVAE, IndependenceConfig
from tests.callbacks import quiet_trainer

OPERATORS, VARIANTS = 16, 4
KEYS = ("features", "initial_features", "variant", "operator")


def planted(size, seed):
    """Features of an operator plus a larger shift of the variant plus a little noise.

    Every operator has every variant equally often, so that tokens that identify the operator have
    no mutual information with the variant, not even by chance.
    """
    maps = torch.Generator().manual_seed(0)
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(OPERATORS, 46, generator=maps)
    shift = 3 * torch.randn(VARIANTS, 46, generator=maps)
    cell = torch.randperm(size, generator=generator) % (OPERATORS * VARIANTS)
    operator, variant = cell % OPERATORS, cell // OPERATORS
    noise = 0.1 * torch.randn(2, size, 46, generator=generator)
    features = own[operator] + shift[variant] + noise[0]
    return TensorDataset(features / 3, shift[variant] / 3 + noise[1], variant, operator)


def loader(data, *, shuffle=False):
    def collate(rows):
        return dict(
            zip(KEYS, (torch.stack(column) for column in zip(*rows, strict=True)), strict=True)
        )

    return DataLoader(data, batch_size=128, shuffle=shuffle, collate_fn=collate)


def trained(tmp_path, **settings):
    seed_everything(0)
    model = FeatureVQVAE(
        num_variants=VARIANTS, codebook_size=OPERATORS, latent_dim=4, hidden_dims=(64,), **settings
    )
    trainer = quiet_trainer(tmp_path, max_epochs=40)
    trainer.fit(model, loader(planted(1536, 1), shuffle=True))
    held_out = dict(zip(KEYS, planted(4096, 2).tensors, strict=True))
    return model.eval()(held_out)["tokens"], held_out


def table(tokens, labels):
    counted = metrics.TokenContingency(OPERATORS, OPERATORS)
    counted.update(tokens, labels)
    return counted.compute()["joint"]


def p_value(tokens, variant):
    counts = table(tokens, variant)
    null = metrics.permutation_null(metrics.mutual_information, counts, permutations=200)
    return metrics.permutation_p_value(metrics.mutual_information(counts), null).item()


def test_tokens_name_operators_and_not_initial_conditions(tmp_path):
    tokens, batch = trained(tmp_path)
    assert metrics.adjusted_mutual_information(table(tokens, batch["operator"])) > 0.9
    assert abs(metrics.adjusted_mutual_information(table(tokens, batch["variant"]))) < 0.01
    assert p_value(tokens, batch["variant"]) > 0.05


def test_a_plain_model_names_initial_conditions(tmp_path):
    tokens, batch = trained(
        tmp_path,
        encoder_conditions=[],
        decoder_conditions=[],
        normalization="none",
        independence=IndependenceConfig(0, 0, 0),
    )
    ami = metrics.adjusted_mutual_information(table(tokens, batch["variant"]))
    assert ami > 0.3
    assert p_value(tokens, batch["variant"]) == pytest.approx(1 / 201)
