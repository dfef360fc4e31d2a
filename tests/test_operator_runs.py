"""Operators run again outside their dataset: the same fields, bit for bit, or new noise."""

import numpy as np
import pytest
import torch

from spinlock.errors import ConfigurationError, SimulationError
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.operator_family import OperatorFamily
from spinlock.simulation.operator_runs import NEW_NOISE, OperatorRunner, Run
from spinlock.simulation.sobol_design import make_design, operator_values
from tests.helpers import simulate, small_config


class Overflowing(OperatorFamily):
    def operator(self, values, *, seed, index, channels, precision, device):
        return lambda fields: fields * (1e38 if index % 2 else 1.0) * 1e38


class Gain(OperatorFamily):
    def operator(self, values, *, seed, index, channels, precision, device):
        return lambda fields: (values.alpha + index) * fields


def config(operator="convolutional", **options):
    if operator in ("Gain", "Overflowing"):
        operator = {"class_path": f"{__name__}.{operator}", "init_args": {}}
    small = {"grid_size": 24, "base_channels": (2, 4), "num_realizations": 2}
    return small_config(10, **small, operator=operator, probes_per_operator=2, **options)


@pytest.mark.parametrize("operator", ["convolutional", "transport", "Gain"])
def test_samples_are_reproduced_bit_for_bit(operator):
    """Whatever the order and the grouping of the runs."""
    dataset = config(operator, num_timesteps=3)
    stored = simulate(dataset, 0, 10)
    runs = [Run(3, [7, 6]), Run(0, [1]), Run(4, [8, 9]), Run(0, [0])]
    runner = OperatorRunner(dataset, "cpu")
    found = runner.run(runs, torch.from_numpy(stored["initial"]), range(10), torch.clone)
    for run, fields in zip(runs, found, strict=True):
        assert np.array_equal(fields.numpy(), stored["fields"][run.rows])


def test_new_noise_is_that_of_no_sample():
    dataset = config()
    initial = torch.from_numpy(simulate(dataset, 0, 1)["initial"]).repeat(4, 1, 1, 1)
    noise = [0, NEW_NOISE, NEW_NOISE, NEW_NOISE + 1]
    (fields,) = OperatorRunner(dataset, "cpu").run([Run(0, range(4))], initial, noise, torch.clone)
    assert torch.equal(fields[1], fields[2])
    for one, other in [(0, 1), (1, 3)]:
        assert not torch.isclose(fields[one], fields[other], rtol=0, atol=1e-7).any(dim=-1).all()
    # The operator is the same: the fields differ by noise alone, which has the mean zero.
    assert (fields[0] - fields[1]).abs().mean() > 0


def test_fewer_realizations_are_the_first_ones():
    dataset, initial = config(), torch.ones(1, 3, 24, 24)
    one, all_ = (
        next(
            OperatorRunner(dataset, "cpu", num_realizations=count).run(
                [Run(2, [0])], initial, [NEW_NOISE], torch.clone
            )
        )
        for count in (1, None)
    )
    assert one.shape[1:3] == (1, 1)
    assert torch.equal(one, all_[:, :1])


def test_the_time_of_a_run_is_counted():
    clock = StageClock()
    runner = OperatorRunner(config(), "cpu", clock)
    list(runner.run([Run(2, [0])], torch.ones(1, 3, 24, 24), [NEW_NOISE], torch.clone))
    assert set(clock.seconds) == {"weights", "calibration", "convolutions", "forcing"}
    assert min(clock.seconds.values()) > 0


def test_values_of_operators_are_those_of_the_design():
    dataset = config()
    design = make_design(dataset, 0, 40)
    operators = np.array([19, 3, 3, 0])
    assert np.array_equal(operator_values(dataset, operators), design.values[2 * operators])
    assert len(operator_values(dataset, np.array([], dtype=np.int64))) == 0
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        operator_values(dataset, np.array([2, -1]))


@pytest.mark.parametrize(
    "initial",
    [
        torch.ones(1, 3, 32, 32),
        torch.ones(1, 1, 24, 24),
        torch.ones(2, 3, 24, 24),
        torch.ones(1, 3, 24, 24, dtype=torch.float64),
    ],
)
def test_other_fields_are_refused(initial):
    runs = OperatorRunner(config(), "cpu").run([Run(0, [0])], initial, [0], torch.clone)
    with pytest.raises(ConfigurationError, match=r"3 channel\(s\) on 24 x 24 pixels, so 1 initial"):
        next(runs)


def test_infinite_fields_name_their_operator():
    runs = [Run(0, [0]), Run(1, [0])]
    found = OperatorRunner(config("Overflowing"), "cpu").run(
        runs, torch.full((1, 3, 24, 24), 1e-3), [NEW_NOISE], torch.clone
    )
    assert next(found).isfinite().all()
    with pytest.raises(SimulationError, match="fields of operator 1 under the given"):
        next(found)
