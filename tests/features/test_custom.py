"""Custom features are averaged like the built-in ones, and unsuitable functions are refused."""

import numpy as np
import pytest
import torch

from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.errors import ConfigurationError
from spinlock.features import CustomFeatures, batches, custom_columns

from .helpers import random_fields

HERE = f"{__package__}.custom_features"
BOTH = CustomFeatureConfig(
    per_field=[f"{HERE}.mean_modulus", f"{HERE}.corner"], per_trajectory=[f"{HERE}.energy_gain"]
)


def drawn(device, shape=(3, 2, 4, 2, 9, 12), kind="drifting"):
    return torch.from_numpy(random_fields(kind, shape, 0)).to(device)


def test_columns_are_named_after_the_functions_in_the_order_given():
    assert custom_columns(BOTH) == {
        "per_timestep": ("mean_modulus", "corner"),
        "per_trajectory": ("energy_gain",),
        "aggregated": ("energy_gain_mean", "energy_gain_std", "energy_gain_cv"),
        "initial": ("mean_modulus", "corner"),
    }
    assert custom_columns("sdf") == {}
    only = custom_columns(CustomFeatureConfig(per_field=["a.b"]))
    assert only == {"per_timestep": ("b",), "initial": ("b",)}


def test_columns_need_none_of_the_users_code():
    assert custom_columns(CustomFeatureConfig(per_field=["no.such.module"]))["initial"] == (
        "module",
    )


def test_values_are_those_of_the_functions_averaged_last(device):
    fields, initial = drawn(device), drawn(device, (3, 2, 9, 12), "white")
    arrays = CustomFeatures(BOTH).extract(initial, fields)
    assert {name: tuple(values.shape) for name, values in arrays.items()} == {
        "per_timestep": (3, 4, 2),
        "per_trajectory": (3, 2, 1),
        "aggregated": (3, 3),
        "initial": (3, 2),
    }
    u, u0 = fields.cpu().double().numpy(), initial.cpu().double().numpy()
    found = {name: values.cpu().numpy() for name, values in arrays.items()}
    per_field = np.stack([np.abs(u).mean((-2, -1)), u[..., 0, 0]], -1)
    np.testing.assert_allclose(found["per_timestep"], per_field.mean((1, 3)), rtol=1e-5, atol=1e-6)
    of_initial = np.stack([np.abs(u0).mean((-2, -1)), u0[..., 0, 0]], -1).mean(1)
    np.testing.assert_allclose(found["initial"], of_initial, rtol=1e-5, atol=1e-6)
    energy = (u**2).mean((-2, -1))
    gain = (energy[:, :, -1] - energy[:, :, 0]).mean(-1)
    np.testing.assert_allclose(found["per_trajectory"][..., 0], gain, rtol=1e-4, atol=1e-5)
    m, v = gain.mean(1), gain.std(1)
    np.testing.assert_allclose(
        found["aggregated"], np.stack([m, v, v / abs(m)], -1), rtol=1e-3, atol=1e-5
    )
    assert all(values.dtype == torch.float32 for values in arrays.values())
    assert all(values.device.type == device.type for values in arrays.values())


def test_fields_of_another_layout_are_refused():
    with pytest.raises(ValueError, match=r"expected \[N, M, T, C, H, W\]"):
        CustomFeatures(BOTH).extract(drawn("cpu", (2, 1, 8, 8)), drawn("cpu", (2, 1, 1, 8, 8)))


def test_a_trajectory_that_is_too_short_has_no_value(device):
    fields = drawn(device, (2, 3, 1, 1, 8, 8), "white")
    arrays = CustomFeatures(BOTH).extract(fields[:, 0, 0], fields)
    assert arrays["per_trajectory"].isnan().all()
    assert arrays["aggregated"].isnan().all()
    assert arrays["per_timestep"].isfinite().all()


def test_functions_never_receive_more_than_a_chunk(monkeypatch):
    sizes = []
    features = CustomFeatures(CustomFeatureConfig(per_field=[f"{HERE}.corner"]))
    (corner,) = features.per_field

    def spy(fields):
        sizes.append(fields.numel())
        return fields[:, 0, 0]

    features.per_field = (type(corner)(spy, corner.row),)
    fields = drawn("cpu", (8, 2, 4, 2, 16, 16), "white")
    whole = features.extract(fields[:, 0, 0], fields)
    assert len(sizes) == 2
    monkeypatch.setattr(batches, "CPU_CHUNK", 2 * 256)
    sizes.clear()
    pieces = features.extract(fields[:, 0, 0], fields)
    assert max(sizes) <= 2 * 256
    for name in whole:
        torch.testing.assert_close(whole[name], pieces[name], rtol=0, atol=0)


def test_rows_say_what_the_decorator_said():
    rows = CustomFeatures(BOTH).rows
    assert [row.name for row in rows] == ["mean_modulus", "corner", "energy_gain"]
    assert (rows[0].formula, rows[0].unit, rows[0].exponent) == ("⟨|u|⟩", "u", 1)
    assert [row.min_timesteps for row in rows] == [None, None, 2]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("per_field", "no_such_function", "cannot import"),
        ("per_field", "undecorated", "is a function; decorate"),
        ("per_field", "renamed", "the function is called mean_modulus; call it renamed"),
        ("per_field", "spatial_mean", "spatial_mean is a built-in feature"),
        ("per_field", "energy_gain", "belongs under per_trajectory"),
        ("per_trajectory", "corner", "belongs under per_field"),
    ],
)
def test_what_is_no_feature_is_refused_by_its_path(kind, name, message):
    with pytest.raises(ConfigurationError, match=rf"{kind}: {HERE}\.{name}: .*{message}"):
        CustomFeatures(CustomFeatureConfig(**{kind: [f"{HERE}.{name}"]}))


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match=r"cannot import no_such\.thing: No module"):
        CustomFeatures(CustomFeatureConfig(per_field=["no_such.thing"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one_for_all", r"one_for_all: must return .* got \(\)"),
        ("not_a_tensor", "not_a_tensor: must return .* got list"),
        ("complex_number", "complex_number: must return real numbers"),
        ("inverse_std", "inverse_std: must return finite .* for 2 of 2 items"),
    ],
)
def test_a_function_that_returns_something_else_is_named(name, message):
    features = CustomFeatures(CustomFeatureConfig(per_field=[f"{HERE}.{name}"]))
    fields = torch.zeros(2, 1, 1, 1, 8, 8)
    with pytest.raises(ConfigurationError, match=message):
        features.extract(fields[:, 0, 0], fields)
