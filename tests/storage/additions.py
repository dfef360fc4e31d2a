"""What users add to their files, and how to list it."""

import os

import h5py
import numpy as np

from spinlock.storage import schema
from spinlock.storage.dimensions import SCALE_ATTRIBUTES, SCALES_OF_DATASET
from tests.storage.extended_files import OWN_ATTRIBUTES, SCALES
from tests.storage.sabotage import (
    DATASETS,
)


def add_attributes(holder):
    added = {
        "text": "größe",
        "empty text": "",
        "number": 42,
        "single": np.float32(0.1),
        "flag": np.bool_(True),
        "complex": 1 + 2j,
        "array": np.arange(6, dtype=">i2").reshape(2, 3),
        "no values": np.zeros((0, 3), np.float32),
        "bytes": np.bytes_(b"abc"),
        "texts": ["one", "zwei", ""],
        "record": np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "empty": h5py.Empty("f4"),
    }
    for name, value in added.items():
        holder.attrs[f"my {name}"] = value
    holder.attrs.create("my choice", 1, dtype=h5py.enum_dtype({"no": 0, "yes": 1}))
    holder.attrs.create("my lists", [np.arange(2), np.arange(3)], dtype=h5py.vlen_dtype(np.int32))


def add_everything(file):
    """What users put into files: everywhere, of every kind."""
    for name in ("/", "inputs", "features/sdf", *DATASETS):
        add_attributes(file[name])
    file["parameters/params"].attrs.update({"CLASS": "unit cube", "NAME": "points"})
    file["features/timestep"].attrs.update({"names": ["first"], "my unit": "steps"})
    file["notes"] = "measured on a Tuesday"
    file["mine/deep/er/values"] = np.random.default_rng(0).normal(size=(5, 3))
    add_attributes(file["mine"])
    add_attributes(file["mine/deep/er/values"])
    file["mine/record"] = np.array([(1, b"x")], dtype=[("n", "<i8"), ("s", "S3")])
    file["mine/texts"] = np.array(["a", "bc"], dtype=h5py.string_dtype())
    file["mine/nothing"] = h5py.Empty("f8")
    file["mine/type"] = np.dtype([("a", "<i4")])
    file.create_group("mine/hollow")
    options = {"chunks": (16, 4), "shuffle": True, "compression": "gzip", "fletcher32": True}
    file.create_dataset("packed", data=np.arange(400).reshape(100, 4), **options)
    file.create_dataset("growing", data=np.arange(13), maxshape=(None,), fillvalue=-1)
    file["inputs/mask"] = np.ones((32, 32), np.bool_)
    file["features/sdf/aggregated/weights"] = np.linspace(0, 1, 39)
    file["shortcut"] = h5py.SoftLink("/outputs/fields")
    file["outputs/up"] = h5py.SoftLink("/inputs")
    file["nowhere"] = h5py.SoftLink("/there/is/nothing")
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/values")
    file["mine/lost"] = h5py.ExternalLink("missing.h5", "/values")
    file["metadata/root"] = h5py.ExternalLink("other.h5", "/")


def plain_attribute(holder, name):
    value, kind = holder.attrs[name], holder.attrs.get_id(name).dtype
    if isinstance(value, h5py.Empty):
        return (str(kind), "empty")
    value = np.asarray(value)
    lists = [np.asarray(v).tolist() for v in value.ravel()]
    return (str(kind), str(h5py.check_enum_dtype(kind)), value.shape, repr(lists))


def additions(path):
    """Everything in a file that the schema does not name, without following links."""
    found = {}
    own_datasets = {*DATASETS, *SCALES}
    groups = {"/".join(name.split("/")[:n]) for name in own_datasets for n in range(1, 6)}
    groups -= own_datasets

    def note_attributes(name, holder):
        if name == "/":
            own = tuple(schema.ROOT_ATTRIBUTES)
        else:
            own = (*OWN_ATTRIBUTES, SCALES_OF_DATASET) if name in DATASETS else ()
            own = SCALE_ATTRIBUTES if name in SCALES else own
        for attribute in holder.attrs:
            if attribute not in own:
                found[name, attribute] = plain_attribute(holder, attribute)

    def walk(group, prefix):
        for key in group:
            name, link = prefix + key, group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                found[name] = (type(link).__name__, link.path, getattr(link, "filename", None))
                continue
            item = group[key]
            if isinstance(item, h5py.Datatype):
                found[name] = ("type", str(item.dtype))
                continue
            if isinstance(item, h5py.Group):
                if name not in groups:
                    found[name] = "group"
                walk(item, f"{name}/")
            elif name not in own_datasets:
                empty = isinstance(item[()], h5py.Empty)
                values = "empty" if empty else repr(np.asarray(item[()]).tolist())
                packing = (item.chunks, item.compression, item.shuffle, item.fletcher32)
                found[name] = (str(item.dtype), item.shape, item.maxshape, *packing, values)
                found[name] += (item.id.get_create_plist().get_external_count(),)
            note_attributes(name, item)

    with h5py.File(path) as file:
        note_attributes("/", file)
        walk(file, "")
    return found


class Bystander:
    """A file that links point to, which nobody may open."""

    LONG_AGO = (1_000_000_000, 1_000_000_000)

    def __init__(self, folder):
        self.path = folder / "other.h5"
        with h5py.File(self.path, "w") as file:
            file["values"] = np.arange(12)
        self.content = self.path.read_bytes()
        os.utime(self.path, self.LONG_AGO)

    def require_untouched(self):
        # A file system that keeps times of access would have changed so old a one.
        status = self.path.stat()
        assert (status.st_atime, status.st_mtime) == self.LONG_AGO
        assert self.path.read_bytes() == self.content


def decorated(made, folder):
    folder.mkdir(exist_ok=True)
    path = made.short(folder)
    with h5py.File(path, "r+") as file:
        add_everything(file)
    return path
