"""Ways to write an output, and the check that a refused one changes nothing."""

import os
from pathlib import Path

import pytest

from spinlock.commands.command_line import main
from spinlock.commands.plot import plot_sample
from spinlock.errors import ConfigurationError
from spinlock.report import report_builder as build, write_report
from spinlock.runtime.output_files import PNG
from tests.helpers import small_config

KINDS = {"plot": PNG, "report": build.PAGE}
CONFIG = small_config(3, grid_size=24, num_realizations=1, channels=1, num_timesteps=1)


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
            with pytest.raises((ConfigurationError, SystemExit)) as caught:
                write(command, source, out, force=forced)
        assert snapshot(folder) == before
        if isinstance(caught.value, SystemExit):
            # The parser refuses a link to itself, as it refuses other paths that no file can have.
            assert caught.value.code == 2
            assert (folder / out).readlink() == Path(out)
            continue
        assert caught.match(message)
        text = str(caught.value)
        assert text.startswith(str(out))
        assert "choose another file" in text
        assert "\n" not in text


def unreachable(*arguments, **options):
    raise AssertionError("the output was not checked before the work")
