"""Each corruption fails the rows of the claims that it breaks, and no other rows."""

import shutil

import h5py
import pytest

from spinlock.checks import check_dataset
from tests.checks import corruptions as c

pytestmark = pytest.mark.slow

DIGESTS = ("integrity", "sample digests")
COLUMN_DIGESTS = ("integrity", "column digests")
ATTRIBUTES_DIGEST = ("integrity", "attributes digest")
POINTS = {("design", "points"), ("integrity", "values"), ("design", "stored quality")}
# Corruption -> rows that fail; the digests of samples fail besides unless it is in UNTOUCHED.
OWN = {
    c.swap_labels: {("design", "assignment")},
    c.relabel_a_family: {
        ("distribution", "sinusoids"),
        ("distribution", "gaussian_blobs"),
        ("design", "assignment"),
    },
    c.relabel_a_variant: {
        ("distribution", "gaussian_noise_1"),
        ("distribution", "gaussian_noise_4"),
        ("amplitude", "gaussian_noise_4"),
        ("design", "assignment"),
    },
    c.scale_a_variant: {("amplitude", "gaussian_noise_2")},
    c.shift_a_channel: {("amplitude", "zero mean")},
    c.leak_a_band: {("spectrum", "band_limited_low")},
    c.repeat_a_realization: {("liveness", "realizations differ")},
    c.switch_an_operator_off: {("liveness", "outputs change")},
    c.amplify_the_noise: {("liveness", "noise amplitude")},
    c.unrelated_noise: {("liveness", "spread tracks noise_scale"), ("liveness", "noise amplitude")},
    c.zero_a_column: {("features", "sdf/per_timestep: constant")},
    c.plant_nan_in_features: {("features", "sdf/aggregated: missing")},
    c.fill_in_missing_features: {("features", "sdf/per_trajectory: missing")},
    c.plant_infinity: {
        ("features", "sdf/initial: infinite"),
    },
    c.impossible_feature: {("features", "sdf/per_timestep: range")},
    c.plant_nan_in_responses: {("features", "response/per_timestep: missing")},
    c.fill_in_a_divergence: {("features", "response/divergence: missing")},
    c.impossible_response: {("features", "response/per_timestep: range")},
    c.repeat_a_noise_response: {("features", "response/noise: constant")},
    c.plant_nan_in_fields: {("integrity", "finite fields")},
    c.drop_a_dataset: {("integrity", "datasets")},
    c.shorten_a_dataset: {("integrity", "shapes")},
    c.widen_a_type: {("integrity", "types")},
    c.renumber_a_timestep: {("integrity", "dimension scales")},
    c.rename_a_column: {("integrity", "dataset attributes")},
    c.drop_an_attribute: {("integrity", "root attributes")},
    c.garble_an_attribute: {("integrity", "root attributes")},
    c.change_the_fingerprint: {("integrity", "fingerprint")},
    c.change_the_seed: {
        ("integrity", "fingerprint"),
        ("design", "points"),
        ("design", "assignment"),
    },
    c.change_the_digest: {("integrity", "file digest")},
    c.embellish_the_quality: {("design", "stored quality")},
    c.reorder_samples: {
        ("design", "points"),
        ("design", "assignment"),
        ("integrity", "operator index"),
    },
    c.contradict_values: {("integrity", "values")},
    c.contradict_a_policy: {("integrity", "operator metadata")},
    c.contradict_a_family: {("integrity", "families")},
    c.contradict_an_operator: {("integrity", "operator index")},
    c.nudge_a_point: POINTS,
    c.correlate_two_axes: POINTS | {("design", "max_abs_correlation")},
    c.empty_a_stratum: POINTS | {("design", "min_stratum_count")},
    c.cluster_the_operators: POINTS
    | {("design", "centered_l2_discrepancy"), ("design", "min_stratum_count")},
    c.assign_by_operator: {("design", "assignment"), ("design", "independence")},
}
# Corruptions of attributes that a digest covers.
ATTRIBUTES = {
    c.rename_a_column,
    c.drop_an_attribute,
    c.garble_an_attribute,
    c.change_the_fingerprint,
    c.change_the_seed,
    c.change_the_digest,
    c.embellish_the_quality,
    c.reorder_samples,
}
# Corruptions of nothing that a sample's digest covers, or of datasets that cannot be read then.
UNTOUCHED = ATTRIBUTES | {
    c.drop_a_dataset,
    c.shorten_a_dataset,
    c.widen_a_type,
    c.renumber_a_timestep,
}
# Corruptions of no column: of fields, of attributes, or of datasets that cannot be read then.
NO_COLUMN = {
    c.scale_a_variant,
    c.shift_a_channel,
    c.leak_a_band,
    c.repeat_a_realization,
    c.switch_an_operator_off,
    c.amplify_the_noise,
    c.unrelated_noise,
    c.plant_nan_in_fields,
    c.drop_a_dataset,
    c.shorten_a_dataset,
    c.widen_a_type,
    c.renumber_a_timestep,
} | (ATTRIBUTES - {c.reorder_samples})
# Groups whose claims the corruption breaks as well.
ALSO = {
    c.assign_by_operator: {"amplitude", "spectrum"},
    c.cluster_the_operators: {"design"},
    c.correlate_two_axes: {"design"},
    c.empty_a_stratum: {"design"},
}


def failures(path, **options):
    report = check_dataset(path, progress=False, **options)
    return {(row.group, row.name) for row in report.failures}


@pytest.mark.parametrize("corrupt", OWN, ids=lambda function: function.__name__)
def test_each_corruption_is_caught_by_its_own_row(corrupt, pristine, tmp_path):
    path = shutil.copy(pristine, tmp_path / "corrupt.h5")
    with h5py.File(path, "r+") as file:
        corrupt(file)
    found = failures(path, full=True, replay=0)
    expected = OWN[corrupt] | (set() if corrupt in UNTOUCHED else {DIGESTS})
    expected |= set() if corrupt in NO_COLUMN else {COLUMN_DIGESTS}
    expected |= {ATTRIBUTES_DIGEST} if corrupt in ATTRIBUTES else set()
    assert expected <= found
    unexpected = {row for row in found - expected if row[0] not in ALSO.get(corrupt, ())}
    assert not unexpected
