"""Corruptions of a dataset file, each of which breaks some claims of the check."""

import json

import h5py
import numpy as np

from spinlock.storage import schema
from spinlock.storage.digests import combined_digest


def rows_of(file, *variants):
    """Samples of some variants."""
    labels = file[schema.IC_TYPES][:].astype(str)
    return np.flatnonzero(np.isin(labels, variants))


def change(file, name, rows, function):
    """Replace entries of samples."""
    for row in np.atleast_1d(rows):
        file[name][row] = function(file[name][row])


def swap_labels(file):
    """Two labels change places: shares, variances and bands are as they were."""
    one, two = rows_of(file, "sinusoids")[0], rows_of(file, "gaussian_blobs")[0]
    for name in (schema.IC_TYPES, schema.IC_FAMILIES):
        column = file[name][:]
        column[[one, two]] = column[[two, one]]
        file[name][:] = column


def relabel_a_family(file):
    rows = rows_of(file, "sinusoids")
    for name in (schema.IC_TYPES, schema.IC_FAMILIES):
        file[name][rows] = b"gaussian_blobs"


def relabel_a_variant(file):
    file[schema.IC_TYPES][rows_of(file, "gaussian_noise_1")] = b"gaussian_noise_4"


def scale_a_variant(file):
    change(file, schema.INPUTS, rows_of(file, "gaussian_noise_2"), lambda u: u * 1.0001)


def shift_a_channel(file):
    def shift(u):
        u[1] += 1e-4
        return u

    change(file, schema.INPUTS, 7, shift)


def leak_a_band(file):
    """A wave of 24 cycles, 1 % of the power, in one sample; mean and variance are kept."""
    wave = np.sqrt(2) * np.cos(2 * np.pi * np.arange(32) * 12 / 32).astype(np.float32)

    def leak(u):
        u = u + 0.1 * wave
        u = u - u.mean(axis=(-2, -1), keepdims=True, dtype=np.float64)
        return (u / np.sqrt(np.square(u).mean(dtype=np.float64))).astype(np.float32)

    change(file, schema.INPUTS, rows_of(file, "band_limited_low")[0], leak)


def repeat_a_realization(file):
    def repeat(u):
        u[2] = u[0]
        return u

    change(file, schema.OUTPUTS, 11, repeat)


def switch_an_operator_off(file):
    """The trajectory stays at the initial condition."""

    def stay(u):
        u[:] = file[schema.INPUTS][5]
        # A rounding error of a realization, lest they are all the same.
        u[1:] *= 1 + 1.2e-7 * np.arange(1, 3)[:, None, None, None, None]
        return u

    change(file, schema.OUTPUTS, 5, stay)


def noise(file, function):
    """Change the deviations of the first step from the mean over realizations of all samples."""

    def louder(u, row):
        mean = u[:, 0].mean(axis=0)
        u[:, 0] = mean + function(row) * (u[:, 0] - mean)
        return u

    for row in range(len(file[schema.OUTPUTS])):
        file[schema.OUTPUTS][row] = louder(file[schema.OUTPUTS][row], row)


def amplify_the_noise(file):
    noise(file, lambda row: 1.2)


def unrelated_noise(file):
    values = file[schema.VALUES]
    scale = values["noise_scale"][:] * np.where(
        values["update_policy"][:] == b"residual", values["dt"][:], 0.5
    )
    noise(file, lambda row: 0.1 / scale[row])


def zero_a_column(file):
    file[schema.PER_TIMESTEP][:, :, 3] = 0


def plant_nan_in_features(file):
    file[schema.AGGREGATED][3, 0] = np.nan


def fill_in_missing_features(file):
    """At T = 4 every temporal feature is defined: here, the NaN of a column is all there is."""
    file[schema.PER_TRAJECTORY][:, :, 3] = np.nan


def plant_infinity(file):
    file[schema.INITIAL_FEATURES][9, 0] = -np.inf


def impossible_feature(file):
    """A negative variance."""
    file[schema.PER_TIMESTEP][4, 0, 1] = -1


def plant_nan_in_fields(file):
    def plant(u):
        u[0, 3, 0, 4, 4] = np.nan
        return u

    change(file, schema.OUTPUTS, 20, plant)


def drop_a_dataset(file):
    del file[schema.GRID_SIZES]


def shorten_a_dataset(file):
    rewrite(file, schema.GRID_SIZES, file[schema.GRID_SIZES][:-1])


def renumber_a_timestep(file):
    file["features/timestep"][1] = 7


def widen_a_type(file):
    rewrite(file, schema.AGGREGATED, file[schema.AGGREGATED][:].astype(np.float64))


def rewrite(file, name, values):
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def rename_a_column(file):
    names = list(file[schema.PER_TIMESTEP].attrs["names"])
    names[0], names[1] = names[1], names[0]
    file[schema.PER_TIMESTEP].attrs["names"] = names


def drop_an_attribute(file):
    del file.attrs["run_summary"]


def garble_an_attribute(file):
    file.attrs["device"] = "a fast one"


def change_the_fingerprint(file):
    file.attrs["fingerprint"] = "0" * 64


def change_the_seed(file):
    configuration = json.loads(file.attrs["configuration"])
    file.attrs["configuration"] = json.dumps(configuration | {"seed": 43})


def change_the_digest(file):
    file.attrs["digest"] = "0" * 64


def embellish_the_quality(file):
    quality = json.loads(file.attrs["design_quality"])
    file.attrs["design_quality"] = json.dumps(quality | {"max_abs_correlation": 0.001})


def reorder_samples(file):
    """All that the file holds of them, digests included."""
    file.visititems(roll)
    file.attrs["digest"] = combined_digest(file[schema.DIGESTS][:])


def roll(name, item):
    if isinstance(item, h5py.Dataset) and not item.is_scale:
        item[:] = np.roll(item[:], 1, axis=0)


def contradict_values(file):
    file["parameters/values/alpha"][3] += 1e-6


def contradict_a_policy(file):
    old = file[schema.POLICIES][6]
    file[schema.POLICIES][6] = b"convex" if old != b"convex" else b"residual"


def contradict_a_family(file):
    file[schema.IC_FAMILIES][rows_of(file, "sinusoids")[0]] = b"gaussian_noise"


def contradict_an_operator(file):
    file[schema.OPERATOR_INDEX][6] = 5


def nudge_a_point(file):
    file[schema.PARAMS][3, 13] *= 0.999


def correlate_two_axes(file):
    file[schema.PARAMS][:, 13] = file[schema.PARAMS][:, 14]


def empty_a_stratum(file):
    file[schema.PARAMS][:, 4] = file[schema.PARAMS][:, 4] ** 2


def cluster_the_operators(file):
    file[schema.PARAMS][:] = 0.5 + 0.2 * (file[schema.PARAMS][:] - 0.5)


def assign_by_operator(file):
    """Variants in the order of an axis: the shares are right, the confounding is total."""
    order = np.argsort(file[schema.PARAMS][:, 13])
    for name in (schema.IC_TYPES, schema.IC_FAMILIES):
        column = file[name][:]
        column[order] = np.sort(column)
        file[name][:] = column


def plant_nan_in_responses(file):
    file[schema.RESPONSES][3, 1, 4] = np.nan


def fill_in_a_divergence(file):
    """With several realizations no divergence is missing."""
    file[schema.DIVERGENCE][:, 2] = np.nan


def impossible_response(file):
    """A correlation above 1."""
    file[schema.RESPONSES][8, 0, 0] = 1.5


def repeat_a_noise_response(file):
    file[schema.NOISE_RESPONSES][:, 3] = 0.25
