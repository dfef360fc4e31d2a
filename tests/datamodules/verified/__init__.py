"""`setup` verifies everything that a view reads, so training never sees damaged data."""

import dataclasses

import numpy as np
import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.errors import DatasetError
from spinlock.storage import schema
from tests.datamodules import collect
from tests.helpers import small_config

CONFIG = small_config(
    24, base_channels=(2, 3), num_realizations=2, num_timesteps=2, probes_per_operator=2
)
RAW = dataclasses.replace(CONFIG, storage=dataclasses.replace(CONFIG.storage, compression="none"))
VIEWS = ("features", "sequence", "pairs", "fields", "both")
FEATURE_VIEWS = tuple(view for view in VIEWS if view != "fields")
LABELS = (
    schema.IC_TYPES,
    schema.IC_FAMILIES,
    schema.PARAMS,
    "parameters/values/num_layers",
    "parameters/values/activation",
    schema.OPERATOR_INDEX,
)
FEATURES = (schema.PER_TIMESTEP, schema.INITIAL_FEATURES)
FIELDS = (schema.INPUTS, schema.OUTPUTS)


def columns_of(view):
    """Return the datasets that `setup` reads."""
    return LABELS if view == "fields" else LABELS + FEATURES


def module(path, view, config=CONFIG, **options):
    options = {"batch_size": 4, "progress": False, "scaling": "none"} | options
    if view in ("fields", "both"):
        options.setdefault("realizations", "all")
    return SpinlockDataModule(path, config, view=view, **options)


def served(path, view, config=CONFIG):
    datamodule = module(path, view, config)
    datamodule.prepare_data()
    datamodule.setup("fit")
    next(iter(datamodule.train_dataloader()))
    return collect(datamodule.predict_dataloader())


def require_equal(found, expected, count=None):
    assert set(found) == set(expected)
    for key, values in expected.items():
        assert torch.equal(found[key], values[:count]), key


def refused(path, view, pattern):
    """Check that every call of `setup` names the damage, and that no batch is returned."""
    before = path.read_bytes()
    datamodule = module(path, view)
    for stage in ("fit", "predict"):
        with pytest.raises(DatasetError, match=pattern):
            datamodule.setup(stage)
    loaders = (
        datamodule.train_dataloader,
        datamodule.val_dataloader,
        datamodule.test_dataloader,
        datamodule.predict_dataloader,
    )
    for loader in loaders:
        with pytest.raises(RuntimeError, match="setup"):
            loader()
    assert path.read_bytes() == before


def put(name, row, value, where=()):
    """Change a value of a column."""

    def edit(file):
        column = file[name][...]
        before = column.tobytes()
        column[(row, *where) if where else row] = value
        assert column.tobytes() != before
        file[name][...] = column

    return edit


def put_value(axis, row, value):
    """Change a typed value of an operator."""

    def edit(file):
        values = file[f"{schema.VALUES}/{axis}"]
        assert values[row] != value
        values[row] = value

    return edit


def zero(name):
    """Set all values to zero, as HDF5 reads missing data."""

    def edit(file):
        file[name][...] = np.zeros((), file[name].dtype)

    return edit
