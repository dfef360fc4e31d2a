"""`setup` verifies everything that a view reads, so training never sees damaged data."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from spinlock.errors import DatasetError
from spinlock.storage import schema
from tests.datamodules import collect
from tests.datamodules.verified import (
    CONFIG,
    FEATURE_VIEWS,
    FIELDS,
    VIEWS,
    columns_of,
    module,
    put,
    refused,
    zero,
)
from tests.storage.sabotage import flip

pytestmark = pytest.mark.slow


def swap(file, names):
    """Exchange two samples of different variants and operators in some datasets."""
    for name in names:
        rows = file[name][...]
        unlike = (row for row in range(9, 24) if rows[row].tobytes() != rows[4].tobytes())
        # All operators have the same value on some axes.
        other = next(unlike, 4)
        rows[[4, other]] = rows[[other, 4]]
        file[name][...] = rows


def swap_labels(file):
    labels = file[schema.IC_TYPES][...]
    other = next(row for row in range(9, 24) if labels[row] != labels[4])
    for name in (schema.IC_TYPES, schema.IC_FAMILIES):
        rows = file[name][...]
        rows[[4, other]] = rows[[other, 4]]
        file[name][...] = rows


def roll(*names):
    def edit(file):
        for name in names:
            file[name][...] = np.roll(file[name][...], 2, axis=0)

    return edit


# Name of the damage -> (function that does it, pattern of the datasets that are changed).
IN_FEATURES = {
    "NaN": (put(schema.PER_TIMESTEP, 3, np.nan, (1, 7)), schema.PER_TIMESTEP),
    "NaN at the first timestep": (put(schema.PER_TIMESTEP, 3, np.nan, (0, 7)), schema.PER_TIMESTEP),
    "infinity": (put(schema.PER_TIMESTEP, 23, -np.inf, (1, 45)), schema.PER_TIMESTEP),
    "NaN in initial features": (
        put(schema.INITIAL_FEATURES, 0, np.nan, (0,)),
        schema.INITIAL_FEATURES,
    ),
    "swapped rows": (lambda file: swap(file, [schema.PER_TIMESTEP]), schema.PER_TIMESTEP),
    "swapped initial rows": (
        lambda file: swap(file, [schema.INITIAL_FEATURES]),
        schema.INITIAL_FEATURES,
    ),
    "rolled": (roll(schema.PER_TIMESTEP), schema.PER_TIMESTEP),
    "zeros": (zero(schema.PER_TIMESTEP), schema.PER_TIMESTEP),
}
IN_LABELS = {
    "swapped labels": (swap_labels, f"{schema.IC_TYPES}|{schema.IC_FAMILIES}"),
    "swapped params": (lambda file: swap(file, [schema.PARAMS]), schema.PARAMS),
    "swapped values": (lambda file: swap(file, schema.value_names(CONFIG)), schema.VALUES),
    "swapped operators": (lambda file: swap(file, [schema.OPERATOR_INDEX]), schema.OPERATOR_INDEX),
    "rolled labels": (
        roll(schema.IC_TYPES, schema.IC_FAMILIES),
        f"{schema.IC_TYPES}|{schema.IC_FAMILIES}",
    ),
    "NaN in params": (put(schema.PARAMS, 5, np.nan, (2,)), schema.PARAMS),
    "operators of zeros": (zero(schema.OPERATOR_INDEX), schema.OPERATOR_INDEX),
    "no variants": (zero(schema.IC_TYPES), schema.IC_TYPES),
}


def with_half_of(views, damages):
    """Each kind of damage with every second view, and each view with every second damage."""
    return [
        (view, damage)
        for row, view in enumerate(views)
        for column, damage in enumerate(damages)
        if (row + column) % 2 == 0
    ]


@pytest.mark.parametrize(("view", "damage"), with_half_of(FEATURE_VIEWS, IN_FEATURES))
def test_damaged_features_are_not_served(path, view, damage):
    edit, name = IN_FEATURES[damage]
    with h5py.File(path, "r+") as file:
        edit(file)
    refused(path, view, name)


@pytest.mark.parametrize(("view", "damage"), with_half_of(VIEWS, IN_LABELS))
def test_damaged_labels_are_not_served(path, view, damage):
    edit, name = IN_LABELS[damage]
    with h5py.File(path, "r+") as file:
        edit(file)
    refused(path, view, name)


@pytest.mark.parametrize(
    ("view", "name", "row"),
    [
        (view, name, (0, 23)[(number + place) % 2])
        for number, view in enumerate(VIEWS)
        for place, name in enumerate(columns_of(view))
    ],
)
def test_a_flipped_bit_of_a_column_is_found(path, view, name, row):
    """In the first row or in the last one."""
    flip(path, name, row, 0x01)
    refused(path, view, name)


@pytest.mark.parametrize("view", VIEWS)
def test_damage_beyond_the_first_samples_is_found_too(path, view):
    """A digest covers a whole column, so damage to samples that are not used is found too."""
    flip(path, schema.OPERATOR_INDEX, 22)
    datamodule = module(path, view, dataclasses.replace(CONFIG, num_samples=16))
    with pytest.raises(DatasetError, match=schema.OPERATOR_INDEX):
        datamodule.setup()


@pytest.mark.parametrize(("view", "realizations"), [("fields", "all"), ("both", "mean")])
@pytest.mark.parametrize("name", FIELDS)
def test_a_flipped_bit_of_a_compressed_field_is_not_served(path, view, realizations, name):
    """Fields are verified when a batch is read, by the checksums of the compression."""
    flip(path, name, 6)
    datamodule = module(path, view, realizations=realizations)
    datamodule.setup()
    with pytest.raises(DatasetError, match=rf"{name} of sample 6"):
        collect(datamodule.predict_dataloader())


class Counting(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = 0

    def training_step(self, batch, index):
        self.batches += 1
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, view):
    model = Counting()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=module(path, view))
    return model.batches


@pytest.mark.parametrize("view", VIEWS)
def test_a_trainer_sees_no_batch_of_a_damaged_file(path, view, monkeypatch):
    seen = []
    monkeypatch.setattr(Counting, "training_step", lambda *args: seen.append(args))
    flip(path, schema.PARAMS, 12)
    with pytest.raises(DatasetError, match=schema.PARAMS):
        fit(path, view)
    assert not seen


def test_a_trainer_sees_the_batches_of_an_undamaged_file(path):
    assert fit(path, "features") > 2
