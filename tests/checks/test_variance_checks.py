"""Checks of the variance of features: targets, extremes, and what is not measurable."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from spinlock.checks import check_dataset, variance_checks
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.variance_checks import column_shares, variance_claims
from spinlock.features.response.response_names import is_invariant
from spinlock.metrics import variance_shares
from spinlock.storage import schema
from tests.checks import make


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    path = tmp_path_factory.mktemp("probed")
    return make(path, 160, probes_per_operator=4, num_realizations=3, grid_size=24)


def rows(path, **options):
    """Rows of the group by name."""
    with CheckSource.open(path, **options) as source:
        return {claim.name: claim.row("variance", source) for claim in variance_claims(source)}


def test_only_a_full_check_decomposes(probed):
    assert {row.group for row in check_dataset(probed, progress=False, replay=0).rows} & {
        "variance"
    } == set()
    report = check_dataset(probed, full=True, progress=False, replay=0)
    assert report.passed, report.table()
    assert len([row for row in report.rows if row.group == "variance"]) == 6


def test_extremes_are_those_of_the_invariant_columns(probed):
    found = rows(probed)
    with CheckSource.open(probed) as source:
        variant = np.unique(source.column(schema.IC_TYPES), return_inverse=True)[1]
        for label, name in (("response", schema.RESPONSES), ("noise", schema.NOISE_RESPONSES)):
            values = source.column(name).reshape(160, -1)
            shares = variance_shares(
                torch.from_numpy(values), torch.from_numpy(variant), torch.arange(160) // 4
            )
            kept = [is_invariant(column) for column in source.specs[name].names]
            assert any(kept)
            assert not all(kept)
            least, most = shares.operator[kept].min(), shares.variant[kept].max()
            assert found[f"{label}: operator"].value == pytest.approx(float(least))
            assert found[f"{label}: variant"].value == pytest.approx(float(most))
            which = np.array(source.specs[name].names)[kept][int(shares.operator[kept].argmin())]
            assert f"({which}, 95 % interval" in found[f"{label}: operator"].measured
        features = source.column(schema.PER_TIMESTEP)[:, -1]
    shares = variance_shares(
        torch.from_numpy(features), torch.from_numpy(variant), torch.arange(160) // 4
    )
    assert found["features: operator"].value == pytest.approx(float(shares.operator.mean()))
    assert found["features: variant"].value == pytest.approx(float(shares.variant.mean()))


def test_targets_hold_where_they_are_promised(probed, tmp_path, monkeypatch):
    assert all(row.passed and "reported only" in row.target for row in rows(probed).values())
    for name, value in (("OPERATORS", 40), ("REALIZATIONS", 3), ("SIDE", 24)):
        monkeypatch.setattr(variance_checks, f"PROMISED_{name}", value)
    found = rows(probed)
    targets = {name: row.target for name, row in found.items()}
    assert targets["response: operator"] == ">= 0.75"
    assert targets["noise: operator"] == ">= 0.9"
    assert targets["response: variant"] == targets["noise: variant"] == "<= 0.1"
    assert targets["features: operator"] == "reported only"
    path = shutil.copy(probed, tmp_path / "swapped.h5")
    with h5py.File(path, "r+") as file:
        # A column that the variant determines.
        labels = np.unique(file[schema.IC_TYPES][:], return_inverse=True)[1]
        file[schema.RESPONSES][:, 0, 1] = labels
        file[schema.NOISE_RESPONSES][:, 0] = labels
    found = rows(path)
    for name, column in (("response", "beta"), ("noise", "noise_abs")):
        for share in ("operator", "variant"):
            row = found[f"{name}: {share}"]
            assert not row.passed
            assert column in row.measured


def test_other_operators_have_no_targets(transport, monkeypatch):
    for name, value in (("OPERATORS", 1), ("REALIZATIONS", 1), ("SIDE", 1)):
        monkeypatch.setattr(variance_checks, f"PROMISED_{name}", value)
    row = rows(transport)["response: operator"]
    assert row.passed
    assert row.target.startswith("reported only (not the baseline's operators")


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({}, "features: operator", "one probe per operator"),
        ({"responses": False, "probes_per_operator": 2}, "response: variant", "not stored"),
        ({"num_realizations": 1, "probes_per_operator": 2}, "noise: operator", "no column is"),
        ({"num_samples": 2, "probes_per_operator": 2}, "features: variant", "one operator"),
    ],
)
def test_what_cannot_be_decomposed_is_not_measurable(options, name, reason, tmp_path):
    options = {"num_samples": 12, "num_realizations": 2, "grid_size": 24} | options
    row = rows(make(tmp_path, **options))[name]
    assert not row.measurable
    assert reason in row.measured


def test_columns_that_are_not_finite_are_left_out(probed, tmp_path):
    path = shutil.copy(probed, tmp_path / "nan.h5")
    with h5py.File(path, "r+") as file:
        file[schema.PER_TIMESTEP][3, 0, 2] = np.nan
    with CheckSource.open(path) as source, CheckSource.open(probed) as intact:
        names, shares = column_shares(source, schema.PER_TIMESTEP)
        before, expected = column_shares(intact, schema.PER_TIMESTEP)
    assert names == before[:2] + before[3:]
    torch.testing.assert_close(shares.operator[2:], expected.operator[3:])


def test_a_bounded_number_of_operators_is_read(probed, monkeypatch):
    monkeypatch.setattr(variance_checks, "MAX_OPERATORS", 10)
    with CheckSource.open(probed) as source:
        found = column_shares(source, schema.RESPONSES).shares
        values = torch.from_numpy(source.column(schema.RESPONSES)[:40, 0])
        variant = np.unique(source.column(schema.IC_TYPES)[:40], return_inverse=True)[1]
    expected = variance_shares(values, torch.from_numpy(variant), torch.arange(40) // 4)
    torch.testing.assert_close(found.operator, expected.operator)
