"""Values out of range are refused, also where the digests match them."""

import dataclasses
import itertools

import h5py
import numpy as np
import pytest

from spinlock.storage import schema
from tests.datamodules.verified import (
    CONFIG,
    FEATURE_VIEWS,
    put,
    put_value,
    refused,
    require_equal,
    served,
    zero,
)
from tests.helpers import reseal

pytestmark = pytest.mark.slow


def resealed(edit):
    """Make a change and update the digests, as another program or an attacker might."""

    def spoil(file):
        edit(file)
        reseal(file, CONFIG)

    return spoil


SEALED_FEATURES = {
    "NaN": (put(schema.PER_TIMESTEP, 3, np.nan, (1, 7)), schema.PER_TIMESTEP),
    "infinity": (put(schema.PER_TIMESTEP, 0, np.inf, (1, 0)), schema.PER_TIMESTEP),
    "NaN in initial features": (
        put(schema.INITIAL_FEATURES, 23, np.nan, (45,)),
        schema.INITIAL_FEATURES,
    ),
    "no features at all": (
        put(schema.PER_TIMESTEP, slice(None), np.nan),
        schema.PER_TIMESTEP,
    ),
}
VALUES, PARAMS = schema.VALUES, schema.PARAMS
SEALED_LABELS = {
    "an unknown variant": (put(schema.IC_TYPES, 2, b"plane_wave"), schema.IC_TYPES),
    "no variant": (put(schema.IC_TYPES, 2, b""), schema.IC_TYPES),
    "no text": (put(schema.IC_TYPES, 2, b"\xff\xfe"), schema.IC_TYPES),
    "an unknown family": (
        put(schema.IC_FAMILIES, 2, b"plane_waves"),
        f"{schema.IC_FAMILIES}|{schema.IC_TYPES}",
    ),
    "a foreign family": (
        lambda file: put(
            schema.IC_FAMILIES,
            2,
            b"sinusoids" if file[schema.IC_FAMILIES][2] != b"sinusoids" else b"gaussian_noise",
        )(file),
        f"{schema.IC_FAMILIES}|{schema.IC_TYPES}",
    ),
    "an unknown policy": (put_value("update_policy", 3, b"leapfrog"), VALUES),
    "an unknown normalization": (put_value("normalization", 3, b"layer"), VALUES),
    "a text that is none": (put_value("activation", 3, b"\xff\xfe\xfd"), VALUES),
    "2^40 layers": (put_value("num_layers", 7, 2**40), VALUES),
    "2^63 - 1 layers": (put_value("num_layers", 7, 2**63 - 1), VALUES),
    "no layers": (put_value("num_layers", 7, 0), VALUES),
    "fewer layers than none": (put_value("num_layers", 7, -(2**40)), VALUES),
    "2^40 channels": (put_value("base_channels", 7, 2**40), VALUES),
    "a huge kernel": (put_value("kernel_size", 7, 2**31 + 1), VALUES),
    "a huge grid": (put_value("grid_size", 7, 2**62), VALUES),
    "NaN as noise": (put_value("noise_scale", 7, np.nan), VALUES),
    "infinite noise": (put_value("noise_scale", 7, np.inf), VALUES),
    "params above the cube": (put(PARAMS, 1, 1.5, (0,)), f"{PARAMS}|{VALUES}"),
    "params below the cube": (put(PARAMS, 1, -1e30, (14,)), f"{PARAMS}|{VALUES}"),
    "NaN as params": (put(PARAMS, 1, np.nan, (3,)), f"{PARAMS}|{VALUES}"),
    "infinity as params": (put(PARAMS, 1, np.inf, (3,)), f"{PARAMS}|{VALUES}"),
    "another operator's number": (put(schema.OPERATOR_INDEX, 4, 3), schema.OPERATOR_INDEX),
    "an operator that is not there": (put(schema.OPERATOR_INDEX, 23, 12), schema.OPERATOR_INDEX),
    "a negative operator": (put(schema.OPERATOR_INDEX, 4, -1), schema.OPERATOR_INDEX),
    "a huge operator": (put(schema.OPERATOR_INDEX, 4, 2**62), schema.OPERATOR_INDEX),
    "one operator for all": (zero(schema.OPERATOR_INDEX), schema.OPERATOR_INDEX),
}


@pytest.mark.parametrize("damage", SEALED_FEATURES)
@pytest.mark.parametrize("view", FEATURE_VIEWS)
def test_features_that_are_not_finite_are_not_served(path, view, damage):
    edit, name = SEALED_FEATURES[damage]
    with h5py.File(path, "r+") as file:
        resealed(edit)(file)
    refused(path, view, name)


# A huge value that is used as a length would keep a reader busy for days.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("damage", "view"), zip(SEALED_LABELS, itertools.cycle(("pairs", "fields")), strict=False)
)
def test_labels_out_of_range_are_not_served(path, view, damage):
    edit, name = SEALED_LABELS[damage]
    with h5py.File(path, "r+") as file:
        resealed(edit)(file)
    refused(path, view, name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", ["2^40 layers", "a huge operator", "an unknown variant"])
@pytest.mark.parametrize("view", ["features", "sequence", "both"])
def test_labels_out_of_range_are_not_served_in_other_views(path, view, damage):
    edit, name = SEALED_LABELS[damage]
    with h5py.File(path, "r+") as file:
        resealed(edit)(file)
    refused(path, view, name)


@pytest.mark.parametrize("view", FEATURE_VIEWS)
def test_what_is_not_asked_for_may_be_missing(path, view, batches):
    """The digests are right, and the damaged sample is not among the requested ones."""
    with h5py.File(path, "r+") as file:
        resealed(put(schema.PER_TIMESTEP, 20, np.nan, (1, 7)))(file)
    shorter = dataclasses.replace(CONFIG, num_samples=16)
    require_equal(served(path, view, shorter), batches[view], 16)
