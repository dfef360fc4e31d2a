"""Runs functions in forked processes under limits, and reports how they end.

Imports take seconds, so the parent imports everything first and forks a child for each trial. A
child has a session of its own, pipes in place of the standard streams, and 2 GiB of memory more
than its parent.
"""

import fcntl
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

#: Seconds after which a process counts as one that hangs.
SECONDS = 30.0
#: Memory in bytes that a process may use on top of what it shares with its parent.
MEMORY = 2 << 30
# Bytes of the text of a process that are kept until it ends.
_MOST_TEXT = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Args:
        status: Exit status; negative: number of the signal that ended the process.
        out: Text that it wrote to the standard output.
        err: Text that it wrote to the standard error.
        seconds: Wall-clock time in seconds.
        grown: Growth of the resident memory in bytes.
        hung: Whether it was ended because the time was over.
    """

    status: int
    out: str
    err: str
    seconds: float
    grown: int
    hung: bool


class Child:
    """A function that runs in a forked process.

    Args:
        function: Function without arguments.
        folder: Working folder of the process.
        file_bytes: Largest file in bytes that it may write; default: any.
    """

    def __init__(
        self, function: Callable[[], object], folder: Path, *, file_bytes: int | None = None
    ) -> None:
        # Pipes, because a limit of the size of files would also limit files in their place.
        pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(2)]
        for _, end in pipes:
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _MOST_TEXT)
            os.set_blocking(end, True)
        self._ends, streams = [pipe[0] for pipe in pipes], [pipe[1] for pipe in pipes]
        self._start, self._resident = time.monotonic(), _status_bytes("VmRSS")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(function, folder, streams, file_bytes)
        for end in streams:
            os.close(end)

    def outcome(self, seconds: float = SECONDS) -> Outcome:
        """Wait until the process ends, or end it after some seconds; can be called once."""
        hung = not self.ends_within(seconds)
        if hung:
            os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        texts = []
        for end in self._ends:
            parts = []
            with suppress(BlockingIOError):
                while part := os.read(end, _MOST_TEXT):
                    parts.append(part)
            texts.append(b"".join(parts).decode(errors="backslashreplace"))
            os.close(end)
        return Outcome(
            status=os.waitstatus_to_exitcode(status),
            out=texts[0],
            err=texts[1],
            seconds=time.monotonic() - self._start,
            grown=max(0, 1024 * usage.ru_maxrss - self._resident),
            hung=hung,
        )

    def _waited(self) -> float:
        """Return the seconds for which the process waited for a processor that others use."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def ends_within(self, seconds: float) -> bool:
        """Whether the process ends before it has run or slept for some seconds."""
        while time.monotonic() - self._start - self._waited() < seconds:
            # The process stays a zombie, so that wait4 reports its use of memory.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            time.sleep(0.005)
        return False


def observe(
    function: Callable[[], object],
    folder: Path,
    *,
    seconds: float = SECONDS,
    file_bytes: int | None = None,
) -> Outcome:
    """Run a function in a process, and report how it ends; the arguments are those of `Child`."""
    return Child(function, folder, file_bytes=file_bytes).outcome(seconds)


def command(*arguments: object) -> Callable[[], object]:
    """Return a function that does what ``spinlock ARGUMENTS`` does."""

    def run() -> None:
        from spinlock.__main__ import main

        sys.argv = ["spinlock", *map(str, arguments)]
        main()

    return run


def _run(
    function: Callable[[], object],
    folder: Path,
    streams: list[int],
    file_bytes: int | None,
) -> None:
    """Run a function in the child; never returns."""
    status = 70
    try:
        os.setsid()
        # A shell may have started this process with the signal ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        # The parent's may be those of a test runner.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        # The threads of OpenMP are not forked.
        torch.set_num_threads(1)
        _limit(resource.RLIMIT_AS, _status_bytes("VmSize") + MEMORY)
        _limit(resource.RLIMIT_CORE, 0)
        if file_bytes is not None:
            # Writing then fails with EFBIG, as `ulimit -f` makes it where the signal is ignored.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            _limit(resource.RLIMIT_FSIZE, file_bytes)
        function()
        status = 0
    except SystemExit as end:
        status = 0 if end.code is None else 1
        if isinstance(end.code, int):
            status = end.code
        elif end.code is not None:
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _limit(kind: int, size: int) -> None:
    resource.setrlimit(kind, (size, resource.getrlimit(kind)[1]))


def _status_bytes(name: str) -> int:
    """Return a size of this process from /proc, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status lacks {name}")
