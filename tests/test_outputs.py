"""Outputs: no command overwrites its input or a file of another kind, nor any without --force."""

import errno
import os
import shutil
import sys
import uuid
from types import SimpleNamespace

import h5py
import pytest
from matplotlib.figure import Figure

from spinlock.__main__ import main as command_line
from spinlock.callbacks import DatasetReport
from spinlock.callbacks.plot_logging import log_plots
from spinlock.checks import CheckReport
from spinlock.commands import plot
from spinlock.commands.command_line import main
from spinlock.commands.plot import plot_sample
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.export.the_well import export_well
from spinlock.generation.build import generate, shard_folder
from spinlock.report import report_builder as build, write_report
from spinlock.report.page import render_page
from spinlock.runtime.output_files import PNG, belongs_to, check_output, new_file, unused_path
from spinlock.storage import read_info
from spinlock.storage.locking import dataset_lock
from tests.helpers import small_config

KINDS = {"plot": PNG, "report": build.PAGE}
CONFIG = small_config(3, grid_size=24, num_realizations=1, channels=1, num_timesteps=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "data.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture(scope="module")
def info(built):
    return read_info(built)


@pytest.fixture
def folder(built, info, tmp_path, monkeypatch):
    """The working folder, which holds a copy of the dataset; reading and checking are instant."""
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(built, folder / "data.h5")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(build, "check_dataset", lambda path, trust, progress: CheckReport(()))
    monkeypatch.setattr(build, "report_plots", lambda source: [])
    for module in (build, plot):
        monkeypatch.setattr(module, "read_info", lambda path: info)
    return folder


def by_function(command, source, out, *, force=False):
    if command == "plot":
        plot_sample(source, 0, out, force=force)
    else:
        write_report(source, out, force=force, progress=False)


def by_command(command, source, out, *, force=False):
    options = {"plot": ["--sample", "0"], "report": []}[command]
    main([command, str(source), *options, "--out", str(out), *(["--force"] if force else [])])


each_writer = pytest.mark.parametrize("write", [by_function, by_command])
each_command = pytest.mark.parametrize("command", KINDS)


def snapshot(folder):
    """Everything in a folder: name -> mode, and bytes of a file or target of a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def refused(write, command, source, out, message, folder, *, force=(False, True)):
    """The write is refused before the work, forced or not, and nothing in the folder changes."""
    before = snapshot(folder)
    for forced in force:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(build, "check_dataset", unreachable)
            patched.setattr("spinlock.plots.field_plots.sample_plot", unreachable)
            with pytest.raises(ConfigurationError, match=message) as caught:
                write(command, source, out, force=forced)
        assert snapshot(folder) == before
        text = str(caught.value)
        assert text.startswith(str(out))
        assert "choose another file" in text
        assert "\n" not in text


def unreachable(*arguments, **options):
    raise AssertionError("the output was not checked before the work")


def same_path(folder):
    return folder / "data.h5"


def relative_path(folder):
    (folder / "sub").mkdir()
    return "sub/../data.h5"


def symbolic_link(folder):
    (folder / "link.png").symlink_to("data.h5")
    return folder / "link.png"


def chain_of_links(folder):
    (folder / "first").symlink_to(symbolic_link(folder))
    return folder / "first"


def hard_link(folder):
    os.link(folder / "data.h5", folder / "hard.png")
    return folder / "hard.png"


def linked_folder(folder):
    (folder.parent / "linked").symlink_to(folder)
    return folder.parent / "linked" / "data.h5"


NAMES = [same_path, relative_path, symbolic_link, chain_of_links, hard_link, linked_folder]


@each_writer
@each_command
@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_no_output_by_any_name(folder, write, command, name):
    other = name(folder)
    message = "is the dataset .* that is read"
    refused(write, command, folder / "data.h5", other, message, folder.parent)
    refused(write, command, other, folder / "data.h5", message, folder.parent)


@each_writer
@each_command
@pytest.mark.parametrize("beside", ["data.h5.lock", "data.h5.parts", "data.h5.parts/new.png"])
@pytest.mark.parametrize("source", ["data.h5", "link.h5"])
def test_what_belongs_to_the_input_is_no_output(folder, write, command, beside, source):
    (folder / "link.h5").symlink_to("data.h5")
    refused(write, command, source, beside, "or belongs to it", folder)
    (folder / beside).parent.mkdir(exist_ok=True)
    (folder / beside).write_bytes(KINDS[command].start)
    refused(write, command, source, beside, "or belongs to it", folder)


def test_what_belongs_to_a_dataset_is_what_lies_beside_it(folder):
    path = folder / "data.h5"
    with dataset_lock(path):
        (lock,) = (one for one in folder.iterdir() if one != path)
    for own in (lock, shard_folder(CONFIG, path), path, path / "sub"):
        assert belongs_to(own, path)
    for other in ("data.h5.png", "data.lock", "more.data.h5", ".", "sub/data.h5", "data.h5.parts2"):
        assert not belongs_to(other, path)


def text(folder):
    (folder / "out").write_text("precious")


def table(folder):
    (folder / "out").write_text("a,b\n1,2\n")


def empty(folder):
    (folder / "out").touch()


def cut_picture(folder):
    (folder / "out").write_bytes(PNG.start[:-1])


def other_page(folder):
    (folder / "out").write_text('<!DOCTYPE html>\n<html lang="en"><head><title>mine</title>')


def other_dataset(folder):
    shutil.copy(folder / "data.h5", folder / "out")


def directory(folder):
    (folder / "out").mkdir()
    (folder / "out" / "inside").write_text("precious")


def pipe(folder):
    os.mkfifo(folder / "out")


def dangling_link(folder):
    (folder / "out").symlink_to("nothing.png")


def loop_of_links(folder):
    (folder / "out").symlink_to("out")


def link_to_text(folder):
    (folder / "precious.txt").write_text("precious")
    (folder / "out").symlink_to("precious.txt")


NOT_REGULAR = {
    directory: "is a directory",
    pipe: "is not a regular file",
    dangling_link: "is a symbolic link to nothing",
    loop_of_links: "is a symbolic link to nothing",
}
OF_NO_KIND = [text, table, empty, cut_picture, other_page, other_dataset, link_to_text]


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


def during_the_work(monkeypatch, act):
    def checked(path, trust, progress):
        act()
        return CheckReport(())

    monkeypatch.setattr(build, "check_dataset", checked)


@pytest.mark.parametrize(("force", "existed"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("links", [True, False])
def test_what_comes_into_being_during_the_work_is_kept(folder, monkeypatch, force, existed, links):
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    if existed:
        (folder / "out").write_bytes(build.PAGE.start)
    during_the_work(monkeypatch, lambda: text(folder))
    with pytest.raises(ConfigurationError, match="out exists already, and is not a report"):
        write_report("data.h5", "out", force=force, progress=False)
    assert (folder / "out").read_text() == "precious"
    assert sorted(os.listdir(folder)) == ["data.h5", "out"]


def without_links(*arguments):
    raise OSError(errno.EPERM, "no links here")


def test_what_comes_into_being_at_the_last_moment_is_kept(folder, monkeypatch):
    link = os.link
    monkeypatch.setattr(os, "link", lambda *names: (text(folder), link(*names)))
    with pytest.raises(ConfigurationError, match="cannot write out: File exists"):
        write_report("data.h5", "out", force=True, progress=False)
    assert (folder / "out").read_text() == "precious"
    assert sorted(os.listdir(folder)) == ["data.h5", "out"]


def test_a_file_system_without_links(folder, monkeypatch):
    monkeypatch.setattr(os, "link", without_links)
    write_report("data.h5", "out", progress=False)
    assert (folder / "out").read_bytes().startswith(build.PAGE.start)
    assert sorted(os.listdir(folder)) == ["data.h5", "out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DatasetError, OSError])
@pytest.mark.parametrize("out", ["out", "new/folder/out"])
def test_an_interrupted_command_changes_nothing(folder, monkeypatch, error, out):
    def fail():
        raise error

    if out == "out":
        (folder / out).write_bytes(build.PAGE.start)
    before = snapshot(folder)
    during_the_work(monkeypatch, fail)
    with pytest.raises(error):
        write_report("data.h5", out, force=True, progress=False)
    assert snapshot(folder) == before


def test_temporary_names_are_taken_by_nobody(folder, monkeypatch):
    victim = folder / "precious.txt"
    victim.write_text("precious")
    for name in (".out.tmp", ".out.html.tmp", f".out.{os.getpid()}", "out.tmp"):
        (folder / name).symlink_to(victim)
    before = snapshot(folder)
    seen = []
    during_the_work(monkeypatch, lambda: seen.append(set(os.listdir(folder)) - set(before)))
    for out in ("out", "out.html"):
        write_report("data.h5", out, progress=False)
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before
    assert [len(names) for names in seen] == [1, 2]
    assert len(set.union(*seen)) == 3, "two temporary files of different names, and the first page"


@pytest.mark.parametrize("target", ["precious.txt", "nothing"])
def test_a_temporary_file_is_not_written_through_a_link(folder, monkeypatch, target):
    (folder / "precious.txt").write_text("precious")
    (folder / ".spinlock-0.tmp").symlink_to(target)
    before = snapshot(folder)
    monkeypatch.setattr(uuid, "uuid4", lambda: SimpleNamespace(hex="0"))
    with pytest.raises(ConfigurationError, match="cannot write out: File exists"):
        write_report("data.h5", "out", progress=False)
    assert snapshot(folder) == before


def test_without_a_kind_nothing_is_replaced(folder):
    (folder / "out").write_bytes(PNG.start)
    for force in (False, True):
        with pytest.raises(ConfigurationError, match=r"out exists already, .*another file$"):
            check_output("out", force=force)
    with new_file("new.h5") as temporary, h5py.File(temporary, "w") as file:
        file["values"] = [1, 2]
    with h5py.File("new.h5") as file:
        assert file["values"][:].tolist() == [1, 2]


@pytest.mark.parametrize("existing", [*NOT_REGULAR, text, empty, other_dataset])
def test_an_export_makes_a_folder(folder, existing):
    existing(folder)
    before = snapshot(folder)
    with pytest.raises(DatasetError, match="out exists already"):
        main(["export", "data.h5", "--format", "well", "--out", "out"])
    assert snapshot(folder) == before


@pytest.mark.parametrize("out", ["data.h5", "data.h5.parts", "data.h5.lock", "data.h5.parts/x"])
def test_an_export_is_no_part_of_the_dataset(folder, out):
    before = snapshot(folder)
    with pytest.raises(DatasetError, match=r"belongs to the dataset|exists already"):
        export_well("data.h5", out, progress=False)
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


def test_unused_paths(tmp_path):
    path = tmp_path / "a.b.png"
    assert unused_path(path) == path
    path.touch()
    assert unused_path(path).name == "a.b-v1.png"
    (tmp_path / "a.b-v1.png").symlink_to("nothing")
    assert unused_path(path).name == "a.b-v2.png"


def log_plot(folder):
    trainer = SimpleNamespace(global_step=3, loggers=[])
    log_plots(trainer, {"a/b": Figure()}, folder)
    return folder / "plots" / "a" / "b", "step_3.png", PNG.start


def log_report(folder):
    trainer = SimpleNamespace(log_dir=str(folder), is_global_zero=True, loggers=[], global_step=0)
    report = CheckReport(())
    DatasetReport()._log(trainer, report)
    return folder, "dataset_report.txt", report.table().encode()


@pytest.mark.parametrize("log", [log_plot, log_report])
@pytest.mark.parametrize("existing", [text, dangling_link])
def test_callbacks_replace_nothing_in_the_log_folder(tmp_path, log, existing):
    folder, name, start = log(tmp_path)
    stem, suffix = os.path.splitext(name)
    os.remove(folder / name)
    existing(folder)
    os.rename(folder / "out", folder / name)
    before = snapshot(folder)
    log(tmp_path)
    log(tmp_path)
    after = snapshot(folder)
    for version in (1, 2):
        assert after.pop(f"{stem}-v{version}{suffix}")[1].startswith(start)
    assert after == before
