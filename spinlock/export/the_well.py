"""Exports trajectories in the layout that The Well's ``WellDataset`` reads [1]_.

    OUT/data/{train,valid,test}/NAME.hdf5
    OUT/stats.yaml                          statistics of each field over the training split

A trajectory is one noise realization of a sample: u_0, then the stored timesteps. Channels are
scalar fields. The operator's parameters are scalars; a choice is stored as its position in the
attribute ``choices``. The group ``spinlock``, which ``WellDataset`` does not read, has the sample,
operator, realization and variant of each trajectory. Operators are split as a data module splits
them by default.

.. [1] R. Ohana et al., "The Well: a Large-Scale Collection of Diverse Physics Simulations for
   Machine Learning", NeurIPS 2024; package the-well, docs/data_format.md.
"""

import glob
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError, SpinlockError
from spinlock.runtime.output_files import belongs_to
from spinlock.runtime.progress import Progress
from spinlock.runtime.temporary_outputs import in_use, remove_unused
from spinlock.splits import split_operators
from spinlock.storage import schema
from spinlock.storage.columns import encoded
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.hdf5_failures import NewFile
from spinlock.storage.reader import read_info

#: The Well's names of the splits, in the order of `spinlock.splits.SPLITS`.
WELL_SPLITS = ("train", "valid", "test")
#: Group of the columns that identify a trajectory.
ORIGIN = "spinlock"


def export_well(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    progress: bool = True,
) -> list[Path]:
    """Write the trajectories of a dataset file as a dataset in the layout of The Well.

    Files are not compressed, and hold u_0 once for each realization.

    Args:
        path: Path of the dataset file.
        out: New folder; ``WellDataset(path=out, well_split_name="train")`` reads it.
        fractions: Shares of operators for training, validation and test.
        split_seed: Seed of the split, as in a data module.
        progress: Whether to show progress.

    Returns:
        Paths of the files written; a split without operators has none.

    Raises:
        DatasetNotFoundError: If there is no dataset file.
        DatasetError: If it stores no fields, if ``out`` exists already, or if it cannot be written.
    """
    path, out = Path(path), Path(out)
    config = read_info(path).config
    if not config.stored_steps:
        raise DatasetError(
            f"{path} stores no fields (storage.fields: {config.storage.fields}), so there are no "
            "trajectories to export"
        )
    if os.path.lexists(out):
        raise DatasetError(f"{out} exists already; choose a new folder")
    if belongs_to(out, path):
        raise DatasetError(f"{out} belongs to the dataset {path}; choose another folder")
    operator_index = np.arange(config.num_samples) // config.probes_per_operator
    split = split_operators(
        operator_index[-1] + 1, fractions, split_seed, num_axes=len(config.space.names)
    )[operator_index]
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    # Those of exports that were killed.
    remove_unused(out.parent, f".{glob.escape(out.name)}.{32 * '[0-9a-f]'}.tmp")
    try:
        temporary.mkdir(parents=True)
        with (
            in_use(temporary),
            DatasetFile.open(path) as source,
            Progress(config.num_samples, 0, f"export {path.name}", enabled=progress) as bar,
        ):
            _export(source, split, temporary, path.stem, bar)
            temporary.rename(out)
    except OSError as error:
        if isinstance(error, SpinlockError):
            raise
        reason = error.strerror or error
        raise DatasetError(f"cannot write {out}: {reason}; no file was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [*sorted((out / "data").rglob("*.hdf5")), out / "stats.yaml"]


def _export(
    source: DatasetFile,
    split: NDArray[np.int64],
    folder: Path,
    name: str,
    bar: Progress,
) -> None:
    config = source.config
    statistics = _Statistics(config.channels)
    for position, part in enumerate(WELL_SPLITS):
        samples = np.flatnonzero(split == position)
        if not len(samples):
            continue
        target = folder / "data" / part / f"{name}.hdf5"
        target.parent.mkdir(parents=True)
        with NewFile(target) as file:
            _write_header(file, config, name, len(samples))
            _write_scalars(file, source, samples)
            fields = _create_fields(file, config, len(samples))
            for row, sample in enumerate(samples):
                trajectories = _trajectories(source, int(sample))
                start = row * config.num_realizations
                for channel, field in enumerate(fields):
                    field[start : start + config.num_realizations] = trajectories[:, :, channel]
                file.check()
                if part == "train":
                    statistics.add(trajectories)
                bar.update(1)
    with (folder / "stats.yaml").open("w") as text:
        yaml.safe_dump(statistics.table(), text, sort_keys=False)


def _trajectories(source: DatasetFile, sample: int) -> NDArray[np.float32]:
    """Return all realizations of a sample, beginning with u_0: [M, 1 + T', C, H, W]."""
    later = source.trajectory(sample)
    first = np.broadcast_to(source.initial(sample), (len(later), 1, *later.shape[2:]))
    return np.concatenate([first, later], axis=1)


def _names(config: GenerationConfig) -> list[str]:
    return [f"channel_{channel}" for channel in range(config.channels)]


def _write_header(file: h5py.File, config: GenerationConfig, name: str, samples: int) -> None:
    trajectories = samples * config.num_realizations
    attributes: dict[str, Any] = {
        "dataset_name": name,
        "grid_type": "cartesian",
        "n_spatial_dims": 2,
        "n_trajectories": trajectories,
        "simulation_parameters": list(config.space.names),
        "spinlock_configuration": config.to_json(),
    }
    file.attrs.update(attributes)
    dimensions = file.create_group("dimensions")
    # Order of the axes of the arrays: rows are y.
    dimensions.attrs["spatial_dims"] = ["y", "x"]
    pixels = np.arange(config.grid_size, dtype=np.float32)
    times = np.array([0, *config.stored_steps], dtype=np.float32)
    for key, values, unit in (
        ("time", times, "step"),
        ("y", pixels, "pixel"),
        ("x", pixels, "pixel"),
    ):
        dimensions[key] = values
        dimensions[key].attrs.update({"sample_varying": False, "unit": unit})
    conditions = file.create_group("boundary_conditions")
    edges = np.zeros(config.grid_size, dtype=bool)
    edges[[0, -1]] = True
    for axis in ("y", "x"):
        group = conditions.create_group(f"{axis}_periodic")
        group["mask"] = edges
        group.attrs.update(
            {
                "associated_dims": [axis],
                "associated_fields": _names(config),
                "bc_type": "PERIODIC",
                "sample_varying": False,
                "time_varying": False,
            }
        )


def _write_scalars(file: h5py.File, source: DatasetFile, samples: NDArray[np.int64]) -> None:
    """Write the parameters as scalars, and the identifiers of trajectories in a separate group.

    A model that is conditioned on the scalars must not learn from an index which sample it sees.
    """
    config, values = source.config, source.parameter_values()[samples]
    scalars, choices = file.create_group("scalars"), {}
    scalars.attrs["field_names"] = list(config.space.names)
    for axis, allowed in config.axes.items():
        column = values[axis]
        if column.dtype.kind == "S" and isinstance(allowed, tuple):
            choices[axis] = list(allowed)
            column = _positions(column, choices[axis])
        # WellDataset joins all scalars in one tensor.
        scalars[axis] = np.repeat(column, config.num_realizations).astype(np.float64)
        scalars[axis].attrs.update({"time_varying": False, "sample_varying": True})
        if 0 < len(choices.get(axis, ())) <= schema.MAX_NAMES:
            scalars[axis].attrs["choices"] = choices[axis]
    origin = file.create_group(ORIGIN)
    variants = list(config.mixture.names)
    columns = {
        "sample": samples,
        "operator": samples // config.probes_per_operator,
        "initial_condition": _positions(source.column(schema.IC_TYPES)[samples], variants),
    }
    for name, indices in columns.items():
        origin[name] = np.repeat(indices, config.num_realizations)
    origin["initial_condition"].attrs["choices"] = variants
    origin["realization"] = np.tile(np.arange(config.num_realizations), len(samples))


def _positions(labels: NDArray[np.bytes_], choices: list[str]) -> NDArray[np.int64]:
    matches = labels[:, None] == encoded(tuple(choices))
    if not matches.any(axis=1).all():
        unknown = labels[~matches.any(axis=1)][0]
        raise DatasetError(f"the file holds a label that its configuration lacks: {unknown!r}")
    return np.asarray(matches.argmax(axis=1))


def _create_fields(file: h5py.File, config: GenerationConfig, samples: int) -> list[h5py.Dataset]:
    grid = (config.grid_size, config.grid_size)
    shape = (samples * config.num_realizations, 1 + len(config.stored_steps), *grid)
    scalar = file.create_group("t0_fields")
    scalar.attrs["field_names"] = _names(config)
    for rank in (1, 2):
        file.create_group(f"t{rank}_fields").attrs["field_names"] = np.array([], dtype="S1")
    fields = []
    for name in _names(config):
        field = scalar.create_dataset(name, shape, np.float32)
        field.attrs.update(
            {"dim_varying": [True, True], "sample_varying": True, "time_varying": True}
        )
        fields.append(field)
    return fields


class _Statistics:
    """Moments of each channel, and of its differences between timesteps, over trajectories."""

    def __init__(self, channels: int) -> None:
        self._count = np.zeros(2)
        self._sums = np.zeros((2, 2, channels))

    def add(self, trajectories: NDArray[np.float32]) -> None:
        """Add trajectories [M, T, C, H, W]."""
        fields = trajectories.astype(np.float64)
        for kind, values in enumerate((fields, np.diff(fields, axis=1))):
            axes = (0, 1, 3, 4)
            self._count[kind] += values[:, :, 0].size
            self._sums[kind, 0] += values.sum(axis=axes)
            self._sums[kind, 1] += np.square(values).sum(axis=axes)

    def table(self) -> dict[str, dict[str, float]]:
        """Return statistic -> field -> value, the content of The Well's stats.yaml."""
        moments = self._sums / np.maximum(self._count, 1)[:, None, None]
        found = {}
        for suffix, (mean, square) in zip(("", "_delta"), moments, strict=True):
            found[f"mean{suffix}"] = mean
            found[f"std{suffix}"] = np.sqrt(np.maximum(square - np.square(mean), 0))
            found[f"rms{suffix}"] = np.sqrt(square)
        return {
            statistic: {f"channel_{c}": float(value) for c, value in enumerate(values)}
            for statistic, values in found.items()
        }
