"""The features of a sample depend neither on other samples nor on how the work is divided."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from spinlock.features import batches, temporal

from . import oracle
from .helpers import package_extract, random_fields
from .strategies import few, fields_of


@few
@given(sample=fields_of(), other=fields_of(), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_a_row_does_not_depend_on_the_others(device, sample, other, scale):
    """Bit for bit: the second operator's fields are exchanged, the first one's features stay."""
    u = sample.fields()
    exchanged = u.copy()
    exchanged[1] = scale * np.resize(other.fields(), u[1].shape)
    before, after = package_extract(u, device), package_extract(exchanged, device)
    for key in before:
        np.testing.assert_array_equal(before[key][0], after[key][0], err_msg=key)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_spoils_no_other(device, value):
    u = random_fields("drifting", (3, 1, 5, 2, 12, 10), 13)
    expected = package_extract(u, device)
    u[1] = value
    u[2, 0, 3, 1, 4, 5] = value
    found = package_extract(u, device)
    for key in expected:
        np.testing.assert_array_equal(found[key][0], expected[key][0], err_msg=key)


@few
@given(sample=fields_of(lengths=st.integers(2, 6)), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_a_timestep_does_not_depend_on_the_others(device, sample, scale):
    u = sample.fields()
    exchanged = u.copy()
    exchanged[:, :, 1:] = scale * u[:, :, :1]
    before, after = package_extract(u, device), package_extract(exchanged, device)
    np.testing.assert_array_equal(before["per_timestep"][:, 0], after["per_timestep"][:, 0])


def test_realizations_do_not_depend_on_each_other(device):
    u = random_fields("drifting", (2, 3, 6, 2, 12, 12), 1)
    exchanged = u.copy()
    exchanged[:, 1:] = random_fields("sparse", (2, 2, 6, 2, 12, 12), 2)
    before, after = package_extract(u, device), package_extract(exchanged, device)
    np.testing.assert_array_equal(before["per_trajectory"][:, 0], after["per_trajectory"][:, 0])


def test_work_is_cut_into_pieces_invisibly(device):
    """One call on many fields gives what calls on single rows give, to rounding."""
    u = random_fields("drifting", (10, 2, 16, 3, 32, 32), 3)
    whole = package_extract(u, device)
    for row in range(0, len(u), 3):
        alone = package_extract(u[row : row + 1], device)
        part = {key: value[row : row + 1] for key, value in whole.items()}
        oracle.assert_agreement(part, alone, u[row : row + 1], f"row {row}")


def test_a_trajectory_larger_than_a_piece_is_read_in_rows(device, monkeypatch):
    """9 rows of 5 x 12 pixels, 3 at a time and 4 at a time: with and without a rest."""
    u = random_fields("drifting", (1, 2, 5, 2, 9, 12), 14)
    expected = oracle.oracle_extract(u)
    sizes, original = [], temporal._block_sums

    def spy(pixels, mean):
        sizes.append(pixels.numel())
        return original(pixels, mean)

    monkeypatch.setattr(temporal, "_block_sums", spy)
    for piece, blocks in ((3 * 60, [180, 180, 180]), (5 * 60 - 1, [240, 240, 60])):
        sizes.clear()
        for name in ("CPU_CHUNK", "DEVICE_CHUNK"):
            monkeypatch.setattr(batches, name, piece)
        oracle.assert_agreement(package_extract(u, device), expected, u, f"{piece} pixels")
        assert sizes == 4 * blocks


def test_a_single_field_is_computed_with_a_second_one(monkeypatch):
    """torch splits a sum to one number over its threads, so rounding would depend on them."""
    sizes = []

    def of_fields(fields):
        sizes.append(len(fields))
        return fields.mean((-2, -1))[:, None]

    one = torch.from_numpy(random_fields("white", (1, 1, 1, 1, 16, 16), 11))
    batches.field_averages(one, of_fields, 1)
    monkeypatch.setattr(batches, "CPU_CHUNK", 1)
    batches.field_averages(one.expand(2, -1, -1, -1, -1, -1), of_fields, 1)
    assert sizes == [2, 2, 2]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 8, 8), (3, 1, 4, 1, 8, 8), (1, 4, 2, 5, 9, 8)])
def test_channels_and_realizations_are_averaged(device, shape):
    """The mean of minima, not the minimum: averaging comes after everything else."""
    u = random_fields("sparse", shape, 7)
    N, M, T, C, H, W = shape
    together = package_extract(u, device)
    apart = package_extract(np.moveaxis(u, 3, 1).reshape(N * C * M, 1, T, 1, H, W), device)
    rows = apart["per_timestep"].reshape(N, C * M, T, -1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(together["per_timestep"], rows, rtol=1e-4, atol=1e-5)
    trajectories = apart["per_trajectory"].reshape(N, C, M, -1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(together["per_trajectory"], trajectories, rtol=1e-4, atol=1e-5)
