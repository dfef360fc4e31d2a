"""Fills the tables of docs/features.md, docs/data_format.md and docs/dynamics.md from the code.

    python -m scripts.fill_tables

Each table stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``. The rest of the
pages is written by hand. A test checks that the tables in the repository are up to date.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from spinlock.checks.trajectory_regimes import RULES
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.operator_axes import BUILTIN_AXES
from spinlock.configuration.parameter_axes import describe_axis
from spinlock.configuration.parameter_space import PARAMETER_NAMES
from spinlock.features import FEATURES
from spinlock.features.response import RESPONSE_FEATURES
from spinlock.storage import schema
from spinlock.storage.dimensions import dataset_scales, scale_name
from spinlock.storage.schema import DatasetSpec, dataset_specs
from spinlock.storage.token_file import TOKEN_COLUMNS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "features.md", DOCS / "data_format.md", DOCS / "dynamics.md")

# The baseline with several timesteps, so that every dimension appears in the tables.
CONFIG = GenerationConfig(10_000, num_timesteps=8)
# Symbols for the sizes of dimensions. The number of columns of a dataset is a plain number, unless
# it depends on the number of channels or timesteps.
SYMBOLS = {
    "sample": "N",
    "operator": "O",
    "realization": "M",
    "timestep": "T",
    "channel": "C",
    "y": "H",
    "x": "W",
}
# The timesteps of the outputs are the stored ones.
OWN_SYMBOLS = {schema.OUTPUTS: {"timestep": "T'"}}
COLUMN_COUNTS = {schema.RESPONSES: "13 + C", schema.DIVERGENCE: "T"}
PARAMETER_GROUPS = {
    "architecture": PARAMETER_NAMES[:5],
    "stochastic": PARAMETER_NAMES[5:10],
    "operator": PARAMETER_NAMES[10:12],
    "evolution": PARAMETER_NAMES[12:],
}
UNITS = {
    "schedule_period": "steps",
    "spatial_correlation": "fraction of the grid",
    "grid_size": "pixels",
    "kernel_size": "pixels",
    "noise_scale": "unit of the field",
    "diffusion": "pixels²/step",
    "velocity_x": "pixels/step",
    "velocity_y": "pixels/step",
    "growth": "1/step",
}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown, with bars inside cells escaped."""
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def feature_table(group: str) -> str:
    """Format the registry rows of one group of features."""
    temporal = group == "temporal"
    head = ["name", "formula", "unit", "range", "exponent"]
    head += ["min T", "static", "reference"] if temporal else ["reference"]
    rows = []
    for row in (*FEATURES, *RESPONSE_FEATURES):
        if row.group != group:
            continue
        cells = [f"`{row.name}`", row.formula, row.unit, row.range]
        cells.append(f"{row.exponent}{', +c' if row.shifts else ''}{', lg' * row.logarithmic}")
        if temporal:
            static = row.static if isinstance(row.static, str) else f"{row.static:g}"
            cells += [str(row.min_timesteps), static]
        rows.append([*cells, row.reference])
    return markdown(head, rows)


def shape_text(spec: DatasetSpec, chunk: bool = False) -> str:
    """Format the shape of a dataset, or of its chunks, with symbols for the dimensions."""
    whole = (0, *spec.shape)
    sizes = (1, *(spec.chunk or ())) if chunk else whole
    known = SYMBOLS | OWN_SYMBOLS.get(spec.name, {})
    symbols = [
        known.get(dimension, str(full)) if size == full else str(size)
        for dimension, size, full in zip(spec.dims, sizes, whole, strict=True)
    ]
    if spec.name in COLUMN_COUNTS:
        symbols[-1] = COLUMN_COUNTS[spec.name]
    return f"[{', '.join(symbols)}]"


def type_text(dtype: np.dtype[np.generic]) -> str:
    """Format the type of a dataset."""
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return f"UTF-8, {text.length} bytes"
    return dtype.name


def listed_specs() -> list[DatasetSpec]:
    """Return the datasets of a file, where one stands for the columns of all parameters."""
    first, *others = schema.value_names(CONFIG)
    any_axis = {"name": f"{schema.VALUES}/<axis>", "names": (), "description": "value on the axis"}
    return [
        dataclasses.replace(spec, **any_axis) if spec.name == first else spec
        for spec in dataset_specs(CONFIG)
        if spec.name not in others
    ]


def listed_type(spec: DatasetSpec) -> str:
    """Format the type of a listed dataset."""
    return "see Parameters" if spec.name.startswith(schema.VALUES) else type_text(spec.dtype)


def tree() -> str:
    """Format the groups and datasets of a file as an indented tree."""
    specs = listed_specs()
    roots = list(dict.fromkeys(spec.name.partition("/")[0] for spec in specs))
    lines: list[str] = []
    seen: set[str] = set()
    # Groups in the order of their first datasets, datasets of a group together.
    for spec in sorted(specs, key=lambda spec: roots.index(spec.name.partition("/")[0])):
        *groups, leaf = spec.name.split("/")
        for depth, group in enumerate(groups):
            path = "/".join(groups[: depth + 1])
            if path not in seen:
                seen.add(path)
                lines.append(f"{'    ' * depth}{group}/")
        name = f"{'    ' * len(groups)}{leaf}"
        lines.append(f"{name:<36}{shape_text(spec):<24}{listed_type(spec)}")
    return "\n".join(["```", *lines, "```"])


def dataset_table() -> str:
    """Format the datasets of a file."""
    rows = [
        (
            f"`{spec.name}`",
            shape_text(spec),
            listed_type(spec),
            ", ".join(spec.dims),
            "" if spec.chunk is None else shape_text(spec, chunk=True),
            spec.description,
        )
        for spec in listed_specs()
    ]
    return markdown(("dataset", "shape", "type", "dimensions", "chunk", "content"), rows)


def text_table() -> str:
    """Format the values of the text columns."""
    rows = [
        (f"`{spec.name}`", ", ".join(f"`{value}`" for value in spec.names))
        for spec in listed_specs()
        if h5py.check_string_dtype(spec.dtype) is not None and spec.names
    ]
    return markdown(("dataset", "values"), rows)


def parameter_table() -> str:
    """Format the axes of the parameter space."""
    names = zip(CONFIG.space.names, schema.value_names(CONFIG), strict=True)
    specs = {spec.name: spec.dtype for spec in dataset_specs(CONFIG)}
    stored = {axis: specs[name] for axis, name in names}
    rows = []
    for group, names in PARAMETER_GROUPS.items():
        for name in names:
            values = describe_axis(getattr(CONFIG.parameter_space, name))
            rows.append((f"`{name}`", group, type_text(stored[name]), UNITS.get(name, "1"), values))
    return markdown(("axis", "group", "type", "unit", "values (baseline)"), rows)


def transport_table() -> str:
    """Format the axes that transport operators add to the parameter space."""
    rows = [
        (f"`{name}`", UNITS[name], describe_axis(axis))
        for name, axis in BUILTIN_AXES["transport"].items()
    ]
    return markdown(("axis", "unit", "values (default)"), rows)


def scale_table() -> str:
    """Format the dimension scales of a file."""
    rows = []
    for scale in dataset_scales(CONFIG).values():
        symbol = SYMBOLS.get(scale.dimension, str(scale.size))
        if scale.name == scale_name(schema.OUTPUTS, "timestep"):
            symbol = OWN_SYMBOLS[schema.OUTPUTS]["timestep"]
        for name, count in COLUMN_COUNTS.items():
            symbol = count if scale.name == scale_name(name, "feature") else symbol
        kind = "" if not scale.values else "text" if isinstance(scale.values[0], str) else "int64"
        rows.append((f"`{scale.name}`", f"[{symbol}]", kind, scale.description))
    return markdown(("scale", "length", "values", "along the dimension"), rows)


def attribute_table() -> str:
    """Format the root attributes of a file."""
    rows = [(f"`{name}`", content) for name, content in schema.ROOT_ATTRIBUTES.items()]
    return markdown(("attribute", "content"), rows)


def token_table() -> str:
    """Format the datasets of a token file."""
    rows = [
        (
            f"`{name}`",
            " or ".join(f"[{', '.join(dims)}]" for dims in column.shapes),
            np.dtype(column.dtype).name,
            column.description,
        )
        for name, column in TOKEN_COLUMNS.items()
    ]
    return markdown(("dataset", "shape", "type", "content"), rows)


def regime_table() -> str:
    """Format the rules of the regimes of trajectories."""
    return markdown(("regime", "rule"), list(RULES.items()))


TABLES: dict[str, Callable[[], str]] = {
    "spatial features": lambda: feature_table("spatial"),
    "spectral features": lambda: feature_table("spectral"),
    "temporal features": lambda: feature_table("temporal"),
    "response features": lambda: feature_table("response"),
    "transport features": lambda: feature_table("transport"),
    "noise features": lambda: feature_table("noise"),
    "divergence features": lambda: feature_table("divergence"),
    "tree": tree,
    "datasets": dataset_table,
    "texts": text_table,
    "parameters": parameter_table,
    "transport axes": transport_table,
    "dimension scales": scale_table,
    "root attributes": attribute_table,
    "token file": token_table,
    "regimes": regime_table,
}
_TABLE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """Return the text of a page with up-to-date tables."""
    return _TABLE.sub(
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}",
        page,
    )


def main() -> None:
    """Fill the tables of all pages in place."""
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
