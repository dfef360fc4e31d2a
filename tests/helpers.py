"""Small datasets and values that several tests share."""

import dataclasses

import h5py
import numpy as np

from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import IntegerRange, ParameterSpaceConfig
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.simulation.simulator import Simulator
from spinlock.storage import digests, schema
from spinlock.storage.dataset_file import DatasetFile

VALUES = ParameterValues(
    num_layers=2,
    base_channels=8,
    kernel_size=3,
    activation="gelu",
    dropout_rate=0.1,
    noise_type="gaussian",
    noise_scale=0.1,
    noise_schedule="constant",
    schedule_period=100,
    spatial_correlation=0.05,
    normalization="none",
    grid_size=32,
    update_policy="autoregressive",
    alpha=0.5,
    dt=0.05,
)


def values(**changes):
    """Parameter values of a small operator, with some of them changed."""
    return dataclasses.replace(VALUES, **changes)


def small_config(num_samples=12, *, grid_size=32, base_channels=(4, 8), block_size=4, **options):
    """A dataset of small operators that a CPU computes in milliseconds, without dynamics."""
    space = ParameterSpaceConfig(base_channels=IntegerRange(*base_channels), grid_size=(grid_size,))
    options.setdefault("storage", StorageConfig(shard_size=2 * block_size))
    options.setdefault("dynamics", False)
    return GenerationConfig(num_samples, parameter_space=space, block_size=block_size, **options)


def simulate(config, start, stop, device="cpu"):
    """Arrays of the samples start..stop by name."""
    parts = list(Simulator(config, device).samples(start, stop))
    arrays = {
        "index": np.concatenate([p.index for p in parts]),
        "initial": np.concatenate([p.initial.cpu().numpy() for p in parts]),
        "fields": np.concatenate([p.fields.cpu().numpy() for p in parts]),
        "initial_features": np.concatenate([p.initial_features.cpu().numpy() for p in parts]),
    }
    for name in ("per_timestep", "per_trajectory", "aggregated"):
        columns = [getattr(p.features, name).cpu().numpy() for p in parts]
        arrays[name] = np.concatenate(columns)
    return arrays


def dataset_contents(path):
    """Dataset name -> bytes, and the texts of dimension scales."""
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            values = item[...]
            text = values.dtype.hasobject
            found[name] = repr(values.tolist()).encode() if text else values.tobytes()

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def attached_scales(path):
    """Dataset name -> names of the scales of its dimensions, which have the right lengths."""
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset) and not item.is_scale:
            scales = [scale for dimension in item.dims for scale in dimension.values()]
            assert tuple(map(len, scales)) == item.shape, name
            found[name] = [scale.name for scale in scales]

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def parameter_values(file):
    """The typed parameter values of a file as a structured array."""
    params = file["parameters/params"]
    columns = {name: file[f"parameters/values/{name}"][:] for name in params.attrs["names"]}
    values = np.empty(len(params), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        values[name] = column
    return values


def seal(file, config):
    """Write the digests of the columns and attributes of a changed file."""
    digests.seal(DatasetFile(file, config))


def reseal(file, config):
    """Make the digests of a changed file agree with what it holds now."""
    dataset = DatasetFile(file, config)
    file[schema.DIGESTS][...] = digests.computed_digests(dataset, dataset.rows)
    digests.seal(dataset)


def shortened(script, changes):
    """Replace texts of a script, each of which must occur once."""
    for full, short in changes.items():
        assert script.count(full) == 1, full
        script = script.replace(full, short)
    return script
