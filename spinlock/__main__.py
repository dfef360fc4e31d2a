"""`python -m spinlock` and the console script: the command line with errors in one line.

SIGTERM ends a command within seconds, and it leaves nothing half-written behind. While Lightning
trains, the signal is Lightning's.
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from yaml import YAMLError

from spinlock.commands.command_line import main as run
from spinlock.errors import SpinlockError
from spinlock.runtime.threads import end_by

# How long a process that is told to end may take for it.
_SECONDS_TO_END = 6.0
# What becomes of the work, by the module at work when the signal comes.
_KEPT = {
    "spinlock.generation.build": (
        "; finished shards are kept, and the same command resumes from them"
    ),
    "spinlock.generation.feature_extraction": (
        "; the file is unchanged, and the same command starts again"
    ),
}


def main() -> None:
    """Run the command line; what the user can mend is reported without a traceback."""
    try:
        with _sigterm_raises():
            run()
        return
    except (SpinlockError, OSError, YAMLError) as error:
        sys.exit(f"spinlock: error: {error}")
    except KeyboardInterrupt:
        end = _End(signal.SIGINT, "interrupted")
    except _Terminated as terminated:
        end = terminated.end
    # Here, where no traceback is left that keeps frames, and the files they have open, alive.
    end.announce()
    sys.exit(end.status)


class _End:
    """How the process ends because of a signal, after some seconds at the latest.

    Args:
        signum: The signal.
        message: What to say.
    """

    def __init__(self, signum: int, message: str) -> None:
        # As shells report it.
        self.status = 128 + signum
        self._message: str | None = f"spinlock: {message}"
        # A plain thread: to start one of `threading` takes a lock that a signal's handler may find
        # taken by what it interrupts.
        _thread.start_new_thread(self._in_time, ())

    def announce(self) -> None:
        """Print the message, once."""
        message, self._message = self._message, None
        if message is not None:
            print(message, file=sys.stderr, flush=True)

    def _in_time(self) -> None:
        # What is left by then: threads that compute, which the interpreter waits for.
        time.sleep(_SECONDS_TO_END)
        self.announce()
        os._exit(self.status)


class _Terminated(BaseException):
    """SIGTERM has come."""

    def __init__(self, end: _End) -> None:
        super().__init__()
        self.end = end


def _kept(frame: FrameType | None) -> str:
    """What becomes of the work of a frame."""
    while frame is not None:
        if kept := _KEPT.get(frame.f_globals.get("__name__", "")):
            return kept
        frame = frame.f_back
    return ""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Make SIGTERM raise `_Terminated` in the main thread of this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        if signal.getsignal(signum) is not on_sigterm:
            # Called by a handler that has taken the place of this one: Lightning's, which ends the
            # training after a step.
            return
        if os.getpid() != process:
            # A forked child, which ends as if there were no handler.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        signal.signal(signum, signal.SIG_IGN)
        end_by(_Terminated(_End(signum, f"terminated{_kept(frame)}")))

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is on_sigterm:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
