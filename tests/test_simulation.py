"""Samples are a pure function of configuration and index, and what is no sample is refused."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import get_ident
from time import sleep

import numpy as np
import pytest
import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import (
    ParameterSpaceConfig,
)
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError, SimulationError
from spinlock.runtime import ordered_map, threads
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.device_choice import choose_device
from spinlock.simulation.initial_conditions import InitialCondition
from spinlock.simulation.simulator import Simulator
from tests.helpers import simulate, small_config


@pytest.mark.parametrize("stop", [3, 20])
def test_libraries_are_settled_before_threads_compute(stop, monkeypatch):
    """Two threads that first use them at the same time may get kernels of low accuracy."""
    events = []
    monkeypatch.setattr(
        ordered_map, "settle_vector_math", lambda: events.append(("settle", get_ident()))
    )
    original = Simulator._simulate

    def recorded(self, *work):
        events.append(("unit", get_ident()))
        return original(self, *work)

    monkeypatch.setattr(Simulator, "_simulate", recorded)
    simulate(small_config(20, num_realizations=1), 0, stop)
    assert events[0] == ("settle", get_ident())
    assert {kind for kind, _ in events[1:]} == {"unit"}
    assert get_ident() not in {thread for _, thread in events[1:]}


def test_one_thread_settles_the_libraries(monkeypatch):
    """Threads that call it at the same time, as in a worker of a cluster, wait for the first."""
    running, most, runs = [], [], []

    def slow():
        running.append(None)
        most.append(len(running))
        runs.append(get_ident())
        sleep(0.05)
        running.pop()

    monkeypatch.setattr(threads, "_settle", cache(slow))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: threads.settle_vector_math(), range(4)))
    assert most == [1]
    assert len(runs) == 1


def assert_same_bytes(one, two):
    for name in one:
        assert one[name].tobytes() == two[name].tobytes(), name


@pytest.mark.parametrize(("probes", "timesteps"), [(1, 1), (3, 1), (1, 4)])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_a_slice_is_the_same_bytes(block_size, probes, timesteps, device):
    config = small_config(
        22, block_size=block_size, probes_per_operator=probes, num_timesteps=timesteps
    )
    whole = simulate(config, 0, 22, device)
    part = simulate(config, 10, 20, device)
    assert part["index"].tolist() == list(range(10, 20))
    assert_same_bytes(part, {name: array[10:20] for name, array in whole.items()})


@pytest.mark.parametrize("asked", [20, 45])
def test_the_number_of_samples_asked_for_changes_nothing(asked, device):
    ten = simulate(small_config(40, block_size=16), 10, 20, device)
    assert_same_bytes(ten, simulate(small_config(asked, block_size=16), 10, 20, device))


def test_block_sizes_agree_to_rounding(device):
    runs = [simulate(small_config(20, block_size=size), 0, 20, device) for size in (1, 3, 16)]
    for other in runs[1:]:
        np.testing.assert_allclose(other["fields"], runs[0]["fields"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(other["initial"], runs[0]["initial"], rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_nothing():
    config = small_config(12, num_timesteps=2)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(simulate(config, 0, 12))
    finally:
        torch.set_num_threads(threads)
    assert_same_bytes(runs[0], runs[1])
    assert_same_bytes(runs[0], runs[2])


def process_state():
    """Global state that generation must not change: generators, threads, switches."""
    with ThreadPoolExecutor(1) as pool:
        new_thread = pool.submit(torch.get_num_threads).result()
    return (
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        new_thread,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_float32_matmul_precision(),
    )


def test_the_process_is_left_as_it_was(device):
    torch.manual_seed(0)
    before = process_state()
    simulate(small_config(4), 0, 4, device)
    assert process_state() == before


def test_arithmetic_is_set_and_restored():
    before = process_state()
    matmul = torch.backends.cuda.matmul
    modern = hasattr(matmul, "fp32_precision")
    with fixed_arithmetic("cuda"):
        assert not torch.backends.cudnn.benchmark
        assert not (matmul.fp32_precision == "tf32" if modern else matmul.allow_tf32)
    assert process_state() == before


def test_bfloat16_reaches_the_operators_and_nothing_else(device):
    precise = simulate(small_config(6), 0, 6, device)
    rounded = simulate(small_config(6, precision="bfloat16"), 0, 6, device)
    np.testing.assert_array_equal(precise["initial"], rounded["initial"])
    assert (precise["fields"] != rounded["fields"]).any(axis=(1, 2, 3, 4, 5)).all()
    np.testing.assert_allclose(precise["fields"], rounded["fields"], atol=0.5)


def test_the_default_dtype_of_the_caller_does_not_matter(device):
    expected = simulate(small_config(4, num_timesteps=2), 0, 4, device)
    torch.set_default_dtype(torch.float64)
    try:
        found = simulate(small_config(4, num_timesteps=2), 0, 4, device)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_bytes(found, expected)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("probes", [1, 3, 5])
def test_units_do_not_depend_on_the_range_asked_for(probes, kind, monkeypatch):
    """Units have fixed shapes, whatever part of them is wanted."""
    simulator = Simulator(small_config(40, block_size=16, probes_per_operator=probes))
    simulator.device, simulator.together = torch.device(kind), False
    units = [unit for start in (0, 16, 32) for unit in simulator._units(range(start, start + 16))]
    assert [i for unit in units for i in unit] == list(range(48))
    seen = []
    monkeypatch.setattr(simulator, "_simulate", lambda unit, wanted: seen.append((unit, wanted)))
    run = "_on_device" if kind == "cuda" else "_on_threads"
    monkeypatch.setattr(simulator, run, lambda pairs: (simulator._simulate(*p) for p in pairs))
    list(simulator.samples(10, 37))
    assert all(range(unit.start, unit.stop) in units for unit, _ in seen)
    assert [i for _, wanted in seen for i in wanted] == list(range(10, 37))


@pytest.mark.parametrize("probes", [1, 3])
def test_dynamics_are_those_of_operators_that_begin_in_the_range(probes):
    """The true values of transport operators, too, which follow from the design."""
    config = small_config(12, probes_per_operator=probes, dynamics=True, operator="transport")
    simulator = Simulator(config, "cpu")
    whole, part = (
        torch.cat([found.dynamics for found in simulator.samples(start, stop)])
        for start, stop in ((0, 12), (2, 10))
    )
    assert len(whole.unique(dim=0)) == len(whole) == 12 // probes
    assert torch.equal(part, {1: whole[2:10], 3: whole[1:4]}[probes])


def test_probes_of_an_operator_have_noise_of_their_own():
    """One constant initial condition for all probes: only the noise distinguishes them."""
    config = small_config(4, probes_per_operator=4, num_realizations=1)
    one = InitialConditionConfig(weights={"gaussian_noise_1": 1.0})
    simulator = Simulator(dataclasses.replace(config, initial_conditions=one))
    index = torch.zeros(4, dtype=torch.int64)
    fixed = simulator.initial_conditions.fields(42, index, np.zeros(4, dtype=np.int64), 3, 32)
    simulator.initial_conditions.fields = lambda *args: fixed
    fields = np.concatenate([part.fields.numpy() for part in simulator.samples(0, 4)])
    assert len({field.tobytes() for field in fields}) == 4


class Broken(InitialCondition):
    """Returns a wrong result of some kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def raw(self, seed, index, channels, grid_size):
        if self.kind == "constant":
            return torch.ones(len(index), channels, grid_size, grid_size)
        if self.kind == "shape":
            return torch.rand(len(index), 1, grid_size, grid_size)
        field = torch.rand(len(index), channels, grid_size, grid_size)
        field[:, 0, 0, 0] = float("nan")
        return field


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("constant", r"Broken.raw returned constant fields for samples \[0\]"),
        ("shape", r"Broken.raw returned shape \(1, 1, 32, 32\), not \(1, 3, 32, 32\)"),
        ("nan", r"NaN or infinite values in the fields of samples \[0\]"),
    ],
)
def test_what_is_not_a_field_never_gets_into_a_file(kind, message):
    spec = {"class_path": f"{__name__}.Broken", "init_args": {"kind": kind}}
    conditions = InitialConditionConfig(weights={"broken": 1.0}, custom={"broken": spec})
    with pytest.raises(SimulationError, match=message):
        simulate(small_config(2, initial_conditions=conditions), 0, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a CUDA device with the CPU")
@pytest.mark.parametrize("grid_size", [32, 64])
def test_devices_agree(grid_size):
    """design.md: rtol 1e-3, atol 1e-4 at T = 1 without TF32."""
    config = small_config(48, grid_size=grid_size, block_size=16)
    one, two = simulate(config, 0, 48, "cpu"), simulate(config, 0, 48, "cuda")
    for name in ("initial", "fields"):
        torch.testing.assert_close(
            torch.from_numpy(two[name]), torch.from_numpy(one[name]), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    ("device", "count", "message"),
    [
        ("gpu", 0, "device: torch knows no device 'gpu'; choose cpu$"),
        ("mps", 1, "got mps, but only CPUs and CUDA devices .*; choose cpu or cuda:0$"),
        ("cuda", 0, "got cuda, but torch .* CUDA.*, or choose cpu$"),
        ("cuda:0", 0, "got cuda:0, but torch .* CUDA.*, or choose cpu$"),
        ("cuda:1", 1, r"got cuda:1, but this process sees 1 CUDA device.*; choose cpu or cuda:0$"),
        ("cuda:99", 4, r"got cuda:99, but this process sees 4 .*; choose cpu or cuda:0 to cuda:3$"),
    ],
)
def test_devices_that_do_not_exist_are_refused(device, count, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigurationError, match=message):
        Simulator(small_config(1), device)


@pytest.mark.parametrize(
    ("device", "initialized", "chosen"),
    [
        (None, True, "cuda:2"),
        ("cuda", True, "cuda:2"),
        (None, False, "cuda:0"),
        ("cuda:3", True, "cuda:3"),
        ("cpu", True, "cpu"),
    ],
)
def test_the_current_gpu_is_chosen_with_its_number(device, initialized, chosen, monkeypatch):
    """Another thread may have another current device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert choose_device(device) == torch.device(chosen)


def test_variants_that_do_not_fit_are_refused_before_anything_runs():
    config = GenerationConfig(4, parameter_space=ParameterSpaceConfig(grid_size=(16,)))
    with pytest.raises(ConfigurationError, match="band_limited_low: a grid of 16"):
        Simulator(config)


def test_ranges_are_checked():
    with pytest.raises(ValueError, match=r"expected 0 <= start <= stop, got 3\.\.2"):
        next(Simulator(small_config(4)).samples(3, 2))
