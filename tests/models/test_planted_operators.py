"""Tokens of planted data identify the operator, although the initial condition shifts it."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.synthetic import write_synthetic
from spinlock import SpinlockDataModule, metrics
from spinlock.configuration.file_content import StorageConfig
from spinlock.datamodules import FeatureDataset, ViewOptions, collate_samples
from spinlock.features.response import NOISE_NAMES, response_names
from spinlock.models import LossConfig
from spinlock.simulation.dynamics_rows import dynamics_names
from spinlock.storage import schema
from tests.callbacks import VARIANTS, quiet_trainer
from tests.helpers import reseal, small_config
from tests.models.small_models import CONDITIONED, ONE_PROBE, SMALL, small_model

pytestmark = pytest.mark.slow

OPERATORS = 16


def planted(size, seed):
    """Pairs of features: of an operator plus a larger shift of the variant plus a little noise.

    Every operator has every variant equally often, so that tokens that identify the operator have
    no mutual information with the variant, not even by chance.
    """
    maps = torch.Generator().manual_seed(0)
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(OPERATORS, 46, generator=maps)
    shift = 3 * torch.randn(len(VARIANTS), 46, generator=maps)
    cell = torch.randperm(size, generator=generator) % (OPERATORS * len(VARIANTS))
    operator, variant = cell % OPERATORS, cell // OPERATORS
    batch = {"operator": operator}
    for prefix, shown in (("", variant), ("other_", (variant + 1) % len(VARIANTS))):
        noise = 0.1 * torch.randn(2, size, 46, generator=generator)
        batch[f"{prefix}features"] = (own[operator] + shift[shown] + noise[0]) / 3
        batch[f"{prefix}initial_features"] = shift[shown] / 3 + noise[1]
        batch[f"{prefix}variant"] = shown
    return batch


def trained(tmp_path, **settings):
    model = small_model(codebook_size=OPERATORS, hidden_dims=(64,), learning_rate=1e-2, **settings)
    trainer = quiet_trainer(tmp_path, max_epochs=15)
    data = FeatureDataset(planted(1536, 1), torch.arange(1536))
    whole = DataLoader(data, batch_size=128, shuffle=True, collate_fn=collate_samples)
    trainer.fit(model, whole)
    held_out = planted(4096, 2)
    return model.eval()(held_out)["tokens"], held_out


def table(tokens, labels):
    counted = metrics.TokenContingency(OPERATORS, OPERATORS)
    counted.update(tokens, labels)
    return counted.compute()["joint"]


def p_value(tokens, variant):
    counts = table(tokens, variant)
    null = metrics.permutation_null(metrics.mutual_information, counts, permutations=200)
    return metrics.permutation_p_value(metrics.mutual_information(counts), null).item()


def test_conditioned_tokens_name_operators_and_not_initial_conditions(tmp_path):
    loss = LossConfig(other_probe=0.5, alignment=0.1)
    tokens, batch = trained(tmp_path, **CONDITIONED, loss=loss)
    assert metrics.adjusted_mutual_information(table(tokens, batch["operator"])) > 0.9
    assert abs(metrics.adjusted_mutual_information(table(tokens, batch["variant"]))) < 0.01
    assert p_value(tokens, batch["variant"]) > 0.05


@pytest.mark.repeated
def test_a_plain_model_names_initial_conditions(tmp_path):
    tokens, batch = trained(tmp_path, normalization="none")
    ami = metrics.adjusted_mutual_information(table(tokens, batch["variant"]))
    assert ami > 0.3
    assert p_value(tokens, batch["variant"]) == pytest.approx(1 / 201)


RESPONSES, PROBES = 20, 4
FILE = small_config(
    RESPONSES * 12 * PROBES,
    grid_size=16,
    probes_per_operator=PROBES,
    num_realizations=2,
    dynamics=True,
    storage=StorageConfig(fields="none"),
)
NAMES = (*response_names(FILE.channels), *NOISE_NAMES)
# The initial condition shifts two of three columns.
SHIFTED = np.arange(len(NAMES)) % 3 > 0
VIEW = {"columns": ("responses", "noise"), "selection": "invariant"}


def write_planted(folder):
    """Write a file whose operators have one of 20 responses, and whose dynamics follow from it."""
    generator = np.random.default_rng(0)
    path = folder / "planted.h5"
    write_synthetic(path, FILE)
    with h5py.File(path, "r+") as file:
        operator = np.arange(FILE.num_samples) // PROBES
        _, variant = np.unique(file["metadata/ic_types"][:], return_inverse=True)
        own = generator.standard_normal((RESPONSES, len(NAMES)))
        shift = 2 * generator.standard_normal((variant.max() + 1, len(NAMES))) * SHIFTED
        noise = 0.05 * generator.standard_normal((FILE.num_samples, len(NAMES)))
        features = own[operator % RESPONSES] + shift[variant] + noise
        count = len(NAMES) - len(NOISE_NAMES)
        file[schema.RESPONSES][:] = features[:, None, :count]
        file[schema.NOISE_RESPONSES][:] = features[:, count:]
        numbers = np.arange(len(file[schema.DYNAMICS]))
        dynamics = own[numbers % RESPONSES][:, : len(dynamics_names(FILE))]
        file[schema.DYNAMICS][:] = dynamics + 0.1 * generator.standard_normal(dynamics.shape)
        reseal(file, FILE)


@pytest.fixture(scope="module")
def path(made_once):
    return made_once("planted_operators", write_planted) / "planted.h5"


def fitted(path, tmp_path, view, **settings):
    """Train, and return the model, the data and the tokens of the test split's samples."""
    # Equally many batches of pairs and of sets.
    batch_size = 64 // (PROBES if view.name == "probes" else 1)
    data = SpinlockDataModule(path, FILE, view=view, batch_size=batch_size, progress=False)
    sizes = dict.fromkeys(key for key in SMALL if key.startswith("num_"))
    options = {"codebook_size": RESPONSES, "hidden_dims": (64,), "learning_rate": 1e-2, **settings}
    model = small_model(**(sizes | {"loss": LossConfig()} | options))
    trainer = quiet_trainer(tmp_path, max_epochs=20, limit_val_batches=0)
    trainer.fit(model, data)
    (logged,) = trainer.test(model, data, verbose=False)
    single = SpinlockDataModule(
        path,
        FILE,
        view=dataclasses.replace(view, name="responses"),
        progress=False,
        allow_transfer=True,
    )
    single.load_state_dict(data.state_dict())
    single.setup()
    samples = single.prepared.subsets["test"]
    batch = {key: values[samples] for key, values in single.prepared.columns.items()}
    return logged, data, {**batch, "tokens": model.eval()(batch)["tokens"]}


def scores(batch):
    """The same-token rate, the information on the variant above chance, and its p-value."""
    tokens, operator, variant = batch["tokens"], batch["operator"], batch["variant"]
    rate = metrics.same_token_rate(tokens, variant, operator)
    shape = (RESPONSES, int(variant.max()) + 1)
    counts = torch.zeros(shape, dtype=torch.int64)
    counts.index_put_((tokens, variant), torch.tensor(1), accumulate=True)
    found = metrics.mutual_information(counts)
    null = metrics.group_permutation_null(
        metrics.mutual_information, tokens, variant, operator, shape=shape, permutations=199
    )
    excess = (found - null.mean()).item()
    return rate.rate.item(), excess, metrics.permutation_p_value(found, null).item()


@pytest.mark.parametrize("view", ["pairs", pytest.param("probes", marks=pytest.mark.repeated)])
def test_responses_are_tokenized_by_operator(path, tmp_path, view):
    logged, data, batch = fitted(path, tmp_path, ViewOptions(view, **VIEW))
    expected = tuple(name for name, out in zip(NAMES, SHIFTED, strict=True) if not out)
    assert data.feature_names == expected
    rate, excess, p = scores(batch)
    assert rate >= 0.9
    assert abs(excess) < 0.01
    assert p > 0.05
    known = metrics.joint_tokens(batch["operator"] % RESPONSES)
    counted = metrics.TokenContingency(RESPONSES, RESPONSES)
    counted.update(batch["tokens"], known)
    assert metrics.normalized_mutual_information(counted.compute()["joint"]) > 0.95
    # Dynamics are scaled, so that their R2 is about 1 minus the error.
    assert logged["test/dynamics"] < 0.7
    assert logged["test/r2"] > 0.5


def test_columns_that_the_initial_condition_shifts_spoil_tokens(path, tmp_path):
    everything = ViewOptions("responses", columns=VIEW["columns"])
    _, data, batch = fitted(path, tmp_path, everything, loss=ONE_PROBE)
    assert data.feature_names == NAMES
    rate, excess, p = scores(batch)
    assert rate < 0.5
    assert excess > 0.1
    assert p < 0.01
