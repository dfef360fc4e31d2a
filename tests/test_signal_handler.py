"""The handler of signals leaves those of others alone, and executors end their workers."""

import os
import signal
import sys
import threading
import time

import h5py
import pytest

from spinlock import __main__ as command
from spinlock.errors import ConfigurationError
from spinlock.generation.executors import LocalProcesses
from spinlock.runtime import threads

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


class Destroyed:
    """Sends a signal while it is destroyed, where Python prints exceptions and goes on."""

    def __init__(self, signum):
        self.signum = signum

    def __del__(self):
        signal.raise_signal(self.signum)


def in_a_destructor(signum):
    made = Destroyed(signum)
    del made


def in_a_callback(signum):
    """h5py raises a SystemError."""
    with h5py.File("a.h5", "w", driver="core", backing_store=False) as file:
        file["values"] = 1
        file.id.links.visit(lambda *_: signal.raise_signal(signum))


def in_code_that_prints(signum):
    """As compiled code does that cannot raise."""
    try:
        signal.raise_signal(signum)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)


@pytest.fixture
def hooks(monkeypatch):
    """The handlers and hooks of a new process, which are put back afterwards."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    # It would end the tests.
    monkeypatch.setattr(command._End, "_in_time", lambda self: None)
    monkeypatch.setattr(threads, "_ENDING", threading.Event())
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("interrupted", [in_a_destructor, in_a_callback, in_code_that_prints])
def test_a_signal_ends_a_command_wherever_it_comes(signum, interrupted, hooks, monkeypatch, capfd):
    cleaned = []

    def work():
        try:
            interrupted(signum)
            # A signal that was lost would not end this.
            for _ in range(1000):
                time.sleep(0.01)
        finally:
            # Only one exception comes.
            time.sleep(0.2)
            cleaned.append(True)

    monkeypatch.setattr(command, "run", work)
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 128 + signum
    assert cleaned
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("spinlock: ")
