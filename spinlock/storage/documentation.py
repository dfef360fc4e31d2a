"""docs/data_format.md, generated from the schema: ``python -m spinlock.storage.documentation``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.parameter_space import PARAMETER_GROUPS, PARAMETER_NAMES
from spinlock.storage import schema
from spinlock.storage.schema import DatasetSpec, dataset_specs

# Sizes by the name of a dimension; those of columns are numbers.
_SYMBOLS = {
    "sample": "N",
    "realization": "M",
    "stored timestep": "T'",
    "timestep": "T",
    "channel": "C",
    "y": "H",
    "x": "W",
}
_KINDS = {
    "IntegerRange": "integer",
    "UniformRange": "uniform",
    "LogUniformRange": "log-uniform",
}
_UNITS = {
    "schedule_period": "steps",
    "spatial_correlation": "fraction of the grid",
    "grid_size": "pixels",
    "kernel_size": "pixels",
    "noise_scale": "unit of the field",
    "dt": "1",
}
_TRAJECTORIES = GenerationConfig(10_000, num_timesteps=8)

_INTRODUCTION = f"""\
# The dataset file, schema {schema.SCHEMA_VERSION}

One HDF5 file that any HDF5 library reads without plugins. This page is generated from the schema
that writer, reader and `spinlock check` share (`spinlock.storage.schema`); do not edit it, run
`python -m spinlock.storage.documentation`.

N samples, M noise realizations, T timesteps of which T' are stored, C channels, a periodic grid of
H = W pixels. Sample i is operator i // P under its probe i % P. Row i of every dataset belongs to
sample i. All fields are dimensionless; lengths are pixels, times are steps, frequencies
cycles/pixel and cycles/step. The first spatial axis is y (rows), the second x (columns)."""

_FIELDS = """\
- With `storage: {fields: none}` neither `inputs/fields` nor `outputs/fields` exist. At T = 1 the
  outputs have no dimension of timesteps. `storage.fields` says which of u_1 ... u_T are stored:
  `all` (T' = T), `last` (T' = 1) or `{every: k}` (steps k, 2k, ...; T' = floor(T / k)).
- A chunk holds one channel of a sample with all its realizations and timesteps; that of
  `inputs/fields` a whole sample. Chunks pass HDF5's byte shuffle and deflate filters, or none with
  `storage: {compression: none}`.
- Temporal features are NaN in columns whose feature needs more timesteps than T (at T = 1 all of
  them are); nothing else is NaN. docs/features.md describes every column.
- A configuration with features of the user's own adds the same four arrays under
  `features/custom/`."""

_DIGESTS = """\
## Digests

All digests are SHA-256, written as hexadecimal text. Compression does not enter any of them.

- `metadata/digests` covers one sample: for each dataset in the order of the table above (except
  the digests) its name, then the row's bytes (little-endian, C order); for chunked datasets, the
  SHA-256 of the concatenated SHA-256 of each chunk's uncompressed values in storage order.
- The attribute `sha256` of a dataset that is not chunked covers the bytes of all its rows.
- The root attribute `digest` covers the column `metadata/digests`.
- The root attribute `attributes_digest` covers the other root attributes, and the attributes of the
  datasets.

Attributes, groups and datasets that you add are yours: no digest covers them, and they are kept
when the file is extended or its features are computed again. (A dataset of yours that has a row for
each sample must be moved to another file before the file is extended.)

What is verified, and when:

- `setup()` of the data module verifies the attributes and every column that it reads.
- Extending a file, and `spinlock extract-features`, verify the whole old file before anything is
  computed, and every sample of the new file before it takes the old one's place.
- `spinlock check FILE` verifies all columns and attributes, and the fields of up to 512 samples;
  `spinlock check --full FILE` verifies everything.

Datasets must be stored in the file itself. Links, external storage and virtual datasets are
refused, since reading through them would read other files ([security.md](security.md)).

A shard has the same layout. Its root attribute `samples` holds its first sample and one past its
last one."""

_READING = """\
## Reading

h5py; text comes as bytes, `astype(str)` decodes it:

```python
import h5py

with h5py.File("data/quickstart.h5") as file:
    initial = file["inputs/fields"][:8]  # [8, C, H, W]
    fields = file["outputs/fields"][:8]  # [8, M, C, H, W] at T = 1
    features = file["features/sdf/per_timestep/features"]
    names = list(features.attrs["names"])
    final = features[:, -1]  # [N, 46], features of u_T
    ic_types = file["metadata/ic_types"][:].astype(str)
    values = file["parameters/values"][:]  # values["noise_scale"], values["num_layers"], ...
    configuration = file.attrs["configuration"]  # JSON
```

PyTorch, without Spinlock; a file is opened once in each worker process:

```python
import h5py
import torch
from torch.utils.data import DataLoader, Dataset


class Fields(Dataset):
    def __init__(self, path):
        self.path, self.file = path, None
        with h5py.File(path) as file:
            self.length = len(file["inputs/fields"])

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if self.file is None:
            self.file = h5py.File(self.path)
        read = (self.file[f"{name}/fields"][index] for name in ("inputs", "outputs"))
        return tuple(map(torch.from_numpy, read))


batch = next(iter(DataLoader(Fields("data/quickstart.h5"), batch_size=4)))
```

The data module serves the same with splits, scaling and shuffling:
`SpinlockDataModule(path, read_info(path).config)`.

pandas:

```python
import h5py
import pandas as pd

with h5py.File("data/quickstart.h5") as file:
    features = file["features/sdf/per_timestep/features"]
    table = pd.DataFrame(features[:, -1], columns=list(features.attrs["names"]))
    values = pd.DataFrame(file["parameters/values"][:])
    table["variant"] = file["metadata/ic_types"][:].astype(str)
text = values.select_dtypes(object).columns
values[text] = values[text].map(bytes.decode)
table = table.join(values)
spread = table.groupby("variant")["spatial_std"].describe()
```

MATLAB reads the dimensions in reverse order, counts from 1 and needs no toolbox:

```matlab
file = 'data/quickstart.h5';
info = h5info(file, '/inputs/fields');
shape = info.Dataspace.Size;                               % [W H C N]
u0 = h5read(file, '/inputs/fields', [1 1 1 8], [shape(1:3) 1]);   % sample 7, W x H x C
imagesc(u0(:, :, 1)'); axis image; colorbar                % transposed: rows are y
features = h5read(file, '/features/sdf/per_timestep/features');   % 46 x T x N
names = h5readatt(file, '/features/sdf/per_timestep/features', 'names');
ic_types = string(h5read(file, '/metadata/ic_types'));
values = h5read(file, '/parameters/values');               % struct, values.noise_scale ...
configuration = jsondecode(string(h5readatt(file, '/', 'configuration')));
```"""


def data_format_markdown() -> str:
    """The page, as Markdown."""
    specs = dataset_specs(_TRAJECTORIES)
    sections = [
        _INTRODUCTION,
        "## Tree",
        f"```\n{_tree(specs)}\n```",
        _FIELDS,
        "## Datasets",
        _dataset_table(specs),
        "Each dataset has the attributes `description` (as above) and `dimensions` (names of its "
        "dimensions); where the last dimension is columns, or text takes one of some values, "
        "`names` lists them.",
        "## Texts",
        _text_table(specs),
        "The values are those of the configuration's mixture and choices; here the baseline's. "
        f"Noise regimes: {_spec(specs, schema.NOISE_REGIMES).description}.",
        "## Parameters",
        _parameter_table(),
        "`parameters/params` holds the same as points of the unit cube, columns in this order. "
        "Integers and choices have equal shares of [0, 1).",
        "## Root attributes",
        _table(
            ("attribute", "content"),
            [(f"`{name}`", text) for name, text in schema.ROOT_ATTRIBUTES.items()],
        ),
        _DIGESTS,
        _READING,
    ]
    return "\n\n".join(sections) + "\n"


def _spec(specs: Sequence[DatasetSpec], name: str) -> DatasetSpec:
    return next(spec for spec in specs if spec.name == name)


def _shape(spec: DatasetSpec, sizes: tuple[int, ...] | None = None) -> str:
    """The shape in symbols; of a chunk if its sizes are given."""
    sizes = (0, *spec.shape) if sizes is None else sizes
    entry = (0, *spec.shape)
    symbols = []
    for dim, size, whole in zip(spec.dims, sizes, entry, strict=True):
        symbols.append(_SYMBOLS.get(dim, str(whole)) if size == whole else str(size))
    return f"[{', '.join(symbols)}]"


def _type(dtype: np.dtype[np.generic]) -> str:
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return f"UTF-8, {text.length} bytes"
    return "compound" if dtype.names else dtype.name


def _tree(specs: Sequence[DatasetSpec]) -> str:
    lines: list[str] = []
    seen: set[tuple[str, ...]] = set()
    roots = list(dict.fromkeys(spec.name.partition("/")[0] for spec in specs))
    # Datasets of a group together, in the order of the groups' first ones.
    for spec in sorted(specs, key=lambda spec: roots.index(spec.name.partition("/")[0])):
        *groups, leaf = spec.name.split("/")
        for depth in range(1, len(groups) + 1):
            if (group := tuple(groups[:depth])) not in seen:
                seen.add(group)
                lines.append(f"{'    ' * (depth - 1)}{group[-1]}/")
        name = f"{'    ' * len(groups)}{leaf}"
        lines.append(f"{name:<36}{_shape(spec):<24}{_type(spec.dtype)}")
    return "\n".join(lines)


def _dataset_table(specs: Sequence[DatasetSpec]) -> str:
    rows = []
    for spec in specs:
        chunk = "" if spec.chunk is None else _shape(spec, (1, *spec.chunk))
        rows.append(
            (
                f"`{spec.name}`",
                _shape(spec),
                _type(spec.dtype),
                ", ".join(spec.dims),
                chunk,
                spec.description,
            )
        )
    return _table(("dataset", "shape", "type", "dimensions", "chunk", "content"), rows)


def _text_table(specs: Sequence[DatasetSpec]) -> str:
    rows = [
        (f"`{spec.name}`", ", ".join(f"`{value}`" for value in spec.names))
        for spec in specs
        if h5py.check_string_dtype(spec.dtype) is not None and spec.names
    ]
    return _table(("dataset", "values"), rows)


def _parameter_table() -> str:
    space = _TRAJECTORIES.parameter_space
    stored = _spec(dataset_specs(_TRAJECTORIES), schema.VALUES).dtype
    rows = []
    for name in PARAMETER_NAMES:
        group = next(group for group, names in PARAMETER_GROUPS.items() if name in names)
        axis = getattr(space, name)
        if isinstance(axis, tuple):
            values = ", ".join(map(str, axis))
        else:
            values = f"{_KINDS[type(axis).__name__]} {axis.low:g} to {axis.high:g}"
        rows.append((f"`{name}`", group, _type(stored[name]), _UNITS.get(name, "1"), values))
    return _table(("axis", "group", "type", "unit", "values (baseline)"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str]) -> None:
    """Write the page to the path given, ``docs/data_format.md`` by default."""
    path = Path(arguments[0] if arguments else "docs/data_format.md")
    path.write_text(data_format_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
