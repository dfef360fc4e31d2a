"""Executors: where shards are computed. Any `concurrent.futures.Executor` will do.

`LocalProcesses` runs one spawned process per GPU of this machine, `DaskExecutor` a dask cluster;
``mpi4py.futures.MPIPoolExecutor`` fits as it is. Each worker writes its own shards to the folder
that all share, and returns numbers only.
"""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from typing import Any, ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")


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


def _prepare_worker(counter: "Synchronized[int]", threads: int) -> None:
    """Give a worker its share of the cores, and a GPU of its own."""
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


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
