"""A device that runs out of memory computes fewer samples at once, and the same bytes."""

import logging

import numpy as np
import pytest
import torch

from spinlock.errors import SimulationError
from spinlock.simulation import simulator as simulators, trajectory_memory
from spinlock.simulation.operator_runs import OperatorRunner
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from spinlock.storage.columns import sample_arrays
from tests.helpers import small_config

SIZE = 8


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(trajectory_memory, "_FITTING", {})


def of_a_block(config, wanted):
    """Samples of a whole block in one batch, as a GPU computes them."""
    simulator = Simulator(config, "cpu")
    return simulator._simulate(make_design(config, 0, SIZE), wanted)


class SmallMemory:
    """Lets a device hold the trajectories of some samples only; injected where they are made."""

    def __init__(self, monkeypatch, holds):
        self.attempts, self.holds = [], holds
        original = Simulator._roll_out_rows

        def limited(simulator, unit, rows, initial, out):
            self.attempts.append(len(rows))
            if len(rows) > self.holds:
                # Some trajectories exist when memory runs out.
                original(simulator, unit, rows[:1], initial, out[:1])
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return original(simulator, unit, rows, initial, out)

        monkeypatch.setattr(Simulator, "_roll_out_rows", limited)


@pytest.mark.parametrize(
    ("probes", "holds", "wanted"),
    [(1, 3, range(1, 6)), (3, 2, range(SIZE)), (1, 1, range(SIZE))],
)
def test_fewer_samples_at_once_have_the_same_bytes(probes, holds, wanted, monkeypatch, caplog):
    config = small_config(
        SIZE,
        block_size=SIZE,
        grid_size=24,
        num_timesteps=2,
        num_realizations=2,
        probes_per_operator=probes,
        dynamics=probes > 1,
    )
    expected = sample_arrays(of_a_block(config, wanted))
    memory = SmallMemory(monkeypatch, holds)
    with caplog.at_level(logging.WARNING):
        found = sample_arrays(of_a_block(config, wanted))
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        first = list(memory.attempts)
        of_a_block(config, wanted)
    assert first[0] == len(wanted)
    assert max(memory.attempts[len(first) :]) <= holds, "the smaller number is remembered"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"out of memory with {len(wanted)} samples at once" in caplog.text


def test_a_sample_that_does_not_fit_is_named(monkeypatch):
    config = small_config(SIZE, block_size=SIZE, grid_size=24, num_realizations=1)
    original = OperatorRunner.roll_out

    def too_large(runner, operator, initial, noise, out):
        if noise == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 GiB\nMore")
        original(runner, operator, initial, noise, out)

    monkeypatch.setattr(OperatorRunner, "roll_out", too_large)
    with pytest.raises(SimulationError, match=r"^sample 5 does not fit .* 90\.00 GiB\. Other"):
        of_a_block(config, range(SIZE))


def test_features_that_do_not_fit_name_the_block(monkeypatch):
    """They are not computed in parts, because that would change their rounding on a GPU."""
    config = small_config(SIZE, block_size=SIZE, grid_size=24, num_realizations=1)

    def too_large(fields):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(simulators, "extract", too_large)
    with pytest.raises(SimulationError, match=r"^samples 0\.\.7, whose features .* block_size"):
        of_a_block(config, range(2, 4))
