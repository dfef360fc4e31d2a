"""The search for faults itself: what it finds, and its short form without faults."""

import os
import signal
import sys
import time

import pytest

from benchmarks.faults.__main__ import KINDS, search
from benchmarks.faults.processes import observe
from benchmarks.faults.verdicts import changes, problems_of, snapshot


def hang():
    time.sleep(60)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def fail():
    raise KeyError("a bug")


def use_memory():
    bytearray(3 << 30)


def explain_in_two_lines():
    sys.exit("spinlock: error: this\nis too long")


def explain_in_color():
    sys.exit("spinlock: error: \x1b[31mred")


def explain():
    sys.exit("spinlock: error: batch_size: must be at least 1, got 0")


FAULTS = {
    hang: "hangs",
    crash: "signal 11",
    fail: "KeyError",
    use_memory: "MemoryError",
    explain_in_two_lines: "2 lines",
    explain_in_color: r"'\x1b'",
}


@pytest.mark.parametrize("function", FAULTS, ids=lambda function: function.__name__)
def test_ends_that_are_faults(function, tmp_path):
    (problem,) = problems_of(observe(function, tmp_path, seconds=1 if function is hang else 20))
    assert FAULTS[function] in problem


def test_a_clear_line_is_no_fault(tmp_path):
    outcome = observe(explain, tmp_path)
    assert outcome.status == 1
    assert not problems_of(outcome)
    assert not problems_of(observe(lambda: print("done"), tmp_path))


def test_changes_of_a_folder_are_found(tmp_path):
    for name in ("kept", "changed", "removed"):
        (tmp_path / name).write_text("before")
    before = snapshot(tmp_path)
    (tmp_path / "changed").write_text("after")
    (tmp_path / "removed").unlink()
    (tmp_path / "new").mkdir()
    assert changes(before, snapshot(tmp_path)) == [
        "changes changed",
        "leaves new",
        "removes removed",
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "configurations",
        "numbers",
        *(
            pytest.param(kind, marks=pytest.mark.repeated)
            for kind in ("files", "paths", "checkpoints", "kills", "disk", "numerics")
        ),
    ],
)
def test_the_short_form_finds_no_fault(kind):
    assert kind in KINDS
    (tally,) = search([kind], seed=0, share=0.01 if kind == "numerics" else 0.02)
    assert tally.trials > 0
    assert not tally.faults
