"""Checks of integrity: the file matches its schema and its digests, columns are consistent."""

import json
from collections.abc import Callable, Iterator
from functools import cache, partial

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, count, count_samples
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import row_blocks
from spinlock.storage import schema
from spinlock.storage.columns import (
    families_differ,
    operator_columns,
    operators_differ,
    values_differ,
)
from spinlock.storage.digests import (
    attributes_digest,
    column_digest,
    combined_digest,
    sample_digests,
)
from spinlock.storage.hdf5_access import read_attribute
from spinlock.storage.verify import wrong_copies

# Kind of a dataset's problem -> name and text of the claim that it contradicts.
_LAYOUT = {
    "missing": ("datasets", "every dataset of the schema exists"),
    "elsewhere": ("local storage", "datasets are stored in the file itself, or in its shards"),
    "shape": ("shapes", "datasets have the shapes of the schema"),
    "type": ("types", "datasets have the element types of the schema"),
    "scale": (
        "dimension scales",
        "dimension scales exist, with the lengths and values of the schema",
    ),
    "attributes": ("dataset attributes", "attributes of datasets match the schema"),
}

_OPERATOR_METADATA = (schema.POLICIES, schema.GRID_SIZES, schema.NOISE_REGIMES)


def integrity_claims(source: CheckSource, fields: FieldStatistics) -> Iterator[Claim]:
    """Yield the claims of the group, except the first one: that the file is readable."""
    problems = cache(partial(_dataset_problems, source))
    for kind, (name, text) in _LAYOUT.items():
        yield Claim(name, text, partial(lambda kind: count(problems()[kind]), kind))
    yield Claim(
        "root attributes",
        "root attributes exist, and are valid JSON where required",
        lambda: count(_bad_root_attributes(source.file)),
    )
    yield Claim(
        "fingerprint",
        "the fingerprint matches the stored configuration",
        lambda: _equal(source, "fingerprint", source.config.fingerprint),
        target="equal",
    )
    yield from _consistency_claims(source)
    yield Claim(
        "finite fields",
        "fields contain no NaN or infinity",
        partial(_finite, fields),
        (schema.INPUTS, schema.OUTPUTS),
    )
    yield Claim(
        "readable",
        "the stored fields can be read and decompressed",
        lambda: count([f"sample {i} ({why})" for i, why in sorted(fields.damaged.items())]),
    )
    yield Claim(
        "sample digests",
        "samples match their stored digests",
        partial(_sample_digests, source, fields),
        tuple(source.specs),
    )
    yield Claim(
        "file digest",
        "the digest of the file matches those of its samples",
        lambda: _equal(source, "digest", combined_digest(source.column(schema.DIGESTS))),
        (schema.DIGESTS,),
        "equal",
    )
    columns = tuple(spec.name for spec in source.columns)
    yield Claim(
        "column digests",
        "columns match their stored digests",
        partial(_column_digests, source, columns),
        columns,
    )
    yield Claim(
        "attributes digest",
        "attributes match their stored digest",
        lambda: _equal(source, "attributes_digest", attributes_digest(source)),
        tuple(source.specs),
        "equal",
    )


def _equal(source: CheckSource, attribute: str, expected: str) -> Measurement:
    stored = _readable(source.file, attribute)
    equal = stored == expected
    return Measurement("equal" if equal else f"stored: {str(stored)[:16]}", None, equal)


def _dataset_problems(source: CheckSource) -> dict[str, list[str]]:
    """Return the problems of the datasets by kind."""
    found: dict[str, list[str]] = {kind: [] for kind in _LAYOUT}
    for name, problem in source.problems.items():
        found[problem.kind].append(f"{name} {problem.text}")
    for name, spec in source.specs.items():
        if name not in source.problems or source.problems[name].kind in ("shape", "type"):
            bad = _bad_attributes(source.file[name], spec)
            found["attributes"] += [f"{name}@{attribute}" for attribute in bad]
    return found


def _bad_attributes(data: h5py.Dataset, spec: schema.DatasetSpec) -> list[str]:
    held = {name: _readable(data, name) for name in spec.attributes}
    plain = {n: list(v) if isinstance(v, np.ndarray) else v for n, v in held.items()}
    return [name for name, value in spec.attributes.items() if plain[name] != value]


def _readable(holder: h5py.HLObject, name: str) -> object:
    """Return the value of an attribute; None if it is missing or cannot be read."""
    try:
        return read_attribute(holder, name)
    except DatasetError:
        return None


def _bad_root_attributes(file: h5py.File) -> list[str]:
    bad = []
    for name in schema.ROOT_ATTRIBUTES:
        if name not in file.attrs:
            bad.append(f"{name} missing")
        elif name in (*schema.PROVENANCE, "design_quality", "run_summary"):
            try:
                json.loads(str(_readable(file, name)))
            except (ValueError, RecursionError):
                bad.append(f"{name} not JSON")
    return bad


def _consistency_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the claims that columns with the same information agree."""
    for name, text, needs, differ in (
        (
            "values",
            "parameters/values match parameters/params",
            (schema.PARAMS, *schema.value_names(source.config)),
            _values_differ,
        ),
        (
            "operator metadata",
            "update policy, grid size and noise regime match parameters/values",
            (*_OPERATOR_METADATA, *schema.value_names(source.config)),
            _operator_metadata_differ,
        ),
        (
            "families",
            "the family of each sample is that of its variant",
            (schema.IC_TYPES, schema.IC_FAMILIES),
            lambda source: families_differ(
                source.column(schema.IC_TYPES), source.column(schema.IC_FAMILIES), source.config
            ),
        ),
        (
            "operator index",
            "sample i has operator i // P, where P is the number of probes per operator",
            (schema.OPERATOR_INDEX,),
            lambda source: operators_differ(source.column(schema.OPERATOR_INDEX), source.config),
        ),
    ):
        yield Claim(name, text, partial(_mismatches, source, differ), needs)


def _mismatches(
    source: CheckSource, differ: Callable[[CheckSource], NDArray[np.bool_]]
) -> Measurement:
    return count_samples(differ(source))


def _values_differ(source: CheckSource) -> NDArray[np.bool_]:
    params = source.column(schema.PARAMS)
    return values_differ(params, source.parameter_values(), source.config)


def _operator_metadata_differ(source: CheckSource) -> NDArray[np.bool_]:
    expected = operator_columns(source.parameter_values())
    return np.asarray(
        np.logical_or.reduce([source.column(name) != expected[name] for name in _OPERATOR_METADATA])
    )


def _finite(fields: FieldStatistics) -> Measurement:
    counts = {name: fields.numbers[name] for name in (schema.INPUTS, schema.OUTPUTS)}
    number = sum(np.nansum(one) for one in counts.values())
    read = (f"{name} of {(~np.isnan(one)).sum()} samples" for name, one in counts.items())
    return Measurement(f"{number:.0f} in {', '.join(read)}", float(number), bool(number == 0))


def _sample_digests(source: CheckSource, fields: FieldStatistics) -> Measurement:
    held = source.column(schema.DIGESTS)
    different = fields.damaged.keys() & set(source.sampled.tolist())
    for block in row_blocks(source.rows):
        if rows := [row for row in block if row in fields.digests]:
            columns = {
                spec.name: source.stored_column(spec.name)[
                    [row // spec.samples_per_row for row in rows if not row % spec.samples_per_row]
                ]
                for spec in source.columns
            }
            entries = {
                spec.name: [fields.digests[row][spec.name] for row in rows]
                for spec in source.fields
            }
            digests = sample_digests(source.specs.values(), rows, columns, entries)
            different |= {row for row, one in zip(rows, digests, strict=True) if held[row] != one}
    found = count([f"sample {row}" for row in sorted(different)])
    return found._replace(text=f"{found.text} (of {len(source.sampled)} samples read)")


def _column_digests(source: CheckSource, names: tuple[str, ...]) -> Measurement:
    stored = {name: _readable(source.file[name], schema.COLUMN_DIGEST) for name in names}
    wrong = [name for name in names if stored[name] != column_digest(source, name)]
    # Nobody reads the copies in shards until the dataset is extended.
    return count(wrong or (wrong_copies(source) if source.full else []))
