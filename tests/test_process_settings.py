"""Process-wide settings of the caller change no sample, and are restored afterwards.

Some settings change bytes only on certain processors, for example those with bfloat16 units. So
these tests also inspect the settings during the computation.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional

from spinlock.simulation.operator_family import OperatorFamily
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from tests.helpers import small_config
from tests.process_settings import HOSTILE, MODERN, settings


class Sensitive(OperatorFamily):
    """A careless operator: types and devices of its tensors are the caller's defaults."""

    def operator(self, values, *, seed, index, channels, precision, device):
        kernel = torch.linspace(-0.1, 0.1, 9 * channels**2).view(channels, channels, 3, 3)
        third = torch.full((1,), 1 / 3)

        def apply(fields):
            padded = functional.pad(fields, (1, 1, 1, 1), mode="circular")
            # On the way through subnormal numbers.
            mixed = functional.conv2d(padded, kernel.float()) * 1e-40 * 1e40
            return (mixed + fields.exp() * third).tanh().float()

        return apply


class Failing(OperatorFamily):
    """An operator that cannot be made."""

    def operator(self, values, **arguments):
        raise ArithmeticError("no such operator")


CONFIGS = {
    "convolutional": small_config(3, num_timesteps=2),
    "bfloat16": small_config(3, precision="bfloat16"),
    "sensitive": small_config(3, operator={"class_path": f"{__name__}.Sensitive"}),
}


def tensors_of(samples):
    features = samples.features
    yield from (samples.initial, samples.fields, samples.initial_features)
    yield from (features.per_timestep, features.per_trajectory, features.aggregated)


def digest(parts):
    found = hashlib.sha256()
    for samples in parts:
        for tensor in tensors_of(samples):
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def in_threads(config):
    """The samples, computed in the threads of the process."""
    return digest(Simulator(config, "cpu").samples(0, config.num_samples))


def in_this_thread(config):
    """The samples, computed in the calling thread, as those of a CUDA device are."""
    simulator, design = Simulator(config, "cpu"), make_design(config, 0, config.num_samples)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = range(config.num_samples)
        units = (simulator._simulate(design.rows(i, i + 1), range(i, i + 1)) for i in rows)
        return digest(map(simulator._finished, units))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected():
    return {
        (compute.__name__, name): compute(config)
        for compute in (in_threads, in_this_thread)
        for name, config in CONFIGS.items()
    }


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("compute", [in_threads, in_this_thread])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_setting_changes_a_sample(hostile, compute, config, expected):
    with HOSTILE[hostile]():
        before = settings()
        found = compute(CONFIGS[config])
        assert settings() == before
    assert found == expected[compute.__name__, config]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_settings_in_force_while_a_unit_is_computed(hostile, monkeypatch):
    inside = []
    original = Simulator._simulate_unit

    def recorded(self, *work):
        inside.append(settings())
        return original(self, *work)

    monkeypatch.setattr(Simulator, "_simulate_unit", recorded)
    with HOSTILE[hostile]():
        in_this_thread(CONFIGS["convolutional"])
        # New threads inherit what this one has set.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(in_this_thread, CONFIGS["convolutional"]).result()
    assert len(inside) == 6
    for found in inside:
        assert found["mkldnn"][0] is True
        assert not found["deterministic"]
        assert found["dtype"] is torch.float32
        assert not found["autocast"]
        assert found["numpy"]["under"] == "ignore"
        assert found["numpy"]["over"] == "warn"
        assert not found["flushes"]
        if MODERN:
            assert mkldnn_precisions(found) == {"ieee"}
        else:
            assert found["matmul"] == "highest"


def mkldnn_precisions(found):
    return set(found["precisions"][1:5])


@pytest.mark.parametrize("hostile", ["matmul medium", "float64", "flushed", "several"])
def test_an_error_restores_the_settings(hostile):
    config = small_config(2, operator={"class_path": f"{__name__}.Failing"})
    with HOSTILE[hostile]():
        before = settings()
        for compute in (in_threads, in_this_thread):
            with pytest.raises(ArithmeticError, match="no such operator"):
                compute(config)
            assert settings() == before


def test_simulations_side_by_side_keep_the_settings_of_the_caller(expected):
    names = [*CONFIGS, *CONFIGS]
    with HOSTILE["matmul medium"](), ThreadPoolExecutor(len(names)) as pool:
        before = settings()
        for _ in range(3):
            found = pool.map(lambda name: in_this_thread(CONFIGS[name]), names)
            assert list(found) == [expected["in_this_thread", name] for name in names]
            assert settings() == before
