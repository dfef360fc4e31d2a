"""`python -m spinlock` and the console script, which report errors in one line.

SIGTERM ends a command within seconds. While Lightning trains, Lightning handles the signal.
"""

import _thread
import codecs
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType, TracebackType

from yaml import YAMLError

from spinlock.commands.command_line import main as run
from spinlock.errors import NonFiniteError, SpinlockError, in_a_line, interruption
from spinlock.runtime.progress import printable
from spinlock.runtime.threads import end_by

# Time after which the process ends even if threads still compute.
_SECONDS_TO_END = 6.0
# Time after which a signal that was ignored comes again.
_SECONDS_TO_RETURN = 0.05


def main() -> None:
    """Run the command line, and report errors that the user can fix without a traceback."""
    _open_standard_streams()
    _write_any_text()
    try:
        with _sigterm_raises(), interrupts_return():
            run()
        return
    except (SpinlockError, OSError, YAMLError) as error:
        message = str(error)
        if isinstance(error, NonFiniteError | YAMLError):
            message = in_a_line(error)
        message = "\n".join(map(printable, message.split("\n")))
        sys.exit(f"spinlock: error: {message}")
    except (KeyboardInterrupt, _Terminated) as error:
        end = _end_by(error)
    except SystemError as error:
        # What h5py makes of an exception that a signal raises in a callback of HDF5.
        signaled = interruption(error)
        if not isinstance(signaled, KeyboardInterrupt | _Terminated):
            raise
        end = _end_by(signaled)
        del signaled
    # Here the traceback is gone, and with it the frames that keep files open.
    end.announce()
    sys.exit(end.status)


def _open_standard_streams() -> None:
    """Open the null device in place of each standard stream that the caller closed.

    The first file that the process opens would otherwise have its number, and get its messages.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _write_any_text() -> None:
    """Make the standard streams take any text: as UTF-8 in an ASCII locale, else with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            encoding = "utf-8" if ascii_only else stream.encoding
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


class _End:
    """Ends the process because of a signal, by force after some seconds.

    Args:
        signum: Number of the signal.
        message: Message to print.
    """

    def __init__(self, signum: int, message: str) -> None:
        # The exit status that shells use.
        self.status = 128 + signum
        self._message: str | None = f"spinlock: {message}"
        # Not threading.Thread: starting one takes a lock that the interrupted code may hold.
        _thread.start_new_thread(self._in_time, ())

    def announce(self) -> None:
        """Print the message, once."""
        message, self._message = self._message, None
        if message is not None:
            print(message, file=sys.stderr, flush=True)

    def _in_time(self) -> None:
        # The interpreter would wait for threads that still compute.
        time.sleep(_SECONDS_TO_END)
        self.announce()
        os._exit(self.status)


class _Terminated(BaseException):
    """Raised in the main thread by SIGTERM."""

    def __init__(self, end: _End) -> None:
        super().__init__()
        self.end = end


def _end_by(error: "KeyboardInterrupt | _Terminated") -> _End:
    return error.end if isinstance(error, _Terminated) else _End(signal.SIGINT, "interrupted")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Make SIGTERM raise `_Terminated` in the main thread of this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        if signal.getsignal(signum) is not on_sigterm:
            # Lightning's handler, which ends the training after the current step, has replaced this
            # one and calls it.
            return
        if os.getpid() != process:
            # A forked child ends as it would without a handler.
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        message = "terminated; run the same command again: what is finished is kept"
        end, again = _End(signum, message), _comes_again(signal.SIGTERM)

        def terminate(*_: object) -> None:
            signal.signal(signum, signal.SIG_IGN)
            end_by(_Terminated(end), lost)

        def lost() -> None:
            signal.signal(signum, terminate)
            again()

        terminate()

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is on_sigterm:
            signal.signal(signal.SIGTERM, before)


def _comes_again(
    signum: signal.Signals, wanted: Callable[[], bool] = lambda: True
) -> Callable[[], None]:
    """Return a function that lets a signal come again after a while; several calls count as one.

    Args:
        signum: Number of the signal.
        wanted: Function that tells after this while whether to send it; default: always.
    """
    waiting: list[int] = []

    def send() -> None:
        # The code that ignored the exception has ended by then.
        time.sleep(_SECONDS_TO_RETURN)
        waiting.clear()
        if wanted():
            _thread.interrupt_main(signum)

    def again() -> None:
        if not waiting:
            waiting.append(signum)
            _thread.start_new_thread(send, ())

    return again


@contextmanager
def interrupts_return() -> Iterator[None]:
    """Send SIGINT again if the code that it interrupts ignores exceptions, such as a destructor.

    Example:
        >>> with interrupts_return():
        ...     pass
    """
    hooks, running = (sys.unraisablehook, sys.excepthook), True
    again = _comes_again(signal.SIGINT, lambda: running)

    def on_ignored(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again()
        else:
            hooks[0](unraisable)

    def on_printed(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            again()
        else:
            hooks[1](kind, error, traceback)

    sys.unraisablehook, sys.excepthook = on_ignored, on_printed
    try:
        yield
    finally:
        running = False
        if sys.unraisablehook is on_ignored:
            sys.unraisablehook, sys.excepthook = hooks


if __name__ == "__main__":
    main()
