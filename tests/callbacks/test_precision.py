"""All callbacks work in each precision of training that docs/datamodules.md names."""

import re

import numpy as np
import pytest
import torch
from lightning import Callback

import spinlock.callbacks
from benchmarks.synthetic import write_synthetic
from spinlock import SpinlockDataModule
from spinlock.callbacks import (
    CodebookUsage,
    DatasetReport,
    FiniteCheck,
    ICMutualInformation,
    OperatorConsistency,
    ReconstructionByGroup,
    TokenTransfer,
    TokenWriter,
)
from spinlock.models import FeatureVQVAE, LossConfig
from spinlock.storage import read_tokens
from tests.callbacks import quiet_trainer
from tests.helpers import small_config
from tests.pages import ROOT

PRECISIONS = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-true": torch.bfloat16,
    "bf16-mixed": torch.float32,
}
# TokenTransfer needs two loaders, of which the held-out one has no pairs of probes.
HELD_OUT = {"train_variants": {"exclude": ["gaussian_blobs"]}, "eval_variants": "all"}
OPTIONS = {"pairs": ({}, None), "features": (HELD_OUT, LossConfig(other_probe=0.0, alignment=0.0))}
CASES = [*((precision, "pairs") for precision in PRECISIONS), ("bf16-true", "features")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("precision") / "data.h5"
    options = {"probes_per_operator": 4, "num_realizations": 2, "dynamics": True}
    config = small_config(80, grid_size=24, base_channels=(2, 3), **options)
    write_synthetic(path, config)
    return path, config


def all_callbacks(folder, *, transfer):
    """Every callback that the package exports, but TokenTransfer only if a run has its data."""
    detailed = {"detailed": True}
    found = [
        CodebookUsage(**detailed),
        # The fields are random numbers, which no simulation gives.
        DatasetReport(replay=0, refuse=False),
        FiniteCheck(),
        ICMutualInformation(permutations=20, **detailed),
        OperatorConsistency(**detailed),
        ReconstructionByGroup(**detailed),
        TokenWriter(folder / "tokens.h5"),
        *([TokenTransfer()] if transfer else []),
    ]
    exported = {getattr(spinlock.callbacks, name) for name in spinlock.callbacks.__all__}
    kinds = {kind for kind in exported if issubclass(kind, Callback)}
    assert {type(callback) for callback in found} | {TokenTransfer} == kinds
    return found


@pytest.mark.parametrize(("precision", "view"), CASES)
def test_a_fit_and_its_predictions(dataset, tmp_path, precision, view):
    selection, loss = OPTIONS[view]
    torch.manual_seed(1)
    view_options = {"name": view, "columns": ["responses", "noise"]}
    datamodule = SpinlockDataModule(
        *dataset,
        view=view_options,
        batch_size=16,
        val_fraction=0.4,
        test_fraction=0,
        progress=False,
        **selection,
    )
    model = FeatureVQVAE(codebook_size=4, hidden_dims=(8,), latent_dim=4, loss=loss)
    callbacks = all_callbacks(tmp_path, transfer=view == "features")
    trainer = quiet_trainer(tmp_path, *callbacks, precision=precision, max_epochs=1)
    trainer.fit(model, datamodule=datamodule)
    assert {weight.dtype for weight in model.parameters()} == {PRECISIONS[precision]}
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    prefixes = {name.partition("/")[0] for name in scores}
    assert {"codebook", "consistency", "ic", "reconstruction", "train", "val"} <= prefixes
    assert ("transfer" in prefixes) == (view == "features")
    for name in ("train/loss", "val/r2", "ic/family_ami", "consistency/same_token"):
        assert np.isfinite(scores[name]), name

    trainer.predict(model, datamodule=datamodule)
    found = read_tokens(tmp_path / "tokens.h5")
    assert found.index.tolist() == list(range(80))
    assert found.latent.dtype == np.float32
    assert np.isfinite(found.latent).all()
    assert set(found.tokens) <= set(range(4))
    # The token is that of the nearest code, up to the rounding of bfloat16.
    distance = np.linalg.norm(found.latent[:, None] - found.codes, axis=2)
    chosen = distance[np.arange(80), found.tokens]
    assert (chosen - distance.min(1) < 0.02 * (1 + distance.max())).all()


def test_the_documentation_names_these_precisions():
    page = (ROOT / "docs" / "datamodules.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `precision` \|(.*)\|$", page, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", row)) | {"32-true"} == set(PRECISIONS)
