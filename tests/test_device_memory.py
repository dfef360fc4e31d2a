"""A device without enough memory leads to an error that says what to do, or to the same bytes."""

import itertools
import weakref

import numpy as np
import pytest
import torch

from spinlock.errors import SimulationError
from spinlock.generation import extract_features, generate
from spinlock.runtime import device_memory
from spinlock.runtime.device_memory import computed_in_memory
from spinlock.simulation import simulator as simulators
from spinlock.simulation.operator_runs import NEW_NOISE, OperatorRunner, Run
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from spinlock.storage.columns import sample_arrays
from tests.helpers import small_config

SIZE = 8
CONFIG = small_config(SIZE, block_size=SIZE, grid_size=24, num_realizations=1)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")


class Failing:
    """A function that raises an error, or lets allocations fail, in its first calls."""

    def __init__(self, times, error=None, device=None, hidden=0):
        self.times, self.error, self.device, self.hidden = times, error, device, hidden
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            if self.device is not None:
                reported = isinstance(self.error, torch.OutOfMemoryError)
                self.device.failures += self.hidden + reported
            if self.error is not None:
                raise self.error
        return self.calls


class Gpu:
    """What torch says of the memory of a GPU."""

    def __init__(self, monkeypatch):
        self.failures = self.emptied = 0
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": self.failures})
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty)
        monkeypatch.setattr(torch.cuda, "mem_get_info", self.info)

    def empty(self):
        self.emptied += 1

    def info(self, device):
        return 3e8, 79.1e9


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(device_memory, "_OTHER_ALGORITHMS", set())
    return Gpu(monkeypatch)


def computed(function, device="cuda:1"):
    return computed_in_memory(function, torch.device(device), "samples 3..5", "Use less.")


REPORTS = [
    OUT_OF_MEMORY,
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]


@pytest.mark.parametrize("report", REPORTS, ids=str)
def test_every_report_of_too_little_memory_becomes_one_error(report, gpu):
    function = Failing(2, report)
    with pytest.raises(SimulationError) as caught:
        computed(function)
    first = str(report).splitlines()[0].rstrip(".")
    assert str(caught.value) == (
        "samples 3..5: the memory of cuda:1, of which 0.3 of 79.1 GB are free, does not suffice "
        f"({first}). Other programs may use that memory. Use less."
    )
    assert (function.calls, gpu.emptied) == (2, 2)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_not_touched(error, gpu):
    function = Failing(2, error)
    with pytest.raises(type(error)) as caught:
        computed(function)
    assert caught.value is error
    assert function.calls == 1


@pytest.mark.parametrize("error", REPORTS, ids=str)
def test_a_second_attempt_may_succeed(error, gpu):
    assert computed(Failing(1, error, gpu)) == 2
    assert gpu.emptied == 1


@pytest.mark.parametrize("error", [None, *REPORTS], ids=str)
def test_after_a_hidden_failure_the_device_is_not_used_any_more(error, gpu):
    """PyTorch keeps the algorithm that cuDNN took, so that a second attempt would hide it."""
    gpu.failures = 7  # of others
    assert computed(Failing(0)) == 1
    function = Failing(1, error, gpu, hidden=1)
    with pytest.raises(SimulationError, match=r"rounds differently .* start a new one, .* Use"):
        computed(function)
    assert function.calls == 1
    later = Failing(0)
    with pytest.raises(SimulationError, match="nothing more on cuda:1"):
        computed(later)
    assert later.calls == 0
    assert computed(later, "cuda:0") == 1


def test_a_device_that_does_not_answer_is_named_alone(gpu, monkeypatch):
    def silent(device):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch.cuda, "mem_get_info", silent)
    with pytest.raises(SimulationError, match="the memory of cuda:1 does not suffice"):
        computed(Failing(2, OUT_OF_MEMORY))
    with pytest.raises(SimulationError, match="the memory of cpu does not suffice"):
        computed(Failing(2, OUT_OF_MEMORY), "cpu")


def of_a_block(wanted):
    """Samples of a whole block in one batch, as a GPU computes them."""
    simulator = Simulator(CONFIG, "cpu")
    return simulator._finished(simulator._simulate(make_design(CONFIG, 0, SIZE), wanted))


class NoRoom:
    """Lets features run out of memory in the first calls, and observes what is alive then."""

    def __init__(self, monkeypatch, times):
        self.times, self.fields, self.alive = times, [], []
        self._original = simulators.extract
        monkeypatch.setattr(simulators, "extract", self)

    def __call__(self, fields):
        self.alive.append(self.living())
        self.fields.append(weakref.ref(fields))
        if len(self.fields) <= self.times:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._original(fields)

    def living(self):
        return sum(reference() is not None for reference in self.fields)


def test_a_second_attempt_has_the_same_bytes_and_all_memory(monkeypatch):
    expected = sample_arrays(of_a_block(range(1, 6)))
    features = NoRoom(monkeypatch, 1)
    found = sample_arrays(of_a_block(range(1, 6)))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert features.alive == [0, 0], "the failed attempt keeps nothing alive"


def test_a_block_that_does_not_fit_is_named_and_leaves_nothing(monkeypatch):
    features = NoRoom(monkeypatch, 2)
    with pytest.raises(SimulationError, match=r"^samples 0\.\.7, .*\.block_size") as caught:
        of_a_block(range(2, 4))
    assert features.alive == [0, 0]
    assert features.living() == 0, "the error is still here, and its traceback"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "a.h5"
    generate(CONFIG, path, device="cpu", progress=False)
    return path


USES = {
    "samples": lambda file: list(Simulator(CONFIG, "cpu").samples(0, 2)),
    "operator 3 under 2 initial": lambda file: list(
        OperatorRunner(CONFIG, "cpu").run(
            [Run(3, [0, 1])], torch.ones(2, 3, 24, 24), [NEW_NOISE, NEW_NOISE + 1], torch.mean
        )
    ),
    "features of samples": lambda file: extract_features(file, device="cpu", progress=False),
}


@pytest.mark.parametrize("work", USES)
def test_whatever_computes_fields_or_features_counts_failed_allocations(work, file, monkeypatch):
    failures = itertools.count()
    monkeypatch.setattr(device_memory, "_failed_allocations", lambda device: next(failures))
    before = file.read_bytes()
    with pytest.raises(SimulationError, match=f"^{work} .* rounds differently"):
        USES[work](file)
    assert file.read_bytes() == before
