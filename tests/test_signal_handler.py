"""The handler of signals leaves those of others alone, and executors end their workers."""

import os
import signal
import sys
import time

import pytest

from spinlock import __main__ as command
from spinlock.__main__ import interrupts_return
from spinlock.errors import ConfigurationError
from spinlock.generation.executors import LocalProcesses

pytestmark = pytest.mark.slow


def test_a_handler_that_took_over_is_not_disturbed(monkeypatch):
    """Lightning's calls the one that it found; while it trains, the signal is its own."""
    came = []

    def train():
        found = signal.getsignal(signal.SIGTERM)

        def compose(signum, frame):
            came.append(signum)
            found(signum, frame)

        signal.signal(signal.SIGTERM, compose)
        signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, found)

    monkeypatch.setattr(command, "run", train)
    before = signal.getsignal(signal.SIGTERM)
    command.main()
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_child_ends_as_without_a_handler(monkeypatch):
    statuses = []

    def fork():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
                time.sleep(10)
            finally:
                os._exit(1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    monkeypatch.setattr(command, "run", fork)
    command.main()
    assert statuses == [-signal.SIGTERM]


def test_the_handler_is_gone_after_an_error(monkeypatch):
    def fail():
        raise ConfigurationError("no")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "run", fail)
    with pytest.raises(SystemExit, match="spinlock: error: no"):
        command.main()
    assert signal.getsignal(signal.SIGTERM) is before


def wait_for_ever(path):
    path.touch()
    time.sleep(1000)


@pytest.mark.parametrize("busy", [True, pytest.param(False, marks=pytest.mark.repeated)])
def test_shutting_down_at_once_ends_the_workers(busy, tmp_path):
    executor = LocalProcesses(num_workers=1)
    assert executor.submit(os.getpid).result() != os.getpid()
    workers = list(executor._executor._processes.values())
    if busy:
        executor.submit(wait_for_ever, tmp_path / "begun")
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
    executor.shutdown(wait=False, cancel_futures=True)
    assert not any(worker.is_alive() for worker in workers)
    # Another task starts them anew.
    assert executor.submit(abs, -1).result() == 1
    executor.shutdown()


def test_an_interrupt_in_a_destructor_is_not_lost(monkeypatch, capfd):
    """Python prints a traceback there, and goes on."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Interrupted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work():
        made = Interrupted()
        del made
        # An interrupt that was lost would not end this.
        for _ in range(1000):
            time.sleep(0.01)

    try:
        with pytest.raises(KeyboardInterrupt), interrupts_return():
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Traceback" not in capfd.readouterr().err
    assert sys.unraisablehook is sys.__unraisablehook__
