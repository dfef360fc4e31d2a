"""Ways in which tests damage a dataset file, with what a refusal names."""

import dataclasses
import json
import os
import re
import zlib

import h5py
import numpy as np

from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.features import custom_feature
from spinlock.storage import schema
from tests.helpers import seal
from tests.storage.sabotage import (
    CONFIG,
    DATASETS,
    FIELDS,
    flip,
    names,
    replace_dataset,
    swap,
    swap_all,
    swap_all_and_seal,
)

RAW = dataclasses.replace(CONFIG, storage=dataclasses.replace(CONFIG.storage, compression="none"))
LONGER = dataclasses.replace(CONFIG, num_samples=16)
OTHER_FEATURES = CustomFeatureConfig(("tests.features.custom_features.mean_modulus",))
# What the feature below does besides, in the middle of an extraction.
DEED = []


@custom_feature(formula="⟨u⟩", unit="u", range="ℝ", exponent=1)
def mean_and_deed(fields):
    if DEED:
        DEED.pop()()
    return fields.mean((-2, -1))


def flipped(name):
    def damage(path):
        flip(path, name, 5)

    return damage, r"metadata/digests|" + names(5) if name == schema.DIGESTS else names(5)


def edited(function, pattern):
    """Damage done through HDF5."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            function(file)

    return damage, pattern


def set_value(name, row, where, value):
    def edit(file):
        entry = file[name][row]
        assert entry[where].tobytes() != np.asarray(value, entry.dtype).tobytes()
        entry[where] = value
        file[name][row] = entry

    return edited(edit, names(row))


def different_rows(file, name):
    """Two samples whose entries differ."""
    rows = [entry.tobytes() for entry in file[name][...]]
    return 0, next(row for row, entry in enumerate(rows) if entry != rows[0])


def swapped(name):
    def edit(file):
        swap(file, [name], *different_rows(file, name))

    return edited(edit, "metadata/digests|" + names(0) if name == schema.DIGESTS else names(0))


def roll_all_and_seal(file):
    for name in DATASETS:
        file[name][...] = np.roll(file[name][...], 1, axis=0)
    seal(file, CONFIG)


def repeat_a_sample_and_seal(file):
    for name in DATASETS:
        file[name][8] = file[name][2]
    seal(file, CONFIG)


def edit_a_digest(file):
    file[schema.DIGESTS][5] = b"0" * 64


def edit_a_digest_and_seal(file):
    edit_a_digest(file)
    seal(file, CONFIG)


def change_a_chunk(function, name=schema.OUTPUTS, row=6):
    """Replace the bytes of a chunk by others."""

    def edit(file):
        data = file[name].id
        offset = (row,) + (0,) * (len(data.shape) - 1)
        _, chunk = data.read_direct_chunk(offset)
        data.write_direct_chunk(offset, function(chunk))

    return edited(edit, names(row))


def take_a_chunk_of_another_sample(file):
    data = file[schema.OUTPUTS].id
    _, chunk = data.read_direct_chunk((2, 0, 1, 0, 0))
    data.write_direct_chunk((6, 0, 1, 0, 0), chunk)


def say_that_filters_were_skipped(file):
    data = file[schema.INPUTS].id
    _, chunk = data.read_direct_chunk((6, 0, 0, 0))
    # HDF5 takes no note of the filters of a chunk that keeps its size.
    data.write_direct_chunk((6, 0, 0, 0), chunk + bytes(1), filter_mask=3)
    assert data.get_chunk_info_by_coord((6, 0, 0, 0)).filter_mask == 3


def leave_a_chunk_out(file):
    """HDF5 reads what was never written as zeros."""

    def create(file, name, values):
        options = {"chunks": (1, *values.shape[1:]), "shuffle": True, "compression": "gzip"}
        data = file.create_dataset(name, values.shape, "<f4", **options)
        data[:6], data[7:] = values[:6], values[7:]

    replace_dataset(file, schema.INPUTS, create)


def replaced(name, make):
    """A dataset gives way to something else of its name."""

    return edited(lambda file: replace_dataset(file, name, make), re.escape(name))


def shorter(file, name, values):
    file[name] = values[:-1]


def of_another_type(file, name, values):
    file[name] = values.astype(np.float64)


def a_link_within(file, name, values):
    file["hidden"] = values
    file[name] = h5py.SoftLink("/hidden")


def a_link_to_another_file(file, name, values):
    elsewhere = os.path.join(os.path.dirname(file.filename), "other.h5")
    with h5py.File(elsewhere, "w") as other:
        other["values"] = values
    file[name] = h5py.ExternalLink("other.h5", "/values")


def a_virtual_dataset(file, name, values):
    file["hidden"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(file["hidden"])
    file.create_virtual_dataset(name, layout)


def a_virtual_dataset_without_its_source(file, name, values):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("missing.h5", "values", values.shape)
    file.create_virtual_dataset(name, layout)


def values_in_another_file(file, name, values):
    elsewhere = os.path.join(os.path.dirname(file.filename), "raw.bin")
    with open(elsewhere, "wb") as raw:
        raw.write(np.ascontiguousarray(values).tobytes())
    external = [("raw.bin", 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


def nothing(file, name, values):
    pass


def attribute(holder, name, value):
    def edit(file):
        assert file[holder].attrs[name] != value
        file[holder].attrs[name] = value

    return edited(edit, rf"attributes|{name}")


def cut_the_file(path):
    path.write_bytes(path.read_bytes()[:-3000])


def wipe_the_start(path):
    path.write_bytes(bytes(8) + path.read_bytes()[8:])


def claim_fewer_samples(file):
    configuration = json.loads(file.attrs["configuration"])
    file.attrs["configuration"] = json.dumps(configuration | {"num_samples": 11})


def claim_another_seed(file):
    configuration = json.loads(file.attrs["configuration"])
    file.attrs["configuration"] = json.dumps(configuration | {"seed": 43})


SWAPPED = (
    *FIELDS,
    schema.PARAMS,
    "parameters/values/alpha",
    "parameters/values/activation",
    schema.IC_TYPES,
    schema.POLICIES,
    schema.OPERATOR_INDEX,
    schema.PER_TIMESTEP,
    schema.INITIAL_FEATURES,
    schema.DIGESTS,
)
# Two of the columns of parameter values stand for all of them.
FLIPPED = [n for n in DATASETS if n in SWAPPED or not n.startswith("parameters/values/")]
# Damage -> (how it is done, what a refusal names).
DAMAGES = {
    **{f"a flipped bit in {name}": flipped(name) for name in FLIPPED},
    **{f"swapped rows of {name}": swapped(name) for name in SWAPPED},
    "NaN in inputs": set_value(schema.INPUTS, 2, (1, 3, 3), np.nan),
    "NaN in outputs": set_value(schema.OUTPUTS, 11, (1, 2, 31, 31), np.nan),
    "a rounding error": set_value(schema.OUTPUTS, 0, (0, 0, 0, 0), np.float32(1e-30)),
    "NaN in features": set_value(schema.PER_TIMESTEP, 4, (0, 45), np.nan),
    "infinity in features": set_value(schema.INITIAL_FEATURES, 4, (0,), np.inf),
    "a number where features are missing": set_value(schema.AGGREGATED, 9, (0,), 0.0),
    "another operator": set_value(schema.PARAMS, 7, (3,), 0.5),
    "swapped samples": edited(swap_all, "metadata/digests|" + names(3, 7)),
    "swapped samples, sealed": edited(swap_all_and_seal, names(3, 7)),
    "shifted samples, sealed": edited(roll_all_and_seal, names(0, 1, 2)),
    "a sample twice, sealed": edited(repeat_a_sample_and_seal, names(8)),
    "an edited digest": edited(edit_a_digest, "metadata/digests|" + names(5)),
    "an edited digest, sealed": edited(edit_a_digest_and_seal, names(5)),
    "an edited digest of the file": attribute("/", "digest", "0" * 64),
    "an edited digest of attributes": attribute("/", "attributes_digest", "0" * 64),
    "an edited digest of a column": attribute(schema.PARAMS, "sha256", "0" * 64),
    "a truncated chunk": change_a_chunk(lambda chunk: chunk[: len(chunk) // 2]),
    "a chunk of zeros": change_a_chunk(lambda chunk: zlib.compress(bytes(2 * 4 * 32 * 32))),
    "a chunk of one byte": change_a_chunk(lambda chunk: chunk[:1], schema.INPUTS),
    "a chunk too long": change_a_chunk(lambda chunk: zlib.compress(bytes(9 * 4 * 32 * 32))),
    "a chunk with more behind it": change_a_chunk(lambda chunk: chunk + b"more"),
    "a chunk of another sample": edited(take_a_chunk_of_another_sample, names(6)),
    "filters that were not skipped": edited(say_that_filters_were_skipped, names(6)),
    "a chunk left out": edited(leave_a_chunk_out, names(6)),
    "a dataset gone": replaced(schema.GRID_SIZES, nothing),
    "a dataset too short": replaced(schema.PER_TIMESTEP, shorter),
    "a dataset of another type": replaced(schema.AGGREGATED, of_another_type),
    "a link within the file": replaced(schema.OUTPUTS, a_link_within),
    "a link to another file": replaced(schema.INPUTS, a_link_to_another_file),
    "a virtual dataset": replaced(schema.INITIAL_FEATURES, a_virtual_dataset),
    "a virtual dataset of nothing": replaced(schema.OUTPUTS, a_virtual_dataset_without_its_source),
    "values in another file": replaced(schema.PARAMS, values_in_another_file),
    "fewer samples than there are": edited(claim_fewer_samples, "configuration|attributes|12"),
    "another seed": edited(claim_another_seed, "fingerprint|configuration|attributes|" + names(0)),
    "the end of the file gone": (cut_the_file, "HDF5"),
    "the start of the file gone": (wipe_the_start, "HDF5"),
}
# Bytes that are no content: HDF5 and zlib alike read the same values without them.
HARMLESS_TO_VALUES = {"a chunk with more behind it"}


def leftovers(path):
    """What lies beside a file, but for its lock."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})
