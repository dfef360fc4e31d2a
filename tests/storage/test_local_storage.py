"""Data in other files are neither read nor written, whatever a dataset file refers to."""

import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.commands.command_line import main
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError
from spinlock.generation.build import generate_part
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import require_seal
from spinlock.storage.hdf5_access import local_object
from spinlock.storage.verify import damaged_samples
from tests.storage.forgeries import CONFIG, LONGER, REVEALED, ROOT, SECRET, VARIANTS, affected
from tests.storage.forgery_entries import ENTRIES, attempt, forge

pytestmark = pytest.mark.slow


@pytest.fixture
def no_plots(monkeypatch):
    """Reports without plots, which take most of the time."""
    monkeypatch.setattr("spinlock.report.report_builder.report_plots", lambda source: [])


def test_the_same_file_is_accepted_where_it_holds_its_data(telling, tmp_path, no_plots):
    """Nothing but the location of the data is wrong with the forgeries, so digests accept them."""
    for number, (entry, action) in enumerate(ENTRIES.items()):
        path = tmp_path / f"{number}.h5"
        shutil.copy(telling, path)
        if entry == "assemble":
            generate_part(LONGER, path, 1, 1, progress=False)
        assert attempt(action, path, tmp_path / f"out-{number}")[0] == ""
    extracted = tmp_path / "0.h5"
    with h5py.File(extracted) as file:
        # Extraction would have written to the victims.
        assert not (file[schema.PER_TIMESTEP][...] == SECRET).all()


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
        pytest.skip("this system does not report who opens files")
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
        elif REVEALED.search(said + error):
            problems[entry] = f"reveals: {said + error}"
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


def test_a_path_through_a_dataset_leads_nowhere():
    with h5py.File("paths.h5", "w", driver="core", backing_store=False) as file:
        file["group/data"] = np.zeros(3)
        for path in ("group/data/inner", "group/data/inner/most", "none", "none/inner"):
            assert local_object(file, path) == (None, "")
        assert local_object(file, "group/data") == (file["group/data"], "")
        assert local_object(file, "group") == (file["group"], "")
