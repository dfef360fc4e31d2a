"""Workers take turns at the GPUs of a machine; without GPUs they are as many as cores."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spinlock.errors import ConfigurationError
from spinlock.generation import executors, shard_task
from spinlock.generation.executors import DaskExecutor, LocalProcesses
from spinlock.generation.shard_task import ShardTask, compute_shard
from spinlock.runtime import device_choice
from spinlock.runtime.threads import available_cores
from tests.forks import FORK, Fork
from tests.helpers import small_config

CONFIG = small_config(4)


@pytest.fixture
def gpus(monkeypatch):
    """Function that sets the number of GPUs; returns the list of those that were made current."""

    def pretend(count):
        current = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    return pretend


@pytest.mark.parametrize(("count", "each", "expected"), [(1, 1, 1), (3, 1, 3), (2, 2, 4)])
def test_the_default_is_a_number_of_workers_for_each_gpu(count, each, expected, gpus):
    gpus(count)
    assert LocalProcesses(workers_per_gpu=each).num_workers == expected
    assert DaskExecutor(workers_per_gpu=each).num_workers == expected
    assert LocalProcesses(num_workers=5, workers_per_gpu=each).num_workers == 5


def test_without_gpus_there_is_a_worker_for_each_core(gpus):
    gpus(0)
    assert LocalProcesses(workers_per_gpu=3).num_workers == available_cores()
    assert DaskExecutor(workers_per_gpu=3).num_workers == available_cores()
    for executor in (LocalProcesses, DaskExecutor):
        for number in (None, 2):
            with pytest.raises(ConfigurationError, match="workers_per_gpu"):
                executor(num_workers=number, workers_per_gpu=0)


class ComputedError(Exception):
    """Ends a task where its samples would be computed."""


def current_gpus(tasks, prepare):
    """Return the GPUs that a worker has made current before it simulates each of the tasks."""
    prepare()
    current, seen = [], []

    def simulator(config, device):
        seen.append(current[-1] if current else None)
        raise ComputedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "set_device", current.append)
        patch.setattr(shard_task, "Simulator", simulator)
        for task in tasks:
            with pytest.raises(ComputedError):
                compute_shard(task)
    return seen


def tasks_of(*devices):
    return [ShardTask(CONFIG, Path(), 0, 4, device) for device in devices]


def test_workers_take_turns_at_the_gpus():
    """In a process of its own, since a worker handles signals in another way."""
    counter = FORK.Value("i", 0)
    prepare = partial(executors._prepare_worker, counter, 1)
    tasks = tasks_of(None, "cuda")
    found = [Fork(current_gpus, tasks, prepare).result() for _ in range(3)]
    assert found == [[0, 0], [1, 1], [0, 0]]
    options = LocalProcesses(num_workers=1)
    with options._start() as pool:  # starts no process yet
        assert pool._initializer is executors._prepare_worker


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_cuda_is_not_initialized_for_tasks_that_name_their_device(device):
    take_third = partial(device_choice.take_turn, 2)
    assert Fork(current_gpus, tasks_of(device), take_third).result() == [None]


def test_a_process_without_a_turn_leaves_the_current_gpu():
    assert current_gpus(tasks_of(None, "cuda", "cpu"), lambda: None) == [None] * 3


@pytest.mark.parametrize("name", [1, "3"])
def test_the_turn_of_a_dask_worker_is_its_number(name, monkeypatch):
    """A restarted worker has the number of the lost one, as a number or as text."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name=name))
    monkeypatch.setattr(device_choice, "_turn", None)
    assert executors._with_turn(current_gpus, tasks_of(None), prepare=lambda: None) == [1]


@pytest.mark.parametrize("address", [None, "tcp://127.0.0.1:8786"])
def test_only_workers_of_an_own_cluster_choose_a_gpu(address, monkeypatch):
    """Those of another cluster were given theirs when they were started."""
    submitted = []
    pool = SimpleNamespace(submit=lambda fn, *args, **kwargs: submitted.append((fn, args)))
    executor = DaskExecutor(address=address)
    monkeypatch.setattr(executor, "_start", lambda: pool)
    executor.submit(pow, 2, 3)
    assert submitted == [(executors._with_turn, (pow, 2, 3)) if address is None else (pow, (2, 3))]
