"""Describes the dimension scales of a dataset file, by which other programs name its dimensions.

A scale is a dataset that stands for a dimension of other datasets [1]_. Programs that read
netCDF-4, such as xarray, look for it in the group of a dataset and in the groups above, so scales
that several groups share lie in a group above them. A scale without values only has a length.

.. [1] The HDF Group, "HDF5 Dimension Scale Specification and Design Notes", 2005; Unidata, "NetCDF
   Users Guide: File Format Specifications, The NetCDF-4 Format", section "Dimensions".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import in_a_line
from spinlock.storage import schema
from spinlock.storage.hdf5_access import is_refusal

#: Attributes of a scale: the description, and what HDF5 itself writes.
SCALE_ATTRIBUTES = ("description", "CLASS", "NAME", "REFERENCE_LIST")
#: Attribute of a dataset that refers to its scales.
SCALES_OF_DATASET = "DIMENSION_LIST"

# Largest size of the texts of a scale that are read together; others are read one at a time.
_BYTES_AT_ONCE = 1 << 26
# Name by which netCDF knows a scale without values.
_NO_VALUES = "This is a netCDF dimension but not a netCDF variable. {:9d}"
# Dimension -> description of the scale. The first five lie in the root group, because all groups
# share them. `timestep` lies in `features` and in `outputs`, which may store fewer timesteps. Each
# of the others lies in the group of its dataset.
_SHARED = {
    "sample": "sample",
    "realization": "realization of the noise",
    "channel": "channel of the fields",
    "y": "row of the grid, in pixels",
    "x": "column of the grid, in pixels",
}
_TIMESTEP = "timestep"
_DESCRIPTIONS = {
    **_SHARED,
    _TIMESTEP: "timestep t",
    "operator": "operator",
    "axis": "axis of the parameter space",
    "feature": "name of the feature",
    "quantity": "name of the quantity",
}


@dataclass(frozen=True)
class Scale:
    """A dimension scale of the file.

    Args:
        name: Path in the file, which ends with the name of the dimension.
        size: Length of the dimension.
        values: Numbers or texts along the dimension; default: it has none.
    """

    name: str
    size: int
    values: tuple[int, ...] | tuple[str, ...] = ()

    @property
    def dimension(self) -> str:
        """Name of the dimension."""
        return PurePosixPath(self.name).name

    @property
    def description(self) -> str:
        """Content, as stored in the file."""
        return _DESCRIPTIONS[self.dimension]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements in the file."""
        if not self.values:
            # As the netCDF library writes a dimension without a variable.
            return np.dtype(">f4")
        text = isinstance(self.values[0], str)
        # xarray decodes only texts of variable length, with whichever library it reads them.
        return np.dtype(h5py.string_dtype()) if text else np.dtype(np.int64)


def scale_name(dataset: str, dimension: str) -> str:
    """Return the path of the scale of a dataset's dimension.

    Example:
        >>> scale_name("outputs/fields", "timestep")
        'outputs/timestep'
    """
    if dimension in _SHARED:
        return dimension
    path = PurePosixPath(dataset)
    group = path.parts[0] if dimension == _TIMESTEP else path.parent
    return f"{group}/{dimension}"


def dataset_scales(config: GenerationConfig, samples: range | None = None) -> dict[str, Scale]:
    """Return the scales of a file of this configuration, by path.

    Args:
        config: Configuration of the dataset.
        samples: Samples in the file; default: all samples of the configuration.

    Example:
        >>> dataset_scales(GenerationConfig(4, num_timesteps=3))["outputs/timestep"].values
        (1, 2, 3)
    """
    samples = range(config.num_samples) if samples is None else samples
    found = {}
    for spec in schema.dataset_specs(config):
        sizes = (len(spec.rows(samples)), *spec.shape)
        for dimension, size in zip(spec.dims, sizes, strict=True):
            values: tuple[int, ...] | tuple[str, ...] = ()
            if dimension == _TIMESTEP:
                stored = spec.name == schema.OUTPUTS
                values = tuple(config.stored_steps if stored else range(1, size + 1))
            elif dimension == spec.dims[-1] and spec.shape:
                values = spec.names
            name = scale_name(spec.name, dimension)
            found[name] = Scale(name, size, values)
    return found


def write_scales(
    file: h5py.File, specs: Iterable[schema.DatasetSpec], scales: Iterable[Scale]
) -> None:
    """Write scales and attach them to the datasets of a new file.

    Args:
        file: File that holds the datasets.
        specs: Datasets of the file.
        scales: Scales of all their dimensions.
    """
    scales = tuple(scales)
    for scale in scales:
        data = file.create_dataset(scale.name, (scale.size,), scale.dtype)
        data.make_scale(scale.dimension if scale.values else _NO_VALUES.format(scale.size))
        data.attrs["description"] = scale.description
        if scale.values:
            data[...] = scale.values
    for spec in specs:
        dimensions = file[spec.name].dims
        for place, dimension in enumerate(spec.dims):
            dimensions[place].attach_scale(file[scale_name(spec.name, dimension)])
    for scale in scales:
        # PyTables fails on these back references, and readers of scales do without them.
        file[scale.name].attrs.pop("REFERENCE_LIST", None)


def values_problem(data: h5py.Dataset, scale: Scale) -> str:
    """Describe why a dataset does not have the values of a scale; empty if it has them.

    Args:
        data: Dataset of a file, with the shape and the type of the scale.
        scale: Scale of the configuration.

    Raises:
        OSError: If the system refuses to read the file.
    """
    try:
        equal = _values_equal(data, scale)
    except Exception as error:
        if is_refusal(error):
            raise
        # Damaged bytes can fail in any way.
        return f"cannot be read ({in_a_line(error)})"
    return "" if equal else "does not have the values of the configuration"


def _values_equal(data: h5py.Dataset, scale: Scale) -> bool:
    if scale.dtype.kind != "O":
        return not scale.values or bool(data[...].tolist() == list(scale.values))
    # All texts of a forged scale may refer to one long text, which is at most as long as the file.
    if scale.size * data.file.id.get_filesize() <= _BYTES_AT_ONCE:
        return bool(data[...].tolist() == [str(text).encode() for text in scale.values])
    return all(
        read == str(text).encode() for read, text in zip(_texts(data), scale.values, strict=True)
    )


def _texts(data: h5py.Dataset) -> Iterator[object]:
    """Read the texts of a scale one at a time, without what h5py prepares for each selection."""
    memory, places = h5py.h5s.create_simple((1,)), data.id.get_space()
    kind = h5py.h5t.py_create(data.dtype)
    for place in range(len(data)):
        places.select_hyperslab((place,), (1,))
        text = np.zeros(1, data.dtype)
        data.id.read(memory, places, text, kind)
        yield text[0]
