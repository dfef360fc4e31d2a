"""The 15 axes: names, order and distribution."""

import numpy as np
import pytest

from spinlock.configuration.parameter_axes import IntegerRange, ParameterSpaceConfig
from spinlock.configuration.parameter_space import (
    PARAMETER_NAMES,
    ParameterSpace,
    typed_row,
)

SPACE = ParameterSpace(ParameterSpaceConfig().base_axes)


def test_names_and_order():
    assert " ".join(PARAMETER_NAMES) == (
        "num_layers base_channels kernel_size activation dropout_rate noise_type noise_scale "
        "noise_schedule schedule_period spatial_correlation normalization grid_size update_policy "
        "alpha dt"
    )


def test_ends_of_the_axes():
    low, high = (typed_row(row) for row in SPACE.values(np.array([[0.0] * 15, [1.0] * 15])))
    assert (low.num_layers, high.num_layers) == (2, 5)
    assert (low.base_channels, high.base_channels) == (16, 64)
    assert (low.kernel_size, high.kernel_size) == (3, 7)
    assert (low.activation, high.activation) == ("relu", "silu")
    assert (low.dropout_rate, high.dropout_rate) == (0.0, 0.3)
    assert (low.noise_type, high.noise_type) == ("gaussian", "laplace")
    assert (low.noise_scale, high.noise_scale) == (1e-5, 1.0)
    assert (low.noise_schedule, high.noise_schedule) == ("constant", "periodic")
    assert (low.schedule_period, high.schedule_period) == (50, 200)
    assert (low.spatial_correlation, high.spatial_correlation) == (0.0, 0.3)
    assert (low.normalization, high.normalization) == ("none", "batch")
    assert (low.grid_size, high.grid_size) == (128, 128)
    assert (low.update_policy, high.update_policy) == ("autoregressive", "convex")
    assert (low.alpha, high.alpha) == (0.1, 0.9)
    assert (low.dt, high.dt) == (0.001, 0.1)


def test_discrete_values_are_equally_likely():
    num = 3 * 49 * 151 * 4
    unit = np.full((num, 15), 0.5)
    unit[:] = ((np.arange(num) + 0.5) / num)[:, None]
    values = SPACE.values(unit)
    sizes = {
        "num_layers": 4,
        "base_channels": 49,
        "kernel_size": 3,
        "activation": 3,
        "noise_type": 2,
        "noise_schedule": 3,
        "schedule_period": 151,
        "normalization": 3,
        "grid_size": 1,
        "update_policy": 3,
    }
    for name, size in sizes.items():
        _, counts = np.unique(values[name], return_counts=True)
        assert len(counts) == size, name
        assert np.ptp(counts) <= 1, name


def test_logarithmic_axes_are_uniform_in_the_logarithm():
    values = SPACE.values(np.full((1, 15), 0.5))
    assert values["noise_scale"][0] == pytest.approx(10**-2.5)
    assert values["dt"][0] == pytest.approx(0.01)


@pytest.mark.parametrize("shape", [(3, 14), (15,), (2, 3, 15)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match="points must have shape"):
        SPACE.values(np.zeros(shape))


def test_coordinates_outside_the_cube_are_refused():
    with pytest.raises(ValueError, match="coordinates must lie"):
        SPACE.values(np.full((1, 15), 1.5))


def test_an_axis_may_have_one_value():
    space = ParameterSpace(ParameterSpaceConfig(num_layers=IntegerRange(3, 3)).base_axes)
    assert set(space.values(np.random.default_rng(0).random((20, 15)))["num_layers"]) == {3}
