"""Attacks by files that store their data elsewhere: no other file is read, and none is written.

HDF5 can refer to other files: by external links, by external storage and by virtual datasets. A
stranger's file refers to files of the user's, its victims. They hold values by which reading them
would show, and every digest of the stranger's file agrees with them.
"""

import contextlib
import ctypes
import dataclasses
import io
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from spinlock import SpinlockDataModule
from spinlock.checks import check_dataset
from spinlock.commands.command_line import main
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError, SpinlockError
from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import require_seal
from spinlock.storage.verify import damaged_samples
from tests.helpers import dataset_contents, reseal, seal, small_config

ROOT = Path(__file__).parent.parent.parent
CONFIG = small_config(12, base_channels=(2, 3), num_realizations=2, channels=2)
LONGER = dataclasses.replace(CONFIG, num_samples=16)
NAMES = [spec.name for spec in schema.dataset_specs(CONFIG)]
# A value of the victims, and how it would be told in messages and tables.
TELLING = np.float32(77771.5)
TOLD = re.compile(r"7777\d|7\.77\d*e\+0?4|7\.8e\+0?4")


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


@pytest.fixture
def victims(tmp_path):
    (tmp_path / "home").mkdir()
    made = Victims(tmp_path / "home")
    yield made
    made.watch.close()


# ----------------------------------------------------------------------------- how to lie elsewhere


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


# ------------------------------------------------------------------------------------ entry points


def serve(path, view):
    module = SpinlockDataModule(path, CONFIG, view=view, progress=False, batch_size=2)
    module.setup()
    for _ in module.predict_dataloader():
        pass


def extend_as_stored(path):
    config = dataclasses.replace(read_info(path).config, num_samples=16)
    generate(config, path, progress=False)


ENTRIES = {
    "extract-features": lambda path, out: main(["extract-features", str(path)]),
    "extract_features": lambda path, out: extract_features(path, max_samples=2, progress=False),
    "generate": lambda path, out: generate(CONFIG, path, progress=False),
    "generate more": lambda path, out: generate(LONGER, path, progress=False),
    "generate more as stored": lambda path, out: extend_as_stored(path),
    "generate a part": lambda path, out: generate_part(LONGER, path, 1, 1, progress=False),
    "assemble": lambda path, out: assemble_parts(LONGER, path),
    "info": lambda path, out: main(["info", str(path)]),
    "plot": lambda path, out: main(["plot", str(path), "--sample", "3", "--out", f"{out}.png"]),
    "report": lambda path, out: main(["report", str(path), "--out", f"{out}.html"]),
    "export": lambda path, out: main(["export", str(path), "--format", "well", "--out", str(out)]),
    "read_info": lambda path, out: read_info(path),
    "features": lambda path, out: serve(path, "features"),
    "sequence": lambda path, out: serve(path, "sequence"),
    "fields": lambda path, out: serve(path, "fields"),
    "both": lambda path, out: serve(path, "both"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("local") / "data.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture(scope="module")
def telling(original, tmp_path_factory):
    """A file with telling values in its features and fields, which its digests agree with."""
    path = tmp_path_factory.mktemp("telling") / "data.h5"
    shutil.copy(original, path)
    with h5py.File(path, "r+") as file:
        for name in (schema.PER_TIMESTEP, schema.INITIAL_FEATURES):
            file[name][:, ..., 3] = TELLING
        file[schema.INPUTS][:, 0, 5, 5] = TELLING
        file[schema.OUTPUTS][:, :, 0, 5, 5] = TELLING
        reseal(file, CONFIG)
    return path


def forge(telling, folder, victims, change):
    path = Path(shutil.copy(telling, folder / "data.h5"))
    with h5py.File(path, "r+") as file:
        change(file, victims)
    assert not victims.watch.events()
    return path


def attempt(action, path, out):
    """What an entry point says: the error, and all that it printed."""
    said = io.StringIO()
    error = ""
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            action(path, out)
        except DatasetError as refusal:
            error = str(refusal)
    return error, said.getvalue()


@pytest.fixture
def no_figures(monkeypatch):
    """Reports without figures, which take most of the time."""
    monkeypatch.setattr("spinlock.report.report_builder.report_plots", lambda source: [])


def test_the_same_file_is_accepted_where_it_holds_its_data(telling, tmp_path, no_figures):
    """Digests do not tell the forgeries: nothing but where the data lie is wrong with them."""
    for number, (entry, action) in enumerate(ENTRIES.items()):
        path = tmp_path / f"{number}.h5"
        shutil.copy(telling, path)
        if entry == "assemble":
            generate_part(LONGER, path, 1, 1, progress=False)
        assert attempt(action, path, tmp_path / f"out-{number}")[0] == ""
    extracted = tmp_path / "0.h5"
    with h5py.File(extracted) as file:
        # Extraction would have written to the victims.
        assert not (file[schema.PER_TIMESTEP][...] == TELLING).all()


@pytest.mark.parametrize("how", ["external_link", "external_storage", "virtual", "soft_link_out"])
def test_reading_and_writing_the_forgeries_would_show(telling, tmp_path, victims, how):
    """Every digest agrees with the victims, which notice whoever follows a reference."""
    path = forge(telling, tmp_path, victims, VARIANTS[f"{how}: {schema.PER_TIMESTEP}"][0])
    with h5py.File(path) as file, h5py.File(telling) as good:
        require_seal(DatasetFile(file, CONFIG))
        assert not damaged_samples(DatasetFile(file, CONFIG))
        name = schema.PER_TIMESTEP
        assert file[name][...].tobytes() == good[name][...].tobytes()
    if not victims.watch.works:
        pytest.skip("this system does not tell who opens files")
    assert victims.harm().startswith("opened or read")
    with h5py.File(path, "r+") as file:
        file[schema.PER_TIMESTEP][0] = 0
    assert victims.harm().endswith("was changed")


@pytest.mark.parametrize("variant", VARIANTS)
def test_data_elsewhere_are_refused(telling, tmp_path, victims, variant):
    change, elsewhere = VARIANTS[variant]
    path = forge(telling, tmp_path, victims, change)
    content = path.read_bytes()
    files = {entry.name for entry in tmp_path.iterdir()}
    problems = {}
    for entry, action in ENTRIES.items():
        out = tmp_path / f"out {entry}"
        try:
            error, said = attempt(action, path, out)
        except Exception as crash:
            problems[entry] = f"{type(crash).__name__}: {crash}"[:200]
            continue
        if harm := victims.harm():
            problems[entry] = harm
        elif not error:
            problems[entry] = "accepted"
        elif not any(name in error for name in affected(elsewhere)):
            problems[entry] = f"does not name {elsewhere}: {error}"
        elif TOLD.search(said + error):
            problems[entry] = f"tells: {said + error}"
    assert not problems
    assert path.read_bytes() == content
    left = {entry.name for entry in tmp_path.iterdir()} - files
    assert left <= {"data.h5.lock", "data.h5.parts"}


@pytest.mark.parametrize(
    ("variant", "full"),
    [*((name, False) for name in VARIANTS), *((name, True) for name in list(VARIANTS)[::5])],
)
def test_a_check_fails_and_reads_nothing_elsewhere(telling, tmp_path, victims, variant, full):
    change, elsewhere = VARIANTS[variant]
    path = forge(telling, tmp_path, victims, change)
    report = check_dataset(path, full=full, replay=1, device="cpu", progress=False)
    assert victims.harm() == ""
    assert not report.passed
    named = [row.measured for row in report.failures]
    assert any(name in text for name in affected(elsewhere) for text in named)
    # Without what it must not read, it finds the same.
    for victim in victims.before:
        victim.unlink()
    again = check_dataset(path, full=full, replay=1, device="cpu", progress=False)
    assert again.rows == report.rows


@pytest.mark.parametrize("variant", ["external_storage: " + schema.PER_TIMESTEP, "half virtual"])
def test_check_of_the_command_line_exits_with_1(telling, tmp_path, victims, variant, capsys):
    path = forge(telling, tmp_path, victims, VARIANTS[variant][0])
    with pytest.raises(SystemExit) as stop:
        main(["check", str(path), "--full", "--json"])
    assert stop.value.code == 1
    assert schema.PER_TIMESTEP in capsys.readouterr().out
    assert victims.harm() == ""


def test_a_process_of_its_own_writes_nothing_elsewhere(telling, tmp_path, victims):
    """As a user types it."""
    change, _ = VARIANTS[f"external_storage: {schema.PER_TIMESTEP}"]
    path = forge(telling, tmp_path, victims, change)
    done = subprocess.run(
        [sys.executable, "-m", "spinlock", "extract-features", str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert victims.harm() == ""
    assert done.returncode == 1
    assert done.stderr.startswith(f"spinlock: error: {path}: {schema.PER_TIMESTEP} ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [schema.PER_TIMESTEP, "metadata", "features"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_link_to_a_pipe_does_not_block(telling, tmp_path, victims, entry, name):
    """Opening a pipe waits for a writer."""
    pipe = victims.folder / "pipe"
    os.mkfifo(pipe)
    # So that a failing test ends.
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        victims.watch.add(pipe)

        def change(file, victims):
            del file[name]
            file[name] = h5py.ExternalLink(str(pipe), f"/{name}")

        path = forge(telling, tmp_path, victims, change)
        error, _ = attempt(ENTRIES[entry], path, tmp_path / "out")
        assert any(each in error for each in affected(name))
        assert not victims.watch.events()
    finally:
        os.close(descriptor)


def test_a_field_reader_reads_this_file_only(telling, tmp_path, victims):
    """Also without a data module, which checks the layout first."""
    for number, variant in enumerate(
        (
            f"external_storage: {schema.OUTPUTS}",
            f"external_link: {schema.OUTPUTS}",
            f"virtual: {schema.OUTPUTS}",
            f"soft_link_out: {'inputs'}",
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = forge(telling, folder, victims, VARIANTS[variant][0])
        with pytest.raises(DatasetError, match=r"puts/fields"):
            FieldReader(path, CONFIG).read(schema.OUTPUTS, np.arange(2))
        assert victims.harm() == ""


# ------------------------------------------------------------------------------------------ shards


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    generate_part(CONFIG, folder / "data.h5", 1, 2, progress=False)
    return folder / "data.h5.parts"


SHARD_VARIANTS = [
    f"external_link: {schema.PER_TIMESTEP}",
    f"external_link: {schema.OUTPUTS}",
    "external_link: metadata",
    f"external_storage: {schema.PER_TIMESTEP}",
    f"external_storage: {schema.OUTPUTS}",
    f"external_storage: {schema.DIGESTS}",
    f"virtual: {schema.PER_TIMESTEP}",
    f"virtual: {schema.OUTPUTS}",
    f"soft_link: {schema.PER_TIMESTEP}",
    f"soft_link_out: {schema.PER_TIMESTEP}",
    f"virtual_without_source: {schema.INPUTS}",
]


@pytest.mark.parametrize("variant", SHARD_VARIANTS)
def test_a_shard_that_lies_elsewhere_is_no_part(parts, original, tmp_path, victims, variant):
    """Its content is that of a good shard; the files it lies in are others all the same."""
    path = tmp_path / "data.h5"
    shutil.copytree(parts, tmp_path / "data.h5.parts")
    (shard,) = (tmp_path / "data.h5.parts").rglob("shard-*")
    with h5py.File(shard, "r+") as file:
        VARIANTS[variant][0](file, victims)
    main(["info", str(path)])
    assert victims.harm() == ""
    with pytest.raises(DatasetError, match=r"samples 0\.\.11 are missing"):
        assemble_parts(CONFIG, path)
    assert victims.harm() == ""
    assert not path.exists()


@pytest.mark.parametrize("variant", SHARD_VARIANTS[:4])
def test_a_shard_that_lies_elsewhere_is_computed_again(parts, original, tmp_path, victims, variant):
    path = tmp_path / "data.h5"
    shutil.copytree(parts, tmp_path / "data.h5.parts")
    (shard,) = (tmp_path / "data.h5.parts").rglob("shard-*")
    with h5py.File(shard, "r+") as file:
        VARIANTS[variant][0](file, victims)
    generate(CONFIG, path, progress=False)
    assert victims.harm() == ""
    assert dataset_contents(path) == dataset_contents(original)
    with h5py.File(path) as file:
        for name in NAMES:
            assert not file[name].is_virtual
            assert not file[name].external


# ------------------------------------------------------------------------- what a stranger added


def added_link(file, victims):
    file["added"] = h5py.ExternalLink(victims.hdf5(file, "features"), "/features")
    file["features/added"] = h5py.ExternalLink(victims.hdf5(file, "metadata"), "/")
    file["metadata/added"] = h5py.SoftLink("/added")


def added_external_storage(file, victims):
    content = np.full(12, TELLING)
    storage = [(victims.raw(content.tobytes()), 0, content.nbytes)]
    # Not a row for each sample: such a dataset could not be kept when there are more.
    file.create_dataset("added", (3, 4), np.float32, external=storage)
    file.create_dataset("outputs/added", (3, 4), np.float32, external=storage)


def added_virtual(file, victims):
    path = victims.hdf5(file, schema.PER_TIMESTEP)
    shape = file[schema.PER_TIMESTEP].shape
    layout = h5py.VirtualLayout(shape[1:], np.float32)
    layout[...] = h5py.VirtualSource(path, schema.PER_TIMESTEP, shape)[0]
    file.create_virtual_dataset("added", layout)
    file.create_virtual_dataset("features/sdf/added", layout)


def added_growing_virtual(file, victims):
    file.copy(schema.PER_TIMESTEP, "added")
    virtual_that_grows("added")(file, victims)


ADDED = (added_link, added_external_storage, added_virtual, added_growing_virtual)


@pytest.mark.parametrize("add", ADDED)
@pytest.mark.parametrize("entry", ["extract-features", "generate more", "info", "features"])
def test_what_was_added_is_not_followed(telling, tmp_path, victims, add, entry):
    """The file itself is good: it is written anew, with what was added or not at all."""
    path = forge(telling, tmp_path, victims, add)
    with h5py.File(path, "r+") as file:
        seal(file, CONFIG)
    victims.watch.events()
    content = path.read_bytes()
    error, _ = attempt(ENTRIES[entry], path, tmp_path / "out")
    assert victims.harm() == ""
    if error:
        assert "added" in error
        assert path.read_bytes() == content
        return
    with h5py.File(path) as file:
        link = file.get("added", getlink=True)
        if add is added_link:
            assert isinstance(link, h5py.ExternalLink)
        else:
            data = file["added"]
            assert data.is_virtual or data.external
    if entry in ("extract-features", "generate more") and add is added_external_storage:
        # Nothing of a victim was put into the file.
        assert path.read_bytes().count(TELLING.tobytes() * 12) <= content.count(
            TELLING.tobytes() * 12
        )


def test_a_leftover_that_is_a_link_is_removed_alone(telling, tmp_path, victims):
    path = Path(shutil.copy(telling, tmp_path / "data.h5"))
    victim = victims.raw(b"precious")
    leftover = tmp_path / f".data.h5.{'0' * 32}.tmp"
    leftover.symlink_to(victim)
    extract_features(path, progress=False)
    assert victims.harm() == ""


# ---------------------------------------------------------------------- files that change meanwhile


@pytest.mark.parametrize("entry", ["extract-features", "generate more"])
def test_a_file_that_is_swapped_meanwhile_writes_nothing_elsewhere(
    telling, tmp_path, victims, monkeypatch, entry
):
    """Just before it is opened for the n-th time, a stranger's file takes its place."""
    change, _ = VARIANTS[f"external_storage: {schema.PER_TIMESTEP}"]
    evil = forge(telling, tmp_path, victims, change).rename(tmp_path / "evil.h5")
    path, real = tmp_path / "data.h5", h5py.File.__init__
    opened = swapped_at = 0

    def counting(self, name, *arguments, **options):
        nonlocal opened
        if str(name) == str(path):
            opened += 1
            if opened == swapped_at:
                shutil.copy(evil, tmp_path / "copy.h5")
                os.replace(tmp_path / "copy.h5", path)
        real(self, name, *arguments, **options)

    monkeypatch.setattr(h5py.File, "__init__", counting)
    # The first time around nothing is swapped.
    times = 1
    while swapped_at < times:
        shutil.copy(telling, path)
        opened = 0
        with contextlib.suppress(SpinlockError):
            attempt(ENTRIES[entry], path, tmp_path / "out")
        times = opened if swapped_at == 0 else times
        assert opened >= swapped_at
        for victim, before in victims.before.items():
            assert (victim.read_bytes(), victim.stat().st_mtime_ns) == before
        swapped_at += 1
    assert times > 1


def test_a_file_that_came_while_waiting_is_looked_at_again(telling, tmp_path, victims, monkeypatch):
    """Extraction waits for the lock: the file it then finds may be another one."""
    change, _ = VARIANTS[f"external_storage: {schema.PER_TIMESTEP}"]
    evil = forge(telling, tmp_path, victims, change).rename(tmp_path / "evil.h5")
    path = Path(shutil.copy(telling, tmp_path / "data.h5"))
    from spinlock.generation import feature_extraction as extraction

    real = extraction.dataset_lock

    @contextlib.contextmanager
    def slow(locked):
        with real(locked):
            os.replace(evil, path)
            yield

    monkeypatch.setattr(extraction, "dataset_lock", slow)
    with pytest.raises(DatasetError, match=schema.PER_TIMESTEP):
        extract_features(path, progress=False)
    assert victims.harm() == ""
