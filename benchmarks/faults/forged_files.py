"""Changes through HDF5, which a stranger could make: attributes, types, sizes, links, values."""

import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import SpinlockError
from spinlock.storage import schema
from tests.helpers import reseal
from tests.storage import forgeries

#: A change of an open file; the victims are files of the user's that it may refer to.
Forgery = Callable[[h5py.File, forgeries.Victims], object]

# Texts and values that no attribute should have.
_TEXTS: dict[str, Any] = {
    "deep JSON": "[" * 30_000 + "]" * 30_000,
    "5,000 digits": '{"a": ' + "9" * 5000 + "}",
    "nothing": "",
    "control characters": "1.3\x1b[31m\x07\r",
    "text that is not UTF-8": np.bytes_(b"\xff\xfe\x80"),
    "NUL": np.bytes_(b"1\x002"),
    "long": "x" * 60_000,
    "array": np.arange(4),
    "array of text": ["1.3", "1.3"],
    "number": 1.3,
    "empty": h5py.Empty("f4"),
    "NaN in JSON": '{"a": NaN}',
    "null": "null",
    "surrogate": '"\\ud800"',
}
_ROOT = ("schema_version", "configuration", "fingerprint", "digest", *schema.PROVENANCE)
_ROOT += ("design_quality", "run_summary", "attributes_digest")
# Numbers, texts and structures for the settings of a stored configuration.
_SETTINGS: tuple[Any, ...] = (
    *(2**40, 10**30, -1, 0, 1e308, float("nan"), True, None, "", "\x1b[31m", [], {}),
    *([[]], {"class_path": "os.system"}, "9" * 5000, [1, 2], {"low": 1}, 10**7),
)


def forgeries_of(
    file: h5py.File, config: GenerationConfig, seed: int, settings: int
) -> dict[str, Forgery]:
    """Return forgeries of a dataset file by name.

    Args:
        file: Intact file.
        config: Configuration of the file.
        seed: Seed of the choices.
        settings: Number of changed settings of the stored configuration.
    """
    draws = random.Random(seed)
    found: dict[str, Forgery] = {}
    for number, (kind, value) in enumerate(_TEXTS.items()):
        for name in (_ROOT[number % len(_ROOT)], draws.choice(_ROOT)):
            found[f"{kind} as {name}"] = _attribute("/", name, value)
    names = [spec.name for spec in schema.dataset_specs(config)]
    for kind, change in _OBJECTS.items():
        for name in (draws.choice(names), draws.choice((schema.INPUTS, schema.DIGESTS))):
            found[f"{kind}: {name}"] = _of(change, name)
    for name in ("parameters", "features/sdf", "metadata"):
        found[f"a dataset for the group {name}"] = _of(_dataset_for_group, name)
        found[f"a link to itself for the group {name}"] = _of(_loop, name)
    for kind, value in {"2^40": 2**40, "-1": -1, "0": 0, "largest": 2**62}.items():
        for axis in ("num_layers", "base_channels", "grid_size", "kernel_size"):
            name = f"{schema.VALUES}/{axis}"
            found[f"{kind} as {name}, sealed"] = _value(name, value, config)
    for name in (schema.PARAMS, schema.PER_TIMESTEP, schema.INPUTS, f"{schema.VALUES}/alpha"):
        for value in (np.nan, np.inf, 1e38):
            found[f"{value} in {name}, sealed"] = _value(name, value, config)
    for label in (b"unknown", b"\x1b[31m", b"\xff\xfe"):
        found[f"label {label!r}, sealed"] = _value(schema.IC_TYPES, label, config)
    found["operators out of order, sealed"] = _value(schema.OPERATOR_INDEX, 2**40, config)
    paths = sorted(_leaves(json.loads(config.to_json())), key=str)
    for number in range(settings):
        path = draws.choice(paths)
        value = _SETTINGS[number % len(_SETTINGS)]
        title = f"{number}: {str(value)[:12]!r} as configuration {'.'.join(map(str, path))}"
        found[title] = _setting(path, value, sealed=bool(number % 2))
    return found


def _leaves(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 (JSON)
    """Return the paths to all values in JSON, sections included."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    found = []
    for key, value in pairs:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += _leaves(value, (*path, key))
    return found


def _setting(path: tuple[Any, ...], value: object, *, sealed: bool) -> Forgery:
    def change(file: h5py.File, _: object) -> None:
        configuration = json.loads(file.attrs["configuration"])
        holder = configuration
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        text = json.dumps(configuration)
        file.attrs["configuration"] = text
        if sealed:
            try:
                forged = GenerationConfig.from_json(text)
                file.attrs["fingerprint"] = forged.fingerprint
                reseal(file, forged)
            except (SpinlockError, KeyError, ValueError, MemoryError, OverflowError, TypeError):
                # No digest of it can agree; the file stays as it is.
                return

    return change


def _attribute(holder: str, name: str, value: object) -> Forgery:
    def change(file: h5py.File, _: object) -> None:
        file[holder].attrs[name] = value

    return change


def _of(change: Callable[[h5py.File, str, forgeries.Victims], object], name: str) -> Forgery:
    return lambda file, victims: change(file, name, victims)


def _value(name: str, value: object, config: GenerationConfig) -> Forgery:
    """Change one value, and let every digest agree with it."""

    def change(file: h5py.File, _: object) -> None:
        values = file[name][...]
        row = len(values) // 2
        values[(row, *(0,) * (values.ndim - 1))] = value
        file[name][...] = values
        reseal(file, config)

    return change


def _missing(file: h5py.File, name: str, _: object) -> None:
    del file[name]


def _group(file: h5py.File, name: str, _: object) -> None:
    del file[name]
    file.create_group(name)


def _dataset_for_group(file: h5py.File, name: str, _: object) -> None:
    del file[name]
    file[name] = np.arange(3)


def _loop(file: h5py.File, name: str, _: object) -> None:
    del file[name]
    file[name] = h5py.SoftLink(f"/{name}")


def _group_in_itself(file: h5py.File, name: str, _: object) -> None:
    parent = name.rpartition("/")[0] or "/"
    file[parent]["again"] = file["/"]


def _external_link(file: h5py.File, name: str, victims: forgeries.Victims) -> None:
    forgeries.external_link(name)(file, victims)


def _external_storage(file: h5py.File, name: str, victims: forgeries.Victims) -> None:
    forgeries.external_storage(name)(file, victims)


def _virtual(file: h5py.File, name: str, victims: forgeries.Victims) -> None:
    forgeries.virtual(name)(file, victims)


def _fifo_link(file: h5py.File, name: str, victims: forgeries.Victims) -> None:
    import os

    path = victims.folder / f"fifo-{len(os.listdir(victims.folder))}"
    os.mkfifo(path)
    del file[name]
    file[name] = h5py.ExternalLink(str(path), f"/{name}")


def _renewed(create: Callable[[h5py.File, str, h5py.Dataset], object]) -> Any:  # noqa: ANN401
    def change(file: h5py.File, name: str, _: object) -> None:
        old = file[name]
        attributes = dict(old.attrs)
        file.move(name, "spare")
        create(file, name, file["spare"])
        file[name].attrs.update(attributes)
        del file["spare"]

    return change


def _many_rows(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    shape = (10**7, *old.shape[1:])
    file.create_dataset(name, shape, old.dtype, chunks=(1, *old.shape[1:]), compression="gzip")


def _huge(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    shape = (2**40, *old.shape[1:])
    file.create_dataset(name, shape, old.dtype, chunks=(1, *old.shape[1:]))


def _large_chunks(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    row = max(1, int(np.prod(old.shape[1:], dtype=np.int64)) * old.dtype.itemsize)
    chunk = (max(1, 2**30 // row), *old.shape[1:])
    unlimited = (None, *old.shape[1:])
    data = file.create_dataset(name, old.shape, old.dtype, chunks=chunk, maxshape=unlimited)
    data.id.set_extent(old.shape)


def _doubles(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file.create_dataset(name, old.shape, "<f8")


def _sequences(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file.create_dataset(name, old.shape, h5py.vlen_dtype(np.float32))


def _references(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file.create_dataset(name, old.shape, h5py.ref_dtype)


def _scalar(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    file.create_dataset(name, (), old.dtype)


def _bomb(file: h5py.File, name: str, old: h5py.Dataset) -> None:
    """Chunks of the right shape, the first of which inflates to 1 GiB."""
    chunks = (1, *old.shape[1:])
    data = file.create_dataset(name, old.shape, old.dtype, chunks=chunks, compression="gzip")
    data[...] = old[...]
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 24)
    packed = b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    data.id.write_direct_chunk((0,) * len(chunks), packed)


_OBJECTS: dict[str, Callable[[h5py.File, str, forgeries.Victims], object]] = {
    "missing": _missing,
    "a group": _group,
    "a link to itself": _loop,
    "a group that holds itself": _group_in_itself,
    "an external link": _external_link,
    "external storage": _external_storage,
    "a virtual dataset": _virtual,
    "an external link to a FIFO": _fifo_link,
    "10^7 rows": _renewed(_many_rows),
    "2^40 rows": _renewed(_huge),
    "chunks of 1 GiB": _renewed(_large_chunks),
    "a chunk that inflates to 1 GiB": _renewed(_bomb),
    "doubles": _renewed(_doubles),
    "sequences": _renewed(_sequences),
    "references": _renewed(_references),
    "a scalar": _renewed(_scalar),
}
