"""Executors: where shards are computed. Any `concurrent.futures.Executor` will do.

`LocalProcesses` runs one spawned process per GPU of this machine, `DaskExecutor` a dask cluster;
``mpi4py.futures.MPIPoolExecutor`` fits as it is. Each worker writes its own shards to the folder
that all share, and returns numbers only.
"""

import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch

from spinlock.runtime.threads import end_by

_P = ParamSpec("_P")
_T = TypeVar("_T")
_SIGNALS = signal.SIGINT, signal.SIGTERM
# How long a process that is told to end may take to remove what it has half written.
_SECONDS_TO_END = 4.0


class _LazyExecutor(Executor, ABC):
    """Starts the executor that does the work when the first task comes, and again if it broke."""

    def __init__(self) -> None:
        self._executor: Executor | None = None

    @abstractmethod
    def _start(self) -> Executor:
        """The executor that does the work."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        if self._executor is None:
            self._executor = self._start()
        try:
            return self._executor.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            # A worker was killed, and with it the pool: what is submitted from now on gets another.
            self._executor = self._start()
            return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; another task would start them anew."""
        if self._executor is not None:
            self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)
            self._executor = None


class LocalProcesses(_LazyExecutor):
    """Spawned processes on this machine: one per GPU, or sharing the processor's cores.

    They end with the process that started them, however it ends.

    Args:
        num_workers: Processes; by default one per GPU, or one per core where there is none.
        threads_per_worker: Threads that each process computes with; by default an equal share of
            the cores.
    """

    def __init__(
        self, num_workers: int | None = None, threads_per_worker: int | None = None
    ) -> None:
        super().__init__()
        cores = os.cpu_count() or 1
        self.num_workers = num_workers or torch.cuda.device_count() or cores
        self.threads_per_worker = threads_per_worker or max(1, cores // self.num_workers)

    def _start(self) -> Executor:
        # Forked processes can use neither CUDA nor OpenMP of a parent that has.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            self.num_workers,
            mp_context=context,
            initializer=_prepare_worker,
            initargs=(context.Value("i", 0), self.threads_per_worker),
        )

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        # A process that is started here first reads what it is to do.
        with _signals_deferred():
            return super().submit(_until_told_to_end, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; another task would start them anew.

        Args:
            wait: Whether to wait for the tasks.
            cancel_futures: Whether to cancel tasks that have not begun. Those that have are broken
                off, too, unless they are waited for: what they have half written is removed, and
                no process is left when this returns.
        """
        # Kept until the end: the pool cancels its tasks in a thread of its own, while it is there.
        pool = self._executor
        workers = list((getattr(pool, "_processes", None) or {}).values())
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if cancel_futures and not wait:
            _end(workers)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Signals that come meanwhile act afterwards; to processes started meanwhile, once prepared."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Starting the tracker would unblock the signals.
    resource_tracker.ensure_running()
    came: list[int] = []
    handlers = {
        signum: signal.signal(signum, lambda signum, frame: came.append(signum))
        for signum in _SIGNALS
        # None: a handler that is not Python's.
        if signal.getsignal(signum) is not None
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for number in came:
            signal.raise_signal(number)


def _end(workers: Sequence[BaseProcess]) -> None:
    """Tell processes to end, and kill those that do not."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _SECONDS_TO_END
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _prepare_worker(counter: "Synchronized[int]", threads: int) -> None:
    """Give a worker its share of the cores, and a GPU of its own."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    for signum in _SIGNALS:
        signal.signal(signum, _on_signal)
    # Not while it starts: an exception there would be printed.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class _ToldToEnd(BaseException):
    """A worker has been told to end while it computes."""


class _Worker:
    """What this process is doing, if it is a worker."""

    busy = False


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if not _Worker.busy:
        os._exit(128 + signum)
    # Once: another signal must not interrupt the removal of what is half written.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    end_by(_ToldToEnd(128 + signum))


def _until_told_to_end(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a worker, which would otherwise go on after any exception."""
    _Worker.busy = True
    try:
        return fn(*args, **kwargs)
    except _ToldToEnd as end:
        # Not sys.exit, which waits for threads that still compute.
        os._exit(int(str(end)))
    finally:
        _Worker.busy = False


def _end_with_parent() -> None:
    """In a thread of a worker: wait until the process that started it is gone, then end."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # The first condition fails to notice where another child of the parent keeps a pipe open.
    while parent.is_alive() and os.getppid() == parent.pid:
        parent.join(1.0)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(128 + signal.SIGTERM)


class DaskExecutor(_LazyExecutor):
    """A dask cluster. A shard whose worker is lost goes to another one.

    Args:
        address: Of a running scheduler. None: start a cluster of processes on this machine.
        num_workers: Processes of that cluster; by default one per core.
        retries: How often a task whose worker was lost is tried again.
    """

    def __init__(
        self, address: str | None = None, num_workers: int | None = None, retries: int = 3
    ) -> None:
        super().__init__()
        self.address, self.num_workers, self.retries = address, num_workers, retries
        self._owned: list[Any] = []

    def _start(self) -> Executor:
        try:
            import distributed
        except ImportError as error:
            raise ImportError("DaskExecutor needs dask: pip install 'spinlock[cluster]'") from error
        if self.address is None:
            workers = self.num_workers or os.cpu_count()
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            )
            client = distributed.Client(cluster)
            self._owned = [client, cluster]
        else:
            client = distributed.Client(self.address)
            self._owned = [client]
        executor: Executor = client.get_executor(retries=self.retries, pure=False)
        return executor

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, and end it if it was started here."""
        if self._executor is not None:
            # dask's own shutdown knows no cancel_futures; leaving the cluster cancels them.
            self._executor.shutdown(wait=wait and not cancel_futures)
            self._executor = None
        while self._owned:
            self._owned.pop(0).close()
