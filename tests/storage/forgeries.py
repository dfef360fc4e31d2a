"""Attacks by files that store their data elsewhere: no other file is read, and none is written.

HDF5 can refer to other files: by external links, by external storage and by virtual datasets. A
stranger's file refers to files of the user's, its victims. They hold values by which reading them
would show, and every digest of the stranger's file agrees with them.
"""

import contextlib
import ctypes
import dataclasses
import os
import re
import struct
from pathlib import Path

import h5py
import numpy as np

from spinlock.storage import schema
from tests.helpers import small_config

ROOT = Path(__file__).parent.parent.parent
CONFIG = small_config(12, base_channels=(2, 3), num_realizations=2, channels=2)
LONGER = dataclasses.replace(CONFIG, num_samples=16)
NAMES = [spec.name for spec in schema.dataset_specs(CONFIG)]
# A value in the victims' files, and the forms in which messages and tables would show it.
SECRET = np.float32(77771.5)
REVEALED = re.compile(r"7777\d|7\.77\d*e\+0?4|7\.8e\+0?4")


class Watch:
    """Counts how often files are opened, read, written or removed (Linux; elsewhere never)."""

    EVENTS = 0x1 | 0x2 | 0x4 | 0x20 | 0x400 | 0x800  # of inotify(7)

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = -1
        if hasattr(self._libc, "inotify_init1"):
            self._queue = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def works(self) -> bool:
        return self._queue >= 0

    def add(self, path: Path) -> None:
        if self.works:
            added = self._libc.inotify_add_watch(self._queue, os.fsencode(path), self.EVENTS)
            assert added >= 0, os.strerror(ctypes.get_errno())

    def events(self) -> list[int]:
        """What happened since the last call."""
        happened = []
        with contextlib.suppress(BlockingIOError, OSError):
            buffer = os.read(self._queue, 1 << 16)
            while buffer:
                _, event, _, size = struct.unpack("iIII", buffer[:16])
                happened.append(event)
                buffer = buffer[16 + size :]
        return happened

    def close(self) -> None:
        if self.works:
            os.close(self._queue)


class Victims:
    """Files of the user's that a stranger's file refers to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watch = Watch()
        self.before: dict[Path, tuple[bytes, int]] = {}

    def hdf5(self, file: h5py.File, name: str) -> str:
        """A file with a copy of an object, under the same name."""
        path = self.folder / f"victim-{len(self.before)}.h5"
        with h5py.File(path, "x") as other:
            parent, _, _ = name.rpartition("/")
            file.copy(name, other.require_group(parent or "/"))
        return self.keep(path)

    def raw(self, content: bytes) -> str:
        """A file of bytes, longer than what is referred to."""
        path = self.folder / f"victim-{len(self.before)}.bin"
        path.write_bytes(content + b"the rest of the file")
        return self.keep(path)

    def keep(self, path: Path) -> str:
        # A time that no test takes place at.
        os.utime(path, ns=(10**18, 10**18))
        self.before[path] = (path.read_bytes(), path.stat().st_mtime_ns)
        self.watch.add(path)
        self.watch.events()
        return str(path)

    def harm(self) -> str:
        """What was done to them, as text; nothing if nothing was."""
        events = self.watch.events()
        for path, before in self.before.items():
            if not path.exists() or (path.read_bytes(), path.stat().st_mtime_ns) != before:
                return f"{path.name} was changed"
        self.watch.events()
        return f"opened or read: {[hex(event) for event in events]}" if events else ""


def replaced(file, name, create):
    """Put something else in a dataset's place that has its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    create()
    file[name].attrs.update(attributes)


def external_link(name):
    def change(file, victims):
        path = victims.hdf5(file, name)
        del file[name]
        file[name] = h5py.ExternalLink(path, f"/{name}")

    return change


def link_to_a_missing_file(name):
    def change(file, victims):
        del file[name]
        file[name] = h5py.ExternalLink(str(victims.folder / "missing.h5"), f"/{name}")

    return change


def external_storage(name):
    def change(file, victims):
        values = file[name][...]
        storage = [(victims.raw(values.tobytes()), 0, values.nbytes)]
        kind, shape = file[name].dtype, file[name].shape
        replaced(file, name, lambda: file.create_dataset(name, shape, kind, external=storage))

    return change


def virtual(name, rows=None):
    """A virtual dataset, of which the first rows (or all) lie in a victim."""

    def change(file, victims):
        path, data = victims.hdf5(file, name), file[name]
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        layout[:rows] = h5py.VirtualSource(path, name, data.shape, data.dtype)[:rows]
        replaced(file, name, lambda: file.create_virtual_dataset(name, layout))

    return change


def virtual_that_grows(name):
    """Its shape is that of its source, whose first dimension has no limit."""

    def change(file, victims):
        path, data = victims.folder / "growing.h5", file[name]
        with h5py.File(path, "x") as other:
            other.create_dataset("x", data=data[...], maxshape=(None, *data.shape[1:]))
        victims.keep(path)
        layout = h5py.VirtualLayout(data.shape, data.dtype, maxshape=(None, *data.shape[1:]))
        source = h5py.VirtualSource(
            str(path), "x", data.shape, data.dtype, maxshape=(None, *data.shape[1:])
        )
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        replaced(file, name, lambda: file.create_virtual_dataset(name, layout))

    return change


def virtual_without_source(name):
    def change(file, victims):
        data = file[name]
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        missing = str(victims.folder / "missing.h5")
        layout[:] = h5py.VirtualSource(missing, name, data.shape, data.dtype)
        replaced(file, name, lambda: file.create_virtual_dataset(name, layout))

    return change


def virtual_within(name):
    """A virtual dataset of another place in the same file."""

    def change(file, victims):
        data = file[name]
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        layout[:] = h5py.VirtualSource(".", "/hidden/data", data.shape, data.dtype)
        file.copy(name, file.require_group("hidden"), "data")
        replaced(file, name, lambda: file.create_virtual_dataset(name, layout))

    return change


def soft_link(name):
    def change(file, victims):
        file.create_group("hidden")
        file.move(name, "hidden/data")
        file[name] = h5py.SoftLink("/hidden/data")

    return change


def soft_link_out(name):
    """A soft link to an external link."""

    def change(file, victims):
        path = victims.hdf5(file, name)
        del file[name]
        file["hidden"] = h5py.ExternalLink(path, f"/{name}")
        file[name] = h5py.SoftLink("/hidden")

    return change


# How -> the change, and the path that does not lie in the file.
VARIANTS = {
    f"{how.__name__}: {name}": (how(name), name)
    for how, names in {
        external_link: (
            schema.PER_TIMESTEP,
            schema.INPUTS,
            schema.OUTPUTS,
            schema.DIGESTS,
            "parameters/values/alpha",
            schema.VALUES,
            "features",
            "features/sdf",
            "metadata",
            "outputs",
        ),
        link_to_a_missing_file: (schema.AGGREGATED, "metadata"),
        external_storage: (
            schema.PER_TIMESTEP,
            schema.PER_TRAJECTORY,
            schema.OUTPUTS,
            schema.PARAMS,
            schema.IC_TYPES,
            schema.DIGESTS,
        ),
        virtual: (schema.PER_TIMESTEP, schema.OUTPUTS, schema.DIGESTS),
        virtual_that_grows: (schema.PER_TIMESTEP,),
        virtual_without_source: (schema.INITIAL_FEATURES, schema.INPUTS),
        virtual_within: (schema.PER_TIMESTEP,),
        soft_link: (schema.PER_TIMESTEP, "features", "parameters"),
        soft_link_out: (schema.PER_TIMESTEP, "metadata", "inputs"),
    }.items()
    for name in names
}
VARIANTS["half virtual"] = (virtual(schema.PER_TIMESTEP, 6), schema.PER_TIMESTEP)


def affected(elsewhere):
    """The datasets that cannot be found in the file itself."""
    return [name for name in NAMES if name == elsewhere or name.startswith(f"{elsewhere}/")]
