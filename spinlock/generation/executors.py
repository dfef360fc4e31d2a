"""Executors that compute shards in other processes or on a cluster.

Any `concurrent.futures.Executor` can be used. `LocalProcesses` starts one process per GPU of this
machine, `DaskExecutor` uses a dask cluster, and ``mpi4py.futures.MPIPoolExecutor`` works as it is.
Workers write their shards to a folder that all of them share, and return only statistics.
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
from typing import Any, ParamSpec, TypeVar

import torch

from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError, in_a_line
from spinlock.runtime.device_choice import take_turn
from spinlock.runtime.threads import available_cores

_P = ParamSpec("_P")
_T = TypeVar("_T")
_SIGNALS = signal.SIGINT, signal.SIGTERM
# Time after which a worker that was asked to end is killed.
_SECONDS_TO_END = 4.0


class _LazyExecutor(Executor, ABC):
    """Starts the underlying executor with the first task, and again if it breaks."""

    def __init__(self) -> None:
        self._executor: Executor | None = None

    @abstractmethod
    def _start(self) -> Executor:
        """Return a new underlying executor."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        if self._executor is None:
            self._executor = self._start()
        try:
            return self._executor.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            # A killed worker breaks its whole pool, so further tasks need a new one.
            self._executor = self._start()
            return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers. A later task starts new ones."""
        if self._executor is not None:
            self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)
            self._executor = None


class LocalProcesses(_LazyExecutor):
    """Spawned processes on this machine, which take turns at its GPUs or share the CPU's cores.

    The processes end when the process that started them ends, even if it is killed.

    Args:
        num_workers: Number of processes; default: ``workers_per_gpu`` for each GPU, or one per core
            on a machine without GPUs.
        threads_per_worker: Number of threads that each process computes with; default: an equal
            share of the cores.
        workers_per_gpu: Number of processes that share a GPU by default; default: 1. While one of
            them draws random numbers or writes, another one can use the GPU.

    Example:
        >>> executor = LocalProcesses(num_workers=2, threads_per_worker=1)
        >>> executor.num_workers
        2
    """

    def __init__(
        self,
        num_workers: int | None = None,
        threads_per_worker: int | None = None,
        workers_per_gpu: int = 1,
    ) -> None:
        super().__init__()
        require_at_least({"threads_per_worker": threads_per_worker}, 1)
        cores = available_cores()
        self.num_workers = _number_of_workers(num_workers, workers_per_gpu)
        self.threads_per_worker = threads_per_worker or max(1, cores // self.num_workers)

    def _start(self) -> Executor:
        # A forked process cannot use CUDA or OpenMP after its parent has used them.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            self.num_workers,
            mp_context=context,
            initializer=_prepare_worker,
            initargs=(context.Value("i", 0), self.threads_per_worker),
        )

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        # If a signal interrupted this, a process that has just started would wait forever.
        with _signals_deferred():
            return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers. A later task starts new ones.

        Args:
            wait: Whether to wait for running tasks.
            cancel_futures: Whether to cancel tasks that have not started. With ``wait=False``,
                running tasks are aborted, too, and no worker is left when this returns.
        """
        # The reference is kept because the pool's thread cancels tasks only while the pool exists.
        pool = self._executor
        workers = list((getattr(pool, "_processes", None) or {}).values())
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if cancel_futures and not wait:
            _end(workers)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the end of the block.

    Processes that start within the block inherit the blocked signals, until `_prepare_worker`
    unblocks them. Python delivers signals to the main thread, so other threads need no delay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # The tracker is started first, because starting it within the block would unblock the signals.
    resource_tracker.ensure_running()
    received: list[int] = []
    handlers = {
        signum: signal.signal(signum, lambda signum, frame: received.append(signum))
        for signum in _SIGNALS
        # None is a handler that was not installed from Python, which could not be restored.
        if signal.getsignal(signum) is not None
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for number in received:
            signal.raise_signal(number)


def _end(workers: Sequence[BaseProcess]) -> None:
    """Terminate processes, and kill those that do not end in time."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _SECONDS_TO_END
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _prepare_worker(counter: "Synchronized[int]", threads: int) -> None:
    """Give a worker its share of the cores and its turn, and let signals end it at once."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    torch.set_num_threads(threads)
    take_turn(number)
    # A worker may be ended at any time: an unfinished shard that is left behind has a temporary
    # name, and the next run removes it.
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _number_of_workers(num_workers: int | None, workers_per_gpu: int) -> int:
    """Return the given or the default number of workers on this machine."""
    require_at_least({"workers_per_gpu": workers_per_gpu, "num_workers": num_workers}, 1)
    return num_workers or workers_per_gpu * torch.cuda.device_count() or available_cores()


def _end_with_parent() -> None:
    """End this worker when the process that started it has ended; runs in a thread."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # is_alive() is not enough: it stays true while another child of the parent has the pipe open.
    while parent.is_alive() and os.getppid() == parent.pid:
        parent.join(1.0)
    os._exit(128 + signal.SIGTERM)


class DaskExecutor(_LazyExecutor):
    """A dask cluster. If a worker is lost, its shards are computed by another one.

    Args:
        address: Address of a running scheduler; default: start a cluster of processes on this
            machine.
        num_workers: Number of processes of that cluster; default: ``workers_per_gpu`` for each GPU,
            or one per core on a machine without GPUs.
        retries: Number of times that a task is retried after its worker was lost; default: 3.
        workers_per_gpu: Number of processes of that cluster that share a GPU by default; default:
            1. The workers of a running scheduler have the GPUs that ``CUDA_VISIBLE_DEVICES`` gave
            them when they were started, as ``dask cuda worker`` does.

    Example:
        >>> executor = DaskExecutor(num_workers=2)  # the cluster starts with the first task
        >>> executor.retries
        3
    """

    def __init__(
        self,
        address: str | None = None,
        num_workers: int | None = None,
        retries: int = 3,
        workers_per_gpu: int = 1,
    ) -> None:
        super().__init__()
        require_at_least({"retries": retries}, 0)
        self.num_workers = _number_of_workers(num_workers, workers_per_gpu)
        self.address, self.retries = address, retries
        self._owned: list[Any] = []

    def _start(self) -> Executor:
        try:
            import distributed
        except ImportError as error:
            raise ImportError("DaskExecutor needs dask: pip install -e '.[cluster]'") from error
        if self.address is None:
            cluster = distributed.LocalCluster(
                n_workers=self.num_workers,
                threads_per_worker=1,
                dashboard_address=":0",
            )
            client = distributed.Client(cluster)
            self._owned = [client, cluster]
        else:
            try:
                client = distributed.Client(self.address)
            except (OSError, ValueError, TypeError) as error:
                problem = in_a_line(error)
                raise ConfigurationError(
                    f"executor.address: no scheduler of dask answers at {self.address!r}: {problem}"
                ) from error
            self._owned = [client]
        executor: Executor = client.get_executor(retries=self.retries, pure=False)
        return executor

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        if self.address is None:
            return super().submit(_with_turn, fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect from the cluster, and end it if it was started here."""
        if self._executor is not None:
            # dask's shutdown has no cancel_futures; closing the client below cancels the tasks.
            self._executor.shutdown(wait=wait and not cancel_futures)
            self._executor = None
        while self._owned:
            self._owned.pop(0).close()


def _with_turn(fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function in a worker of a local cluster, whose turn is its number.

    dask numbers the workers and keeps the number when it restarts one.
    """
    from distributed import get_worker

    take_turn(int(get_worker().name))
    return fn(*args, **kwargs)
