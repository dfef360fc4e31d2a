"""Edited attributes are noticed by all who read them."""

import dataclasses
import json

import h5py
import numpy as np
import pytest

from spinlock import SpinlockDataModule
from spinlock.checks import check_dataset
from spinlock.errors import DatasetError
from spinlock.generation.build import assemble_parts, generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import require_dataset, schema
from tests.helpers import reseal
from tests.storage.dataset_damages import leftovers
from tests.storage.sabotage import (
    CONFIG,
)

pytestmark = pytest.mark.slow


def edit_record(attribute, /, **changes):
    """Change what a JSON list of records says, or a JSON record."""

    def edit(file):
        records = json.loads(file.attrs[attribute])
        record = records[0] if isinstance(records, list) else records
        assert set(changes) <= set(record)
        assert record | changes != record
        record.update(changes)
        file.attrs[attribute] = json.dumps(records)

    return edit


def add_record(attribute, /, **record):
    def edit(file):
        file.attrs[attribute] = json.dumps([*json.loads(file.attrs[attribute]), record])

    return edit


def drop(holder, name):
    def edit(file):
        del file[holder].attrs[name]

    return edit


def set_attribute(holder, name, value):
    def edit(file):
        assert np.any(file[holder].attrs[name] != value)
        file[holder].attrs[name] = value

    return edit


def exchange_names(file):
    """Two columns change their names: every model would learn from the wrong one."""
    held = list(file[schema.PER_TIMESTEP].attrs["names"])
    held[0], held[1] = held[1], held[0]
    file[schema.PER_TIMESTEP].attrs["names"] = held


def claim_no_compression(file):
    """Another configuration with the same fingerprint, by which chunks would be read wrongly."""
    configuration = json.loads(file.attrs["configuration"])
    configuration["storage"]["compression"] = "none"
    file.attrs["configuration"] = json.dumps(configuration)


def respell_the_configuration(file):
    file.attrs["configuration"] = " " + file.attrs["configuration"]


ATTRIBUTES_ROW = ("integrity", "attributes digest")
# Edit -> rows of the check that fail besides that of the digest of attributes.
EDITS = {
    "features": (edit_record("features", formula="⟨u⟩ + 1"), set()),
    "a feature more": (add_record("features", name="mine"), set()),
    "device": (edit_record("device", name="a fast one"), set()),
    "a device more": (add_record("device", type="cuda", name="a fast one"), set()),
    "package_versions": (edit_record("package_versions", torch="0.0.1"), set()),
    "run_summary": (edit_record("run_summary", computed_samples=0), set()),
    "design_quality": (
        edit_record("design_quality", max_abs_correlation=0.001),
        {("design", "stored quality")},
    ),
    "digest": (set_attribute("/", "digest", "0" * 64), {("integrity", "file digest")}),
    "attributes_digest": (set_attribute("/", "attributes_digest", "0" * 64), set()),
    "names": (exchange_names, {("integrity", "dataset attributes")}),
    "names of texts": (
        set_attribute(schema.NOISE_REGIMES, "names", ["high", "medium", "low"]),
        {("integrity", "dataset attributes")},
    ),
    "description": (
        set_attribute(schema.OUTPUTS, "description", "pressure in Pa"),
        {("integrity", "dataset attributes")},
    ),
    "dimensions": (
        set_attribute(schema.INPUTS, "dimensions", ["sample", "channel", "x", "y"]),
        {("integrity", "dataset attributes")},
    ),
    "no description": (
        drop(schema.INPUTS, "description"),
        {("integrity", "dataset attributes")},
    ),
    "digest of a column": (
        set_attribute(schema.OPERATOR_INDEX, "sha256", "0" * 64),
        {("integrity", "column digests")},
    ),
    "no digest of a column": (
        drop(schema.PER_TIMESTEP, "sha256"),
        {("integrity", "column digests")},
    ),
    "no features": (drop("/", "features"), {("integrity", "root attributes")}),
    "no run_summary": (drop("/", "run_summary"), {("integrity", "root attributes")}),
    "no attributes_digest": (drop("/", "attributes_digest"), {("integrity", "root attributes")}),
    "compression": (claim_no_compression, None),
    "spelling of the configuration": (respell_the_configuration, set()),
}


@pytest.mark.parametrize("what", EDITS)
def test_edited_attributes_are_noticed_by_all(path, what):
    edit, others = EDITS[what]
    with h5py.File(path, "r+") as file:
        edit(file)
    before = path.read_bytes()
    report = check_dataset(path, full=True, replay=0, progress=False)
    failed = {(row.group, row.name) for row in report.failures}
    if others is None:
        assert ATTRIBUTES_ROW in failed
    else:
        assert failed == {ATTRIBUTES_ROW} | others
    longer = dataclasses.replace(CONFIG, num_samples=16)
    datamodule = SpinlockDataModule(path, CONFIG, batch_size=4, progress=False)
    for use in (
        lambda: require_dataset(path, CONFIG),
        datamodule.prepare_data,
        datamodule.setup,
        lambda: generate(longer, path, progress=False),
        lambda: assemble_parts(longer, path),
        lambda: extract_features(path, progress=False),
    ):
        with pytest.raises(DatasetError, match="attribute"):
            use()
    assert path.read_bytes() == before
    assert set(leftovers(path)) <= {"a.h5.parts"}
    assert not list(path.parent.rglob("*.tmp"))


def test_the_digest_of_attributes_follows_them(path):
    """Resealed by the writer's own means, an edited file is a file like any other."""
    with h5py.File(path, "r+") as file:
        edit_record("device", name="a fast one")(file)
        reseal(file, CONFIG)
    require_dataset(path, CONFIG)
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures
