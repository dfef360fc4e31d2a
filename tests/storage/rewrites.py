"""Ways in which other programs rewrite a file, whose values stay what they were."""

import shutil
import subprocess
import zlib

import h5py
import numpy as np
import pytest

from spinlock.storage import schema
from tests.storage.extended_files import COLUMNS, TYPES, WHOLE
from tests.storage.sabotage import (
    FIELDS,
    replace_dataset,
)


def pack(**options):
    """Both fields stored with other options, in chunks of a sample unless they say otherwise."""

    def rewrite(file):
        for name in FIELDS:
            chunks = {"chunks": own_chunks(name)}
            replace_dataset(file, name, **(chunks | options))

    return rewrite


def own_chunks(name):
    return next((1, *spec.chunk) for spec in schema.dataset_specs(WHOLE) if spec.name == name)


def many_samples_in_a_chunk(file):
    replace_dataset(file, schema.INPUTS, chunks=(5, 3, 32, 32), compression="gzip", shuffle=True)
    replace_dataset(file, schema.OUTPUTS, chunks=(12, 2, 3, 32, 32))


def small_chunks(file):
    replace_dataset(file, schema.INPUTS, chunks=(1, 1, 16, 20), compression="gzip", shuffle=True)
    replace_dataset(file, schema.OUTPUTS, chunks=(1, 1, 3, 32, 32), compression="gzip")


def contiguous(file):
    for name in FIELDS:
        replace_dataset(file, name)


def one_contiguous(file):
    replace_dataset(file, schema.OUTPUTS)


def growing(file):
    for name in FIELDS:
        limits = (None, *file[name].shape[1:])
        chunks = own_chunks(name)
        replace_dataset(
            file, name, chunks=chunks, maxshape=limits, shuffle=True, compression="gzip"
        )


def big_endian(file):
    pack(dtype=">f4", shuffle=True, compression="gzip")(file)


def double_precision(file):
    pack(dtype="<f8", shuffle=True, compression="gzip")(file)


def integers_of_another_width(file):
    replace_dataset(file, schema.GRID_SIZES, dtype="<i8")


def packed_with(set_filters):
    """Both fields in the writer's chunks, through filters that a low-level call chooses."""

    def create(file, name, values):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(own_chunks(name))
        set_filters(plist)
        space = h5py.h5s.create_simple(values.shape)
        link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        link.set_create_intermediate_group(True)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist, link)
        file[name][...] = values

    def rewrite(file):
        for name in FIELDS:
            replace_dataset(file, name, create=create)

    return rewrite


def filters_in_another_order(file):
    packed_with(lambda plist: (plist.set_deflate(2), plist.set_shuffle()))(file)


def deflated_twice(file):
    packed_with(lambda plist: (plist.set_shuffle(), plist.set_deflate(2), plist.set_deflate(2)))(
        file
    )


def mask_filters(file, name, row, mask):
    """Store a sample's chunks without some of the filters (bit 0: shuffle, bit 1: deflate)."""
    data = file[name]
    assert (data.shuffle, data.compression) == (True, "gzip")
    values = data[row]
    if name == schema.INPUTS:
        parts = {(row, 0, 0, 0): values}
    else:
        parts = {(row, 0, c, 0, 0): values[:, c] for c in range(values.shape[1])}
    for offset, part in parts.items():
        chunk = np.ascontiguousarray(part).tobytes()
        if not mask & 1:
            chunk = np.frombuffer(chunk, np.uint8).reshape(-1, 4).T.tobytes()
        if not mask & 2:
            chunk = zlib.compress(chunk)
        data.id.write_direct_chunk(offset, chunk, filter_mask=mask)


def masked(mask):
    """One sample of each of the fields lacks some filters; all other chunks are the writer's."""

    def rewrite(file):
        if file[schema.INPUTS].compression is None:
            pack(shuffle=True, compression="gzip")(file)
        mask_filters(file, schema.INPUTS, 4, mask)
        mask_filters(file, schema.OUTPUTS, 9, mask)

    return rewrite


def no_chunk_through_its_filters(file):
    """The datasets declare filters of which no chunk makes use."""
    pack(shuffle=True, compression="gzip")(file)
    for name in FIELDS:
        for row in range(12):
            mask_filters(file, name, row, 3)


def packed_columns(**options):
    def rewrite(file):
        for name in COLUMNS:
            replace_dataset(file, name, chunks=True, **options)

    return rewrite


def growing_columns(file):
    for name in COLUMNS:
        replace_dataset(file, name, maxshape=(None, *file[name].shape[1:]))


def wide_features(file):
    replace_dataset(file, schema.PER_TIMESTEP, dtype="<f8")


def big_endian_features(file):
    replace_dataset(file, schema.INITIAL_FEATURES, dtype=">f4")


def texts_of_any_length(file):
    """As pandas and others write texts."""

    def create(file, name, values):
        file.create_dataset(name, data=values.astype(str).astype(object), dtype=h5py.string_dtype())

    replace_dataset(file, schema.IC_TYPES, create=create)


def wide_texts(file):
    replace_dataset(file, schema.POLICIES, dtype=h5py.string_dtype("utf-8", 64))


def ascii_digests(file):
    def create(file, name, values):
        file[name] = np.array(values.tolist(), "S64")

    replace_dataset(file, schema.DIGESTS, create=create)


REWRITES = {
    "gzip without shuffle": pack(compression="gzip", compression_opts=4),
    "shuffle and gzip 9": pack(shuffle=True, compression="gzip", compression_opts=9),
    "lzf": pack(compression="lzf"),
    "shuffle and lzf": pack(shuffle=True, compression="lzf"),
    "no filters": pack(),
    "shuffle only": pack(shuffle=True),
    "fletcher32 in addition": pack(shuffle=True, compression="gzip", fletcher32=True),
    "fletcher32 only": pack(fletcher32=True),
    "filters in another order": filters_in_another_order,
    "deflated twice": deflated_twice,
    "many samples in a chunk": many_samples_in_a_chunk,
    "small chunks": small_chunks,
    "contiguous": contiguous,
    "one contiguous": one_contiguous,
    "growing": growing,
    "big-endian": big_endian,
    "double precision": double_precision,
    "a chunk without shuffle": masked(1),
    "a chunk without deflate": masked(2),
    "a chunk without any filter": masked(3),
    "no chunk through its filters": no_chunk_through_its_filters,
}
COLUMN_REWRITES = {
    "columns in chunks": packed_columns(),
    "columns compressed": packed_columns(shuffle=True, compression="gzip", fletcher32=True),
    "columns through lzf": packed_columns(compression="lzf"),
    "growing columns": growing_columns,
    "features in double precision": wide_features,
    "big-endian features": big_endian_features,
    "integers of another width": integers_of_another_width,
    "texts of any length": texts_of_any_length,
    "wide texts": wide_texts,
    "ASCII digests": ascii_digests,
}


def copy_with(**options):
    """The whole file copied object by object into a file of another kind."""

    def rewrite(path):
        new = path.with_name("copied")
        with h5py.File(path) as old, h5py.File(new, "w", **options) as file:
            for name in old:
                old.copy(name, file)
            for name in old.attrs:
                file.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
        new.replace(path)

    return rewrite


def h5repack(*options):
    def rewrite(path):
        if shutil.which("h5repack") is None:
            pytest.skip("h5repack is not installed (hdf5-tools)")
        new = path.with_name("repacked")
        subprocess.run(["h5repack", *options, path, new], check=True, timeout=100)
        new.replace(path)

    return rewrite


FILE_REWRITES = {
    "a block of the user's own": copy_with(userblock_size=512),
    "a new file format": copy_with(libver="latest"),
    "h5repack": h5repack(),
    "h5repack -f GZIP=4": h5repack("-f", "GZIP=4"),
    "h5repack -f SHUF -f GZIP=9": h5repack("-f", "SHUF", "-f", "GZIP=9"),
    "h5repack -f NONE": h5repack("-f", "NONE"),
    "h5repack -f FLET": h5repack("-f", "FLET"),
    "h5repack -l CONTI": h5repack("-f", "NONE", "-l", "CONTI"),
    "h5repack -l CHUNK": h5repack("-l", f"{schema.INPUTS}:CHUNK=2x3x16x16"),
    "h5repack -L": h5repack("-L"),
}


def rewrite(path, how):
    """Have another program rewrite the file; its values stay what they were."""
    before = values_of(path)
    if how in FILE_REWRITES:
        FILE_REWRITES[how](path)
    else:
        with h5py.File(path, "r+") as file:
            (REWRITES | COLUMN_REWRITES)[how](file)
    assert values_of(path) == before


def values_of(path):
    with h5py.File(path) as file:
        return {name: file[name].astype(kind)[...].tobytes() for name, kind in TYPES.items()}
