"""Integrity: the file holds what its schema promises, undamaged and without contradiction."""

import json
from collections.abc import Callable, Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.checks.check_results import CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.errors import DatasetError
from spinlock.storage import schema
from spinlock.storage.attributes import is_plain, read_attribute
from spinlock.storage.chunks import combined_digest, sample_digests
from spinlock.storage.consistency import families_differ, operators_differ, values_differ
from spinlock.storage.layout import storage_problem
from spinlock.storage.seal import attributes_digest, column_digest

GROUP = "integrity"
# Rows of columns in memory at a time while digests are computed.
_ROWS_AT_A_TIME = 256


def integrity_rows(source: CheckSource, fields: FieldStatistics) -> Iterator[CheckRow]:
    """The rows of the group; `spinlock.checks.dataset_check` has found the file readable before."""
    yield from _schema_rows(source)
    yield _claim(
        "root attributes", "root attributes are there, and JSON where they should be", "0 wrong"
    ).count(_bad_root_attributes(source.file))
    stored = str(_readable(source.file, "fingerprint"))
    expected = source.config.fingerprint
    yield _claim(
        "fingerprint", "the fingerprint is that of the stored configuration", expected[:16]
    ).result(stored[:16], None, stored == expected)
    yield from _consistency_rows(source)
    yield _finite_row(source, fields)
    yield _claim(
        "readable", "the stored bytes of the fields can be read", "0 samples damaged"
    ).count([f"sample {row} ({reason})" for row, reason in sorted(fields.damaged.items())])
    yield _sample_digest_row(source, fields)
    yield _file_digest_row(source)
    yield _column_digest_row(source)
    yield _attributes_digest_row(source)


def _claim(name: str, text: str, target: str) -> Claim:
    return Claim(GROUP, name, text, target)


def _schema_rows(source: CheckSource) -> Iterator[CheckRow]:
    missing, elsewhere, shapes, types, attributes = [], [], [], [], []
    for name, spec in source.specs.items():
        if problem := storage_problem(source.file, name):
            # What a link leads to is not opened.
            elsewhere.append(f"{name} {problem}")
            continue
        data = source.file.get(name)
        if not isinstance(data, h5py.Dataset):
            missing.append(name)
            continue
        if not is_plain(data.id.get_type()):
            types.append(f"{name}: neither numbers nor text")
            continue
        if data.shape != (source.num_samples, *spec.shape):
            shapes.append(f"{name} {data.shape}")
        if data.dtype != spec.dtype:
            types.append(f"{name} {data.dtype}")
        attributes += [f"{name}@{attribute}" for attribute in _bad_attributes(data, spec)]
    yield _claim("datasets", "every promised dataset is there", "0 missing").count(missing)
    yield _claim("local storage", "datasets are stored in the file itself", "0 elsewhere").count(
        elsewhere
    )
    yield _claim("shapes", "datasets have the promised shapes", "0 wrong").count(shapes)
    yield _claim("types", "datasets have the promised element types", "0 wrong").count(types)
    yield _claim(
        "dataset attributes", "datasets describe themselves as the schema does", "0 wrong"
    ).count(attributes)


def _bad_attributes(data: h5py.Dataset, spec: schema.DatasetSpec) -> list[str]:
    expected: dict[str, object] = {"description": spec.description, "dimensions": list(spec.dims)}
    if spec.names:
        expected["names"] = list(spec.names)
    held = {name: _readable(data, name) for name in expected}
    plain = {n: list(v) if isinstance(v, np.ndarray) else v for n, v in held.items()}
    return [name for name, value in expected.items() if plain[name] != value]


def _readable(holder: h5py.HLObject, name: str) -> object:
    """An attribute's value; None if it is missing or cannot be read."""
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


def _consistency_rows(source: CheckSource) -> Iterator[CheckRow]:
    """Columns that say the same thing twice must not contradict each other."""
    yield _mismatches(
        source,
        _claim("values", "parameters/values are those of parameters/params", "0 samples differ"),
        (schema.PARAMS, schema.VALUES),
        lambda s: values_differ(s.column(schema.PARAMS), s.column(schema.VALUES), s.config),
    )
    yield _mismatches(
        source,
        _claim(
            "operator metadata",
            "policy, grid size and noise regime follow from parameters/values",
            "0 samples differ",
        ),
        (schema.VALUES, schema.POLICIES, schema.GRID_SIZES, schema.NOISE_REGIMES),
        _operator_metadata_differ,
    )
    yield _mismatches(
        source,
        _claim("families", "each variant label stands with its family", "0 samples differ"),
        (schema.IC_TYPES, schema.IC_FAMILIES),
        lambda s: families_differ(
            s.column(schema.IC_TYPES), s.column(schema.IC_FAMILIES), s.config
        ),
    )
    yield _mismatches(
        source,
        _claim("operator index", "sample i belongs to operator i // P", "0 samples differ"),
        (schema.OPERATOR_INDEX,),
        lambda s: operators_differ(s.column(schema.OPERATOR_INDEX), s.config),
    )


def _mismatches(
    source: CheckSource,
    claim: Claim,
    needed: tuple[str, ...],
    differ: Callable[[CheckSource], NDArray[np.bool_]],
) -> CheckRow:
    if reason := source.lacks(*needed):
        return claim.not_measurable(reason)
    return claim.count([f"sample {row}" for row in np.flatnonzero(differ(source))])


def _operator_metadata_differ(source: CheckSource) -> NDArray[np.bool_]:
    values = source.column(schema.VALUES)
    names = np.array([name.encode() for name in schema.NOISE_REGIME_NAMES])
    regime = names[np.digitize(values["noise_scale"], schema.NOISE_REGIME_BOUNDS)]
    return np.asarray(
        (source.column(schema.POLICIES) != values["update_policy"])
        | (source.column(schema.GRID_SIZES) != values["grid_size"])
        | (source.column(schema.NOISE_REGIMES) != regime)
    )


def _finite_row(source: CheckSource, fields: FieldStatistics) -> CheckRow:
    claim = _claim("finite fields", "fields hold no NaN and no infinity", "0")
    if reason := source.lacks(schema.INPUTS, schema.OUTPUTS):
        return claim.not_measurable(reason)
    count = sum(fields.not_finite.values())
    where = ", ".join(f"{name} of {number} samples" for name, number in fields.read.items())
    return claim.result(f"{count} in {where}", float(count), count == 0)


def _sample_digest_row(source: CheckSource, fields: FieldStatistics) -> CheckRow:
    claim = _claim(
        "sample digests",
        "what the file holds of a sample has the digest stored with it",
        "0 differ",
    )
    if reason := source.lacks(*source.specs):
        return claim.not_measurable(reason)
    held = source.column(schema.DIGESTS)
    different = [row for row in source.sampled.tolist() if row in fields.damaged]
    whole = [row for row in source.sampled.tolist() if row not in fields.damaged]
    for start in range(0, len(whole), _ROWS_AT_A_TIME):
        rows = whole[start : start + _ROWS_AT_A_TIME]
        digests = _digests(source, fields, rows)
        different += [row for row, digest in zip(rows, digests, strict=True) if held[row] != digest]
    names = [f"sample {row}" for row in sorted(different)]
    row = claim.count(names)
    measured = f"{row.measured} (of {len(source.sampled)} samples read)"
    return claim.result(measured, row.value, row.passed)


def _digests(source: CheckSource, fields: FieldStatistics, rows: list[int]) -> NDArray[np.bytes_]:
    specs = [spec for spec in source.specs.values() if spec.name != schema.DIGESTS]
    columns = {spec.name: source.file[spec.name][rows] for spec in specs if spec.chunk is None}
    entries = {
        spec.name: [fields.digests[row][spec.name] for row in rows]
        for spec in specs
        if spec.chunk is not None
    }
    return sample_digests(specs, columns, entries)


def _file_digest_row(source: CheckSource) -> CheckRow:
    claim = _claim("file digest", "the file's digest is that of its samples' digests", "equal")
    if reason := source.lacks(schema.DIGESTS):
        return claim.not_measurable(reason)
    expected = combined_digest(source.column(schema.DIGESTS))
    stored = str(_readable(source.file, "digest"))
    equal = stored == expected
    return claim.result("equal" if equal else f"stored is {stored[:16]}", None, equal)


def _column_digest_row(source: CheckSource) -> CheckRow:
    claim = _claim("column digests", "each column has the digest stored with it", "0 differ")
    columns = [name for name, spec in source.specs.items() if spec.chunk is None]
    if reason := source.lacks(*columns):
        return claim.not_measurable(reason)
    data = ((name, source.file[name]) for name in columns)
    stored = schema.COLUMN_DIGEST
    return claim.count([name for name, d in data if _readable(d, stored) != column_digest(d)])


def _attributes_digest_row(source: CheckSource) -> CheckRow:
    claim = _claim("attributes digest", "attributes have the digest stored with them", "equal")
    if reason := source.lacks(*source.specs):
        return claim.not_measurable(reason)
    stored = _readable(source.file, "attributes_digest")
    equal = stored == attributes_digest(source.file, source.config)
    return claim.result("equal" if equal else f"stored is {str(stored)[:16]}", None, equal)
