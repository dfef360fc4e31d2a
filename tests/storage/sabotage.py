"""Damage that tests do to dataset files and shards, and what refusals name."""

import os
from concurrent.futures import Executor, Future
from pathlib import Path

import h5py
import numpy as np

from spinlock.storage import schema
from tests.helpers import seal, small_config

CONFIG = small_config(12, base_channels=(2, 3), num_realizations=2)
DATASETS = tuple(spec.name for spec in schema.dataset_specs(CONFIG))
FIELDS = (schema.INPUTS, schema.OUTPUTS)


def names(*samples):
    """Pattern of a message that names samples."""
    return r"samples? [\d, ]*" + r"[\d, ]*".join(rf"\b{sample}\b" for sample in samples)


def flip(path, name, row, bit=0x10):
    """Flip a bit in the middle of a sample's entry (or its first chunk), without using HDF5."""
    with h5py.File(path) as file:
        data = file[name]
        if data.chunks is None:
            size = data.nbytes // len(data)
            place = data.id.get_offset() + row * size + size // 2
        else:
            info = data.id.get_chunk_info_by_coord((row,) + (0,) * (data.ndim - 1))
            place = info.byte_offset + info.size // 2
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def flip_when_closed(monkeypatch, accept, name, row):
    """Flip a bit of the first accepted file that is closed after writing; returns its path."""
    hits, plain = [], h5py.File.close

    def close(file):
        writing = file.id.valid and file.mode == "r+"
        written = Path(os.fsdecode(file.filename)) if writing and accept(file) else None
        plain(file)
        if written is not None and not hits:
            hits.append(written)
            flip(written, name, row)

    monkeypatch.setattr(h5py.File, "close", close)
    return hits


def swap(file, dataset_names, one, two):
    """Let two samples change places in some datasets."""
    for name in dataset_names:
        rows = file[name][...]
        rows[[one, two]] = rows[[two, one]]
        file[name][...] = rows


def swap_all(file):
    swap(file, DATASETS, 3, 7)


def swap_all_and_seal(file):
    swap_all(file)
    seal(file, CONFIG)


def replace_dataset(file, name, create=None, dtype=None, **options):
    """Replace a dataset by another one with the same attributes.

    Args:
        file: File, open for writing.
        name: Name of the dataset.
        create: Function of the file, the name and the old values that creates it; default: a
            dataset with the same values.
        dtype: Element type of the default; the old one by default.
        options: How the default is stored, as for `h5py.Group.create_dataset`.
    """
    old = file[name]
    attributes = {n: (old.attrs[n], old.attrs.get_id(n).dtype) for n in old.attrs}
    values, kind = old[...], old.dtype if dtype is None else np.dtype(dtype)
    del file[name]
    if create is None:
        file.create_dataset(name, values.shape, kind, **options)[...] = values
    else:
        create(file, name, values)
    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        for attribute, (value, type_) in attributes.items():
            file[name].attrs.create(attribute, value, dtype=type_)


class ThisThread(Executor):
    """Computes shards in this thread, and does something after each, or after the first of them."""

    def __init__(self, deed, *, once=False):
        self.deed, self.once, self.done = deed, once, False

    def submit(self, function, /, *args, **options):
        future = Future()
        try:
            future.set_result(function(*args, **options))
        except BaseException as error:
            future.set_exception(error)
        if not (self.once and self.done):
            self.done = True
            self.deed()
        return future
