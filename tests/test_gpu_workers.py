"""Workers take turns at the GPUs of a machine; without GPUs they are as many as cores."""

from types import SimpleNamespace

import pytest
import torch

from spinlock.errors import ConfigurationError
from spinlock.generation import executors
from spinlock.generation.executors import DaskExecutor, LocalProcesses
from spinlock.runtime.threads import available_cores


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
    assert DaskExecutor(workers_per_gpu=each)._default_workers == expected
    assert LocalProcesses(num_workers=5, workers_per_gpu=each).num_workers == 5


def test_without_gpus_there_is_a_worker_for_each_core(gpus):
    gpus(0)
    assert LocalProcesses(workers_per_gpu=3).num_workers == available_cores()
    assert DaskExecutor(workers_per_gpu=3)._default_workers == available_cores()
    with pytest.raises(ConfigurationError, match="workers_per_gpu"):
        LocalProcesses(workers_per_gpu=0)


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [0] * 5), (2, [0, 1, 0, 1, 0]), (8, [0, 1, 2, 3, 4])]
)
def test_workers_take_turns_at_the_gpus(count, expected, gpus, monkeypatch):
    current = gpus(count)
    for number in range(5):
        executors._use_gpu(number)
    assert current == expected
    # dask gives a restarted worker the number of the lost one, as a number or as text.
    distributed = pytest.importorskip("distributed")
    current.clear()
    for name in (0, 1, "2", 3, "4"):
        worker = SimpleNamespace(name=name)
        monkeypatch.setattr(distributed, "get_worker", lambda worker=worker: worker)
        assert executors._on_own_gpu(pow, 2, exp=3) == 8
    assert current == expected


@pytest.mark.parametrize("address", [None, "tcp://127.0.0.1:8786"])
def test_only_workers_of_an_own_cluster_choose_a_gpu(address, monkeypatch):
    """Those of another cluster were given theirs when they were started."""
    submitted = []
    pool = SimpleNamespace(submit=lambda fn, *args, **kwargs: submitted.append((fn, args)))
    executor = DaskExecutor(address=address)
    monkeypatch.setattr(executor, "_start", lambda: pool)
    executor.submit(pow, 2, 3)
    assert submitted == [(executors._on_own_gpu, (pow, 2, 3)) if address is None else (pow, (2, 3))]
