"""Names, order, shapes, dtypes, NaNs and error messages of the features."""

import numpy as np
import pytest
import torch

from spinlock.features import (
    AGGREGATED_NAMES,
    FEATURES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    extract,
    extract_per_timestep,
    spatial_features,
    spectral_features,
    temporal_features,
)

from . import oracle
from .helpers import random_fields

GROUPS = {"spatial": oracle.SPATIAL, "spectral": oracle.SPECTRAL, "temporal": oracle.TEMPORAL}


def test_names_and_order_are_those_of_the_specification():
    assert tuple(PER_TIMESTEP_NAMES) == oracle.PER_TIMESTEP
    assert tuple(PER_TRAJECTORY_NAMES) == oracle.PER_TRAJECTORY
    assert tuple(AGGREGATED_NAMES) == oracle.AGGREGATED


def test_counts():
    assert len(PER_TIMESTEP_NAMES) == 46
    assert len(PER_TRAJECTORY_NAMES) == 13
    assert len(AGGREGATED_NAMES) == 39
    assert len(FEATURES) == 59
    for group, size in (("spatial", 19), ("spectral", 27), ("temporal", 13)):
        assert sum(row.group == group for row in FEATURES) == size


def test_names_are_unique():
    names = [*PER_TIMESTEP_NAMES, *PER_TRAJECTORY_NAMES, *AGGREGATED_NAMES]
    assert len(set(names)) == len(names)


def test_rows_stand_in_column_order():
    assert [row.name for row in FEATURES] == [*PER_TIMESTEP_NAMES, *PER_TRAJECTORY_NAMES]
    for group, names in GROUPS.items():
        assert [row.name for row in FEATURES if row.group == group] == list(names)


@pytest.mark.parametrize("row", FEATURES, ids=lambda row: row.name)
def test_row_says_what_the_specification_says(row):
    assert row.exponent == oracle.EXPONENT[row.name]
    assert row.shifts == (row.name in oracle.SHIFTED_BY_A_CONSTANT)
    if row.group == "temporal":
        assert row.min_timesteps == oracle.TEMPORAL[row.name][1]
    else:
        assert row.min_timesteps in (None, 0, 1)  # any length will do
    assert isinstance(row.unit, str)
    for text in (row.formula, row.range):
        assert isinstance(text, str)
        assert text.strip()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 8, 8), (3, 2, 5, 2, 9, 12), (2, 1, 4, 3, 16, 8)])
def test_shapes_dtype_and_device(device, shape):
    N, M, T = shape[:3]
    fields = torch.from_numpy(random_fields("white", shape, 0)).to(device)
    record = extract(fields)
    assert record.per_timestep.shape == (N, T, 46)
    assert record.per_trajectory.shape == (N, M, 13)
    assert record.aggregated.shape == (N, 39)
    alone = extract_per_timestep(fields)
    assert alone.shape == (N, T, 46)
    for array in (record.per_timestep, record.per_trajectory, record.aggregated, alone):
        assert array.dtype == torch.float32
        assert array.device.type == device.type
        assert not array.requires_grad


@pytest.mark.parametrize("static", [False, True], ids=["moving", "static"])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5])
def test_nan_exactly_where_a_trajectory_is_too_short(device, T, static):
    """Also for static trajectories: too short is too short, whatever the imposed value."""
    fields = torch.from_numpy(random_fields("white", (2, 3, T, 2, 8, 8), T)).to(device)
    if static:
        fields = fields[:, :, :1].expand(-1, -1, T, -1, -1, -1)
    record = extract(fields)
    too_short = np.array([oracle.TEMPORAL[name][1] > T for name in PER_TRAJECTORY_NAMES])
    assert torch.isfinite(record.per_timestep).all()
    for row in record.per_trajectory.cpu().numpy().reshape(-1, 13):
        np.testing.assert_array_equal(np.isnan(row), too_short)
        assert np.isfinite(row[~too_short]).all()
    for row in record.aggregated.cpu().numpy():
        np.testing.assert_array_equal(np.isnan(row), np.tile(too_short, 3))


@pytest.mark.parametrize("function", [extract, extract_per_timestep])
@pytest.mark.parametrize("shape", [(8, 8), (2, 3, 8, 8), (1, 2, 3, 8, 8), (1, 1, 1, 1, 1, 8, 8)])
def test_wrong_number_of_dimensions_names_the_layout(function, shape):
    with pytest.raises(ValueError, match=r"\[?N, ?M, ?T, ?C, ?H, ?W\]?"):
        function(torch.zeros(shape))


@pytest.mark.parametrize("function", [extract, extract_per_timestep])
@pytest.mark.parametrize(("H", "W"), [(7, 8), (8, 7), (1, 64), (4, 4)])
def test_too_small_a_grid_says_what_it_got_and_what_it_needs(function, H, W):
    with pytest.raises(ValueError, match=rf"(?s)(8.*{H}.*{W}|{H}.*{W}.*8)"):
        function(torch.zeros(1, 1, 1, 1, H, W))


@pytest.mark.parametrize("function", [extract, extract_per_timestep])
@pytest.mark.parametrize("shape", [(0, 1, 1, 1, 8, 8), (1, 0, 1, 1, 8, 8), (1, 1, 0, 1, 8, 8)])
def test_an_empty_batch_is_refused(function, shape):
    with pytest.raises(ValueError, match="may be empty; skip empty batches"):
        function(torch.zeros(shape))


@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)])
def test_any_leading_shape(device, lead):
    """What `extract` averages, one by one."""
    u = torch.from_numpy(random_fields("drifting", (*lead, 1, 1, 4, 1, 9, 12), 5)).to(device)
    rows = extract(u.reshape(-1, 1, 4, 1, 9, 12))
    fields = u.reshape(*lead, 4, 9, 12)
    spatial, spectral = spatial_features(fields), spectral_features(fields)
    assert torch.equal(torch.cat((spatial, spectral), -1).reshape(-1, 4, 46), rows.per_timestep)
    assert torch.equal(temporal_features(fields).reshape(-1, 1, 13), rows.per_trajectory)
    assert spatial.shape == (*lead, 4, 19)
    assert temporal_features(fields).shape == (*lead, 13)
    with pytest.raises(ValueError, match=r"expected \[\.\.\., T, H, W\]"):
        temporal_features(u.new_zeros(8, 8))


@pytest.mark.parametrize("function", [extract, extract_per_timestep])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_fields_that_are_not_real_numbers_are_refused(function, dtype):
    with pytest.raises((TypeError, ValueError), match=r"(?i)float|dtype"):
        function(torch.zeros(1, 1, 1, 1, 8, 8, dtype=dtype))
