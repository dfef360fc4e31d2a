"""No command overwrites a file of another kind, nor one of its kind without --force."""

import os
import sys

import h5py
import pytest

from spinlock.__main__ import main as command_line
from spinlock.checks import CheckReport
from spinlock.commands.command_line import main
from spinlock.commands.plot import plot_sample
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.report import report_builder as build
from spinlock.report.page import render_page
from spinlock.runtime.output_files import PNG, check_output, new_file
from tests.outputs.existing_files import (
    NOT_REGULAR,
    OF_NO_KIND,
    directory,
    empty,
    other_dataset,
    other_page,
    table,
    text,
)
from tests.outputs.writing import KINDS, each_command, each_writer, refused, snapshot


@each_writer
@each_command
@pytest.mark.parametrize("existing", [*NOT_REGULAR, *OF_NO_KIND])
def test_another_kind_is_never_replaced(folder, write, command, existing):
    existing(folder)
    message = NOT_REGULAR.get(existing, f"exists already, and is not a {KINDS[command].name}")
    refused(write, command, "data.h5", "out", message, folder)


@each_writer
@each_command
def test_the_kinds_are_not_replaced_by_each_other(folder, write, command):
    (other,) = set(KINDS) - {command}
    write(other, "data.h5", "out")
    refused(write, command, "data.h5", "out", f"not a {KINDS[command].name}", folder)


@each_writer
@each_command
def test_the_same_kind_is_replaced_by_force_only(folder, write, command):
    out = folder / "out"
    out.write_bytes(KINDS[command].start + b"earlier")
    out.chmod(0o604)
    refused(write, command, "data.h5", out, r"exists already, .*--force", folder, force=[False])
    before = snapshot(folder)
    write(command, "data.h5", out, force=True)
    assert out.read_bytes().startswith(KINDS[command].start)
    after = snapshot(folder)
    assert after.pop("out")[0] == before["out"][0]
    assert before.pop("out")[1] != out.read_bytes()
    assert after == before
    # What the command made itself is of its kind.
    refused(write, command, "data.h5", out, "--force", folder, force=[False])
    write(command, "data.h5", out, force=True)


@each_writer
@each_command
def test_a_link_stays_a_link(folder, write, command):
    (folder / "elsewhere").mkdir()
    target = folder / "elsewhere" / "target"
    target.write_bytes(KINDS[command].start)
    (folder / "out").symlink_to(target)
    refused(write, command, "data.h5", "out", "--force", folder, force=[False])
    write(command, "data.h5", "out", force=True)
    assert os.readlink(folder / "out") == str(target)
    assert len(target.read_bytes()) > 1000
    assert sorted(os.listdir(folder)) == ["data.h5", "elsewhere", "out"]
    assert os.listdir(folder / "elsewhere") == ["target"]


@each_writer
@each_command
def test_a_new_file_is_all_that_appears(folder, write, command):
    before = snapshot(folder)
    mask = os.umask(0o027)
    try:
        write(command, "data.h5", "new/folder/out")
    finally:
        os.umask(mask)
    assert (folder / "new" / "folder" / "out").stat().st_mode & 0o777 == 0o640
    after = snapshot(folder)
    assert set(after) - set(before) == {"new", "new/folder", "new/folder/out"}
    assert {name: after[name] for name in before} == before
    # As long a name as the file system takes.
    write(command, "data.h5", 255 * "x", force=True)


def test_the_page_is_of_its_kind(info):
    page = render_page(info, CheckReport(()), [], [])
    assert page.encode().startswith(build.PAGE.start)


@each_command
@pytest.mark.parametrize(
    "out", ["data.h5", "../folder/data.h5", "table.csv", "other.png", "other.html"]
)
def test_the_command_line_says_so_in_one_line(folder, monkeypatch, command, out):
    (folder / "table.csv").write_text("a,b\n1,2\n")
    for kind, name in ((PNG, "other.png"), (build.PAGE, "other.html")):
        (folder / name).write_bytes(kind.start)
    before = snapshot(folder)
    options = {"plot": ["--sample", "0"], "report": []}[command]
    monkeypatch.setattr(sys, "argv", ["spinlock", command, "data.h5", *options, "--out", out])
    with pytest.raises(SystemExit) as caught:
        command_line()
    starts = tuple(f"spinlock: error: {out} {verb} " for verb in ("is", "exists"))
    assert caught.value.code.startswith(starts)
    assert "\n" not in caught.value.code
    assert snapshot(folder) == before


def test_the_default_name_is_checked_too(folder):
    main(["plot", "data.h5", "--sample", "1"])
    with pytest.raises(ConfigurationError, match=r"data-sample-1\.png exists already"):
        main(["plot", "data.h5", "--sample", "1"])
    main(["report", "data.h5"])
    with pytest.raises(ConfigurationError, match=r"report\.html exists already"):
        main(["report", "data.h5"])


def test_a_parent_that_is_a_file_is_named(folder):
    (folder / "table.csv").write_text("a,b\n1,2\n")
    before = snapshot(folder)
    for out in ("table.csv/out.png", "table.csv/new/out.png"):
        with pytest.raises(ConfigurationError, match=f"cannot write {out}: "):
            plot_sample("data.h5", 0, out)
    assert snapshot(folder) == before


def test_without_a_kind_nothing_is_replaced(folder):
    (folder / "out").write_bytes(PNG.start)
    for force in (False, True):
        with pytest.raises(ConfigurationError, match=r"out exists already, .*another file$"):
            check_output("out", force=force)
    # The temporary file is locked, so that no other run removes it.
    with new_file("new.h5") as temporary, h5py.File(temporary, "w", locking=False) as file:
        file["values"] = [1, 2]
    with h5py.File("new.h5") as file:
        assert file["values"][:].tolist() == [1, 2]


@pytest.mark.parametrize("existing", [*NOT_REGULAR, text, empty, other_dataset])
def test_an_export_makes_a_folder(folder, existing):
    existing(folder)
    before = snapshot(folder)
    # The parser refuses a link to itself, as it refuses other paths that no file can have.
    with pytest.raises((DatasetError, SystemExit), match=r"out exists already|^2$"):
        main(["export", "data.h5", "--format", "well", "--out", "out"])
    assert snapshot(folder) == before


@pytest.mark.parametrize("existing", [text, table, empty, other_page, directory])
@pytest.mark.parametrize("options", [[], ["--part", "1/2"], ["--assemble"]])
def test_generate_keeps_what_is_no_dataset(folder, existing, options):
    existing(folder)
    (folder / "run.yaml").write_text("data: {path: out, generation: {num_samples: 1}}")
    before = snapshot(folder)
    with pytest.raises(DatasetError, match=r"out is (not a readable HDF5 file|a directory)"):
        main(["generate", "--config", "run.yaml", *options])
    assert snapshot(folder) == before
