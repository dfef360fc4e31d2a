"""The 15 axes: names, order, distribution and limits."""

import math

import numpy as np
import pytest

from spinlock.configuration.parameter_axes import (
    IntegerRange,
    LogUniformRange,
    ParameterSpaceConfig,
    UniformRange,
)
from spinlock.configuration.parameter_space import (
    PARAMETER_NAMES,
    ParameterSpace,
    typed_row,
)
from spinlock.errors import ConfigurationError

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


@pytest.mark.parametrize(
    ("name", "kind", "least", "largest"),
    [
        ("num_layers", IntegerRange, 1, 1023),
        ("base_channels", IntegerRange, 1, 65535),
        ("dropout_rate", UniformRange, 0.0, math.nextafter(1.0, 0.0)),
        ("noise_scale", LogUniformRange, 5e-324, 1.0),
        ("schedule_period", IntegerRange, 1, 1048575),
        ("spatial_correlation", UniformRange, 0.0, 1e300),
        ("alpha", UniformRange, 0.0, 1.0),
        ("dt", LogUniformRange, 5e-324, 1.0),
    ],
)
def test_limits_of_the_axes(name, kind, least, largest):
    for value in (least, largest):
        space = ParameterSpaceConfig(**{name: kind(value, value)})
        assert space.base_axes[name] == kind(value, value)
    step = 1 if kind is IntegerRange else 5e-324
    refused = [kind(least - step, largest)]
    if name not in ("noise_scale", "spatial_correlation", "dt"):
        above = largest + 1 if kind is IntegerRange else math.nextafter(largest, 2.0)
        refused.append(kind(least, above))
    for values in refused:
        with pytest.raises(ConfigurationError, match=rf"parameter_space\.{name}: "):
            ParameterSpaceConfig(**{name: values})


@pytest.mark.parametrize("kernel", [1, 7])
def test_limits_of_the_grid(kernel):
    for size in (8, 16384):
        space = ParameterSpaceConfig(grid_size=(size,), kernel_size=(min(kernel, size),))
        assert space.grid_size == (size,)
    for size in (7, 16385):
        with pytest.raises(ConfigurationError, match="grid_size: must be at least 8 pixels"):
            ParameterSpaceConfig(grid_size=(size,), kernel_size=(kernel,))


def test_kernels_fit_the_grid():
    """A kernel may be as large as the grid; it has a pixel in its middle."""
    assert ParameterSpaceConfig(grid_size=(9,), kernel_size=(9,)).kernel_size == (9,)
    for kernel in (11, 8, 0, -1):
        with pytest.raises(ConfigurationError, match=r"parameter_space\.kernel_size: "):
            ParameterSpaceConfig(grid_size=(9,), kernel_size=(kernel,))


@pytest.mark.parametrize(("width", "rate", "left"), [(4, 0.75, 1), (4, 0.76, 0.96), (1, 0.0, 1)])
def test_dropout_leaves_a_channel(width, rate, left):
    """Of the narrowest layer, at the highest rate, a channel remains on average."""
    space = ParameterSpaceConfig(
        base_channels=IntegerRange(width, 64), dropout_rate=UniformRange(0.0, rate)
    )
    if left >= 1:
        space.check_dropout()
    else:
        with pytest.raises(ConfigurationError, match="must be at least 1"):
            space.check_dropout()


def test_lists_and_tuples_are_the_same_choice():
    space = ParameterSpaceConfig(kernel_size=[3, 5], activation=["gelu"])
    assert space == ParameterSpaceConfig(kernel_size=(3, 5), activation=("gelu",))
