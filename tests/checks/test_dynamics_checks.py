"""Checks of the operators' dynamics: corruptions with matching digests are found by name."""

import shutil

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.simulation.transport_flow import TRUE_DYNAMICS
from spinlock.storage import schema
from spinlock.storage.stored_configuration import read_configuration
from tests.checks import make, names
from tests.helpers import reseal

pytestmark = pytest.mark.slow


def test_transport_is_measured(transport):
    report = check_dataset(transport, progress=False)
    assert report.passed, report.table()
    rows = [row for row in report.rows if row.group == "dynamics"]
    assert [row.name for row in rows] == [
        *("missing", "infinite", "range", "constant", "known values"),
        *("diffusion error", "diffusion correlation", "shift error", "shift correlation"),
    ]
    assert all(row.measurable for row in rows)
    assert report.row("dynamics", "shift error").target == "<= 0.3 pixels/step"
    assert 0 < report.row("dynamics", "diffusion error").value < 0.05
    assert "32 operators" in report.row("dynamics", "shift correlation").measured
    assert report.row("replay", "dynamics").passed


def swap_two_rows(columns, dynamics):
    dynamics[[4, 9]] = dynamics[[9, 4]]


def edit(name):
    def change(columns, dynamics):
        dynamics[5, columns.index(name)] += 1e-3

    return change


def scramble_diffusion(columns, dynamics):
    dynamics[:, columns.index("diffusion")] = dynamics[::-1, columns.index("diffusion")].copy()


def mirror(columns, dynamics):
    dynamics[:, columns.index("shift_y")] *= -1


def plant_nan(columns, dynamics):
    dynamics[3, columns.index("memory")] = np.nan


def plant_infinity(columns, dynamics):
    dynamics[3, columns.index("lyapunov")] = np.inf


def impossible(columns, dynamics):
    """A share above 1."""
    dynamics[3, columns.index("mixing")] = 1.5


def repeat(columns, dynamics):
    dynamics[:, columns.index("evenness")] = 0.25


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (swap_two_rows, {"known values"}),
        *((edit(name), {"known values"}) for name in (*TRUE_DYNAMICS, "noise", "noise_length")),
        (scramble_diffusion, {"diffusion error", "diffusion correlation"}),
        (mirror, {"shift error", "shift correlation"}),
        (plant_nan, {"missing"}),
        (plant_infinity, {"infinite"}),
        (impossible, {"range"}),
        (repeat, {"constant"}),
    ],
)
def test_corruptions_with_matching_digests_are_found(corrupt, expected, transport, tmp_path):
    path = shutil.copy(transport, tmp_path / "corrupt.h5")
    with h5py.File(path, "r+") as file:
        config = read_configuration(file)
        columns = file[schema.DYNAMICS].attrs["names"].tolist()
        dynamics = file[schema.DYNAMICS][:]
        corrupt(columns, dynamics)
        file[schema.DYNAMICS][:] = dynamics
        reseal(file, config)
    report = check_dataset(path, replay=0, progress=False)
    found = {row for group, row in names(report.failures) if group == "dynamics"}
    assert found == expected


def test_the_operators_that_differ_are_named(transport, tmp_path):
    path = shutil.copy(transport, tmp_path / "edited.h5")
    with h5py.File(path, "r+") as file:
        place = file[schema.DYNAMICS].attrs["names"].tolist().index("true_growth")
        file[schema.DYNAMICS][17, place] += 0.01
    report = check_dataset(path, replay=0, progress=False)
    assert report.row("dynamics", "known values").measured == "1: true_growth of operator 17"


def test_operators_beyond_half_the_signal_are_left_out(tmp_path):
    """At the full strength of the network nothing is promised."""
    path = make(tmp_path, 12, operator="transport", dynamics=True, num_realizations=1, grid_size=24)
    report = check_dataset(path, replay=0, progress=False)
    assert report.passed, report.table()
    for name in ("diffusion error", "shift correlation"):
        row = report.row("dynamics", name)
        assert not row.measurable
        assert "operators are nearly linear, at least 8 are needed" in row.measured


def test_other_families_have_no_rows_of_transport(tmp_path):
    path = make(tmp_path, 10, dynamics=True, num_realizations=1, grid_size=24)
    report = check_dataset(path, replay=0, progress=False)
    assert report.passed, report.table()
    found = [row.name for row in report.rows if row.group == "dynamics"]
    assert found == ["missing", "infinite", "range", "constant", "known values"]
    assert report.row("dynamics", "known values").claim.endswith(": noise, noise_length")
