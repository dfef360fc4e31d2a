"""A file is recognized as the dataset of a configuration, or refused."""

import dataclasses
import shutil
import warnings

import h5py
import pytest
import torch

from benchmarks.synthetic import write_synthetic
from spinlock import SpinlockDataModule
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import DatasetError
from spinlock.storage import read_info, require_dataset
from tests.datamodules import collect, ready
from tests.helpers import small_config


def test_size_and_packing_may_differ(datasets):
    path, config = datasets["single"]
    assert read_info(path).config == config
    storage = dataclasses.replace(config.storage, compression="none", shard_size=40)
    expected = dataclasses.replace(config, num_samples=5, storage=storage)
    assert require_dataset(path, expected).config == config


def reordered(config):
    weights = dict(reversed(config.initial_conditions.weights.items()))
    return dataclasses.replace(config, initial_conditions=InitialConditionConfig(weights))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: dataclasses.replace(config, seed=7),
        lambda config: dataclasses.replace(config, num_timesteps=2),
        # The order of the weights decides which variant a sample has.
        reordered,
    ],
)
def test_another_dataset_is_read_for_what_it_is(datasets, change):
    path, config = datasets["single"]
    with pytest.raises(DatasetError, match="holds another dataset"):
        require_dataset(path, change(config))


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("configuration", "{}", "its configuration is not valid"),
        ("configuration", "not JSON", "its configuration is not valid"),
        ("schema_version", "0.1", "has schema version 0.1"),
        ("fingerprint", "0" * 64, "holds another dataset"),
        ("configuration", None, "lacks the root attribute"),
    ],
)
def test_broken_attributes_are_named(datasets, tmp_path, attribute, value, message):
    path, config = datasets["single"]
    shutil.copy(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file.attrs[attribute]
        if value is not None:
            file.attrs[attribute] = value
    with pytest.raises(DatasetError, match=message):
        require_dataset(tmp_path / "a.h5", config)


def test_a_configuration_that_was_changed_is_not_overlooked(datasets, tmp_path):
    path, config = datasets["single"]
    shutil.copy(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["configuration"] = dataclasses.replace(config, seed=9).to_json()
    assert read_info(tmp_path / "a.h5").config.seed == 9
    with pytest.raises(DatasetError, match=r"holds another dataset.*seed: 9 there, 42 asked for"):
        require_dataset(tmp_path / "a.h5", config)


def test_other_stored_fields_are_used_with_a_warning(tmp_path):
    """Views without fields have the same batches, so they do not warn."""
    asked = small_config(16, num_timesteps=3, num_realizations=2)
    storage = dataclasses.replace(asked.storage, fields="last")
    stored, path = dataclasses.replace(asked, storage=storage), tmp_path / "a.h5"
    write_synthetic(path, stored)
    with pytest.warns(UserWarning, match="storage.fields: last there, all asked for"):
        other = ready(path, asked, view="fields")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpinlockDataModule(path, asked)
        same = ready(path, stored, view="fields")
    found, expected = (collect(each.predict_dataloader()) for each in (other, same))
    assert found["output_fields"].shape[2] == 1
    assert torch.equal(found["output_fields"], expected["output_fields"])
