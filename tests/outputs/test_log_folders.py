"""Callbacks replace no file in the log folder."""

import os
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from spinlock.callbacks import DatasetReport
from spinlock.callbacks.plot_logging import log_plots
from spinlock.checks import CheckReport
from spinlock.runtime.output_files import PNG, unused_path
from tests.outputs.existing_files import dangling_link, text
from tests.outputs.writing import snapshot


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
