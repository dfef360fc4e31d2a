"""Axes that operator families add: declared by a class, changed by yaml, read without the class."""

import json
import sys

import numpy as np
import pytest

from spinlock.configuration import GenerationConfig, StoredConfig
from spinlock.configuration.parameter_axes import IntegerRange, LogUniformRange, UniformRange
from spinlock.configuration.parameter_space import PARAMETER_NAMES, typed_row
from spinlock.errors import ConfigurationError
from spinlock.simulation.operator_family import OperatorFamily
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from tests.helpers import small_config


class Gains(OperatorFamily):
    """Multiplies a field by a number, in one of two ways."""

    axes = {
        "gain": LogUniformRange(0.5, 2.0),
        "offset": UniformRange(-1, 1),
        "power": IntegerRange(1, 2),
        "mode": ("plain", "negative"),
    }

    def operator(self, values, *, seed, index, channels, precision, device):
        own = values.operator_axes
        sign = -1.0 if own["mode"] == "negative" else 1.0
        return lambda fields: sign * own["gain"] ** own["power"] * fields + own["offset"]


class Clash(Gains):
    axes = {"alpha": UniformRange(0, 1)}


class Wrong(Gains):
    axes = {"gain": 3}


class Listed(Gains):
    axes = [("gain", UniformRange(0, 1))]


def config(family="Gains", changes=None):
    space = {"grid_size": [32], "operator_axes": changes or {}}
    values = {"operator": {"class_path": f"{__name__}.{family}"}, "parameter_space": space}
    return GenerationConfig.from_dict({"num_samples": 8, "dynamics": False} | values)


def test_axes_join_the_design_after_the_15():
    own, base = config(), small_config(8)
    assert own.space.names == (*PARAMETER_NAMES, "gain", "offset", "power", "mode")
    design = make_design(own)
    assert design.params.shape == (8, 19)
    row = typed_row(design.values[0])
    assert row.operator_axes["mode"] in ("plain", "negative")
    assert type(row.operator_axes["power"]) is int
    np.testing.assert_allclose(
        design.values["gain"], 0.5 * 4.0 ** design.params[:, 15].astype(np.float64)
    )
    # Without axes of its own, a family has the design of the 15.
    assert make_design(base).params.shape == (8, 15)


def test_the_operator_has_its_values():
    own = config()
    (samples,) = list(Simulator(own, "cpu").samples(0, 1))
    values = typed_row(make_design(own).values[0])
    axes = values.operator_axes
    sign = -1.0 if axes["mode"] == "negative" else 1.0
    output = sign * axes["gain"] ** axes["power"] * samples.initial[0] + axes["offset"]
    keep, gain = {
        "autoregressive": (0.0, 1.0),
        "residual": (1.0, values.dt),
        "convex": (values.alpha, 1 - values.alpha),
    }[values.update_policy]
    expected = keep * samples.initial[0] + gain * output
    error = (samples.fields[0, :, 0].mean(0) - expected).abs().mean()
    assert error < 3 * gain * values.noise_scale + 1e-5


def test_the_configuration_changes_ranges():
    changed = config(changes={"gain": {"low": 1.0}, "power": {"high": 1}, "mode": ["plain"]})
    assert changed.operator_axes == {
        "gain": LogUniformRange(1.0, 2.0),
        "offset": UniformRange(-1.0, 1.0),
        "power": IntegerRange(1, 1),
        "mode": ("plain",),
    }
    assert changed.fingerprint != config().fingerprint
    assert GenerationConfig.from_json(changed.to_json()).fingerprint == changed.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": {"low": 1}}, "unknown axis 'speed'; the operator family declares gain, offset"),
        ({"gain": {"low": 3.0}}, "operator_axes.gain: low must not exceed high"),
        ({"gain": {"low": -1.0}}, "operator_axes.gain: a logarithmic axis needs low > 0"),
        ({"gain": {"lowest": 1.0}}, r"operator_axes.gain: expected \{low: ..., high: ...\}"),
        ({"gain": 3}, "operator_axes.gain: expected"),
        ({"gain": {"low": "1"}}, "operator_axes.gain: low and high must be numbers"),
        ({"gain": {"kind": "cubic"}}, "operator_axes.gain: expected a list of values, or a range"),
        ({"power": {"high": 1.5}}, "operator_axes.power: low and high must be numbers"),
        ({"power": {"high": 10**9}}, "operator_axes.power: must have at most"),
        ({"mode": []}, "operator_axes.mode: at least one value"),
        ({"mode": ["a", "a"]}, "operator_axes.mode: values must differ"),
        ({"mode": ["a", 1]}, "operator_axes.mode: values must be integers, or names"),
        ({"mode": ["a" * 17]}, "operator_axes.mode: values must be integers, or names"),
        ({"mode": ["\x1b[2J"]}, "operator_axes.mode: values must be integers, or names"),
    ],
)
def test_invalid_changes_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=f"parameter_space.{message}|{message}"):
        _ = config(changes=changes).space


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("Clash", "operator_axes.alpha: must be a name .* that no other axis has"),
        ("Wrong", "operator_axes.gain: must be a range or a tuple of values, got 3"),
        ("Listed", "Listed.axes must be a mapping from names to ranges"),
    ],
)
def test_invalid_declarations_are_refused(family, message):
    with pytest.raises(ConfigurationError, match=message):
        _ = config(family).space


def test_families_without_axes_take_no_changes():
    with pytest.raises(ConfigurationError, match=r"unknown axis .gain.; .* declares none"):
        _ = GenerationConfig.from_dict(
            {"num_samples": 1, "parameter_space": {"operator_axes": {"gain": [1]}}}
        ).space


def test_stored_axes_need_no_class():
    text = config().to_json().replace(f"{__name__}.Gains", "missing_module.Gains")
    stored = StoredConfig.from_json(text)
    assert stored.operator_axes == config().operator_axes
    assert stored.space.names == config().space.names
    assert "missing_module" not in sys.modules
    assert stored.fingerprint != config().fingerprint
    incomplete = json.loads(text)
    del incomplete["parameter_space"]["operator_axes"]["gain"]["kind"]
    with pytest.raises(ConfigurationError, match=r"operator_axes\.gain: expected a list"):
        _ = StoredConfig.from_dict(incomplete).space


def test_transport_is_the_update_followed_by_the_flow():
    # An odd grid has no Nyquist frequency, whose phase a real field cannot hold.
    moved = small_config(4, grid_size=33, operator="transport", dynamics=False)
    assert moved.space.names[15:] == ("diffusion", "velocity_x", "velocity_y", "growth")
    own = typed_row(make_design(moved).values[1]).operator_axes
    (sample,) = Simulator(moved, "cpu").samples(1, 2)
    simulator = Simulator(moved, "cpu")
    simulator.family.flow = lambda values, *, device: None
    (updated,) = simulator.samples(1, 2)
    k = 2 * np.pi * np.fft.fftfreq(33)
    ky, kx = k[:, None], k[None, :]
    phase = np.exp(-1j * (kx * own["velocity_x"] + ky * own["velocity_y"]))
    multiplier = np.exp(own["growth"] - own["diffusion"] * (kx**2 + ky**2)) * phase
    spectrum = np.fft.fft2(updated.fields.double().numpy()) * multiplier
    np.testing.assert_allclose(np.fft.ifft2(spectrum).real, sample.fields, atol=1e-4)


def test_operator_families_are_part_of_the_identity():
    families = ("convolutional", "transport")
    assert len({small_config(4, operator=name).fingerprint for name in families}) == 2
