"""Files that appear during the work are kept, and interrupted work leaves no files."""

import errno
import os
import uuid
from types import SimpleNamespace

import pytest

from spinlock.checks import CheckReport
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.report import report_builder as build, write_report
from tests.outputs.existing_files import text
from tests.outputs.writing import snapshot


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
