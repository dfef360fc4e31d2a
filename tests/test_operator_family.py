"""User-defined operators are named by class_path and are part of the identity of a dataset."""

import dataclasses

import pytest
import torch

from spinlock.configuration.parameter_axes import LogUniformRange
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError, SimulationError
from spinlock.simulation.operator_family import OperatorFamily
from spinlock.simulation.randomness import Stream, uniform
from spinlock.simulation.simulator import Simulator
from tests.helpers import small_config


class RandomShifts(OperatorFamily):
    """Shifts fields by a random number of columns and scales them."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def operator(self, values, *, seed, index, channels, precision, device):
        shift = int(8 * uniform(seed, Stream.WEIGHTS, index, 1))
        return lambda fields: self.factor * fields.roll(shift, dims=-1)


def spec(**arguments):
    return {"class_path": f"{__name__}.RandomShifts", "init_args": arguments}


def simulate(config):
    return next(Simulator(config, "cpu").samples(0, 1))


def test_a_custom_family_is_applied(device):
    config = small_config(12, probes_per_operator=2, operator=spec(factor=0.5))
    space = dataclasses.replace(
        config.parameter_space,
        update_policy=("autoregressive",),
        noise_scale=LogUniformRange(1e-5, 1.1e-5),
    )
    config = dataclasses.replace(config, parameter_space=space)
    for samples in Simulator(config, device).samples(0, 12):
        for sample, initial, fields in zip(
            samples.index, samples.initial, samples.fields[:, :, 0], strict=True
        ):
            shift = int(8 * uniform(config.seed, Stream.WEIGHTS, int(sample) // 2, 1))
            expected = 0.5 * initial.roll(shift, dims=-1).expand_as(fields)
            torch.testing.assert_close(fields, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fourier", "operator: must be one of 'convolutional'"),
        ({"class_path": "no.such.Family"}, "cannot import no.such.Family.* to .* PYTHONPATH"),
        ({"class_path": "spinlock.errors.SpinlockError"}, "must be a subclass of OperatorFamily"),
        (spec(size=3), "does not take these init_args"),
        ({**spec(), "args": {}}, "operator: expected {class_path"),
        ({"class_path": ".Family"}, "operator: expected {class_path"),
        (
            {"class_path": "spinlock.simulation.operator_family.OperatorFamily"},
            "OperatorFamily does not implement operator",
        ),
    ],
)
def test_what_is_no_family_is_refused_before_anything_runs(given, message):
    with pytest.raises(ConfigurationError, match=message):
        Simulator(small_config(2, operator=given), "cpu")


def test_the_family_is_part_of_the_identity():
    prints = {
        small_config(2, operator=operator).fingerprint
        for operator in ("convolutional", spec(), spec(factor=2.0))
    }
    assert len(prints) == 3
    config = small_config(2, operator=spec(factor=2.0))
    assert type(config).from_json(config.to_json()) == config


def test_a_diverging_operator_never_gets_into_a_file():
    config = small_config(2, num_timesteps=3, operator=spec(factor=torch.finfo().max))
    with pytest.raises(SimulationError, match="NaN or infinite values"):
        simulate(config)


class UndefinedForLargeFields(OperatorFamily):
    """Keeps fields of rms 1; NaN for larger ones."""

    def operator(self, values, *, seed, index, channels, precision, device):
        return lambda fields: torch.where(
            fields.std(dim=(1, 2, 3), keepdim=True) > 1.5, torch.nan, fields
        )


def test_undefined_dynamics_never_get_into_a_file(tmp_path):
    family = {"class_path": f"{__name__}.UndefinedForLargeFields"}
    conditions = InitialConditionConfig(weights={"gaussian_noise_1": 1})
    config = small_config(4, operator=family, initial_conditions=conditions, dynamics=True)
    message = r"dynamics of operators \[0\], .*leave the dynamics out with dynamics: false"
    with pytest.raises(SimulationError, match=message):
        simulate(config)
    simulate(dataclasses.replace(config, dynamics=False))


class Averages(OperatorFamily):
    """Returns means instead of fields."""

    def operator(self, values, *, seed, index, channels, precision, device):
        return lambda fields: fields.mean(dim=(1, 2, 3), keepdim=True)


def test_an_operator_keeps_the_shape_of_fields():
    config = small_config(2, operator={"class_path": f"{__name__}.Averages"})
    with pytest.raises(SimulationError, match=r"returned shape \(1, 1, 1, 1\) for fields of shape"):
        simulate(config)
