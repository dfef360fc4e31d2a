"""Axes that operator families add: declared by a class, changed by yaml, read without the class."""

import json
import sys
import tracemalloc

import numpy as np
import pytest

from spinlock.configuration import GenerationConfig, StoredConfig
from spinlock.configuration.parameter_axes import IntegerRange, LogUniformRange, UniformRange
from spinlock.configuration.parameter_space import PARAMETER_NAMES, ParameterSpace, typed_row
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


class Unfrozen(Gains):
    axes = {**Gains.axes, "mode": ["plain", "negative"]}


class Unnamed(Gains):
    axes = {3: UniformRange(0, 1)}


class Huge(Gains):
    axes = {"gain": IntegerRange(10**400, 10**400)}


class Many(Gains):
    axes = {f"gain_{number}": (1, 2) for number in range(257)}


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


def test_a_declared_list_is_a_choice():
    assert config("Unfrozen").operator_axes == config().operator_axes


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
        (
            {"gain": {"kind": "cubic"}},
            "operator_axes.gain: expected a range with low, high and a kind",
        ),
        ({"power": {"high": 1.5}}, "operator_axes.power: low and high must be numbers"),
        ({"power": {"high": 10**9}}, "operator_axes.power: must have at most"),
        ({"mode": []}, "operator_axes.mode: at least one value"),
        ({"mode": ["a", "a"]}, "operator_axes.mode: values must differ"),
        ({"mode": ["a", 1]}, "operator_axes.mode: values must be integers below"),
        ({"mode": ["a" * 17]}, "operator_axes.mode: values must be integers below"),
        ({"mode": ["\x1b[2J"]}, "operator_axes.mode: values must be integers below"),
        ({"mode": [[1], [2]]}, "operator_axes.mode: values must be integers below"),
        ({"mode": [{}, {}]}, "operator_axes.mode: values must be integers below"),
        ({"mode": [2**63]}, "operator_axes.mode: values must be integers below"),
        ({"mode": {"low": 0, "high": 1}}, "operator_axes.mode: expected a list of values, got"),
        ({"gain": ["a", "b"]}, r"operator_axes.gain: expected \{low: ..., high: ...\}, got"),
        ({"power": [1, 2]}, r"operator_axes.power: expected \{low: ..., high: ...\}, got"),
        ({"power": {"kind": "uniform"}}, "operator_axes.power: expected a range .*integer"),
        ({"gain": {"kind": ["x"]}}, "operator_axes.gain: expected a range with low"),
        ({"gain": {"high": 10**400}}, r"operator_axes.gain: low and high must be numbers below"),
        ({"gain": {"high": float("nan")}}, "operator_axes.gain: low and high must be finite"),
        ({"gain": {"low": 1e-300, "high": 1e300}}, "operator_axes.gain: .* too far apart"),
        ({"offset": {"low": -1.7e308, "high": 1.7e308}}, "operator_axes.offset: .* too far apart"),
        (
            {"power": {"low": 2**63, "high": 2**63 + 1}},
            r"operator_axes.power: .* below 2\^63 without a fraction",
        ),
    ],
)
def test_invalid_changes_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=f"parameter_space.{message}|{message}"):
        _ = config(changes=changes).space


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("Clash", "operator_axes: 'alpha' must be a name .* that no other axis has"),
        ("Unnamed", "operator_axes: 3 must be a name"),
        ("Huge", r"operator_axes.gain: low and high must be below 2\^63"),
        ("Many", "operator_axes: must be at most 256 axes, got 257"),
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


def stored(axes, operator="transport"):
    """A configuration that was read from a file."""
    values = {"num_samples": 3, "operator": operator, "dynamics": False}
    space = {"grid_size": [32], "base_channels": {"low": 2, "high": 3}, "operator_axes": axes}
    return StoredConfig.from_dict(values | {"parameter_space": space})


def test_stored_families_of_this_package_have_their_own_axes():
    own = GenerationConfig(3, operator="transport")
    read = StoredConfig.from_json('{"num_samples": 3, "operator": "transport"}')
    assert read == own
    assert read.space.names == own.space.names
    assert StoredConfig.from_json(own.to_json()).fingerprint == own.fingerprint
    for operator in ("transport", "convolutional"):
        with pytest.raises(ConfigurationError, match="unknown axis 'gain'"):
            _ = stored({"gain": [1, 2]}, operator).space


def test_ranges_of_transport():
    assert GenerationConfig(3, operator="transport").operator_axes == {
        "diffusion": UniformRange(0.0, 1.0),
        "velocity_x": UniformRange(-3.0, 3.0),
        "velocity_y": UniformRange(-3.0, 3.0),
        "growth": UniformRange(-0.1, 0.1),
    }


@pytest.mark.parametrize("read", [GenerationConfig, StoredConfig])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diffusion": {"low": -1}}, r"diffusion: values must lie in \[0, inf\), got low=-1"),
        ({"diffusion": ["a", "b"]}, r"diffusion: expected \{low"),
        ({"growth": {"high": 1000.0}}, r"growth: values must lie in \[-64, 64\)"),
        ({"velocity_x": {"low": -1e9}}, r"velocity_x: values must lie in \[-16384, 16384\)"),
        ({"velocity_y": {"high": 1e9}}, r"velocity_y: values must lie in \[-16384, 16384\)"),
    ],
)
def test_the_axes_of_transport_have_limits(read, changes, message):
    space = {"operator_axes": changes}
    values = {"num_samples": 3, "operator": "transport", "parameter_space": space}
    with pytest.raises(ConfigurationError, match=f"operator_axes.{message}"):
        _ = read.from_dict(values).space


@pytest.mark.parametrize(
    "axes",
    [
        {"gain": [1, 2]},
        {name: ["a"] for name in ("diffusion", "velocity_x", "velocity_y", "growth")},
        {
            name: {"kind": "uniform", "low": -2, "high": -1}
            for name in ("diffusion", "velocity_x", "velocity_y", "growth")
        },
    ],
)
def test_transport_named_by_its_path_refuses_other_axes(axes):
    path = {"class_path": "spinlock.simulation.operator_family.TransportFamily"}
    with pytest.raises(ConfigurationError, match=r"operator_axes: .* cannot be used for transport"):
        list(Simulator(stored(axes, path), "cpu").samples(0, 1))


@pytest.mark.parametrize(("low", "high"), [(-3, 12), (7, 7), (-(2**19), 2**19 - 1), (2**62, 2**62)])
def test_integers_have_equal_shares(low, high):
    space, count = ParameterSpace({"steps": IntegerRange(low, high)}), high - low + 1
    unit = np.append(np.random.default_rng(0).random(1000), [0, np.nextafter(1, 0), 1])
    expected = [low + min(int(u * count), count - 1) for u in unit]
    assert space.values(unit[:, None])["steps"].tolist() == expected


def test_integer_axes_take_no_memory():
    tracemalloc.start()
    try:
        ParameterSpace({"steps": IntegerRange(0, 2**20 - 1)})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**16


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
