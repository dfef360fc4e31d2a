"""Files that tests extend, and how the result must look."""

import dataclasses
import os
import re
import shutil

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.errors import DatasetError
from spinlock.generation.build import generate, shard_folder
from spinlock.generation.feature_extraction import extract_features
from spinlock.generation.shard_task import ShardTask, compute_shard
from spinlock.storage import read_info, schema
from spinlock.storage.dimensions import dataset_scales
from tests.helpers import attached_scales, dataset_contents
from tests.storage.sabotage import (
    CONFIG,
    DATASETS,
    FIELDS,
)

SHORT = CONFIG
WHOLE = dataclasses.replace(SHORT, num_samples=20)
OTHER_FEATURES = CustomFeatureConfig(("tests.features.custom_features.mean_modulus",))
COMPRESSIONS = ("deflate", "none")
COLUMNS = tuple(spec.name for spec in schema.dataset_specs(WHOLE) if spec.chunk is None)
TYPES = {spec.name: spec.dtype for spec in schema.dataset_specs(WHOLE)}
# One of each kind.
SOME_DATASETS = (
    *FIELDS,
    schema.PARAMS,
    "parameters/values/alpha",
    schema.IC_TYPES,
    schema.OPERATOR_INDEX,
    schema.PER_TIMESTEP,
    schema.AGGREGATED,
    schema.DIGESTS,
)
OWN_ATTRIBUTES = ("description", "dimensions", "names", "sha256")
SCALES = tuple(dataset_scales(WHOLE))
# Instructions that a refusal gives to the user.
REMEDY = re.compile(r"[Rr]estore|[Gg]enerate|[Rr]epack|[Rr]ewrite|[Cc]onvert|[Rr]emove|[Mm]ove")


def compressed(config, compression):
    storage = dataclasses.replace(config.storage, compression=compression)
    return dataclasses.replace(config, storage=storage)


class Made:
    """Files that tests copy: 12 samples, 20 generated at once, and shards of those that lack."""

    @staticmethod
    def write(folder):
        """Make the files."""
        for compression in COMPRESSIONS:
            path = folder / f"short-{compression}.h5"
            generate(compressed(SHORT, compression), path, progress=False)
        generate(WHOLE, folder / "whole.h5", progress=False)
        (folder / "shards").mkdir()
        for start in (12, 16):
            compute_shard(ShardTask(WHOLE, folder / "shards", start, start + 4))

    def __init__(self, folder):
        self.folder = folder
        self.contents = dataset_contents(folder / "whole.h5")
        self.attributes = own_attributes(folder / "whole.h5")
        self.scales = attached_scales(folder / "whole.h5")

    def short(self, folder, compression="deflate", *, shards=True):
        """A copy of the file of 12 samples; the missing ones lie beside it, to save time."""
        path = folder / "a.h5"
        shutil.copy(self.folder / f"short-{compression}.h5", path)
        if shards:
            shutil.copytree(self.folder / "shards", shard_folder(WHOLE, path))
        return path

    def require_whole(self, path, compression="deflate"):
        """The file is the one that generating 20 samples at once makes."""
        assert dataset_contents(path) == self.contents
        assert own_attributes(path) == self.attributes
        assert attached_scales(path) == self.scales
        assert sorted(os.listdir(path.parent)) == ["a.h5", "a.h5.lock"]
        info = read_info(path)
        assert (info.config.num_samples, info.config.storage.compression) == (20, compression)
        with h5py.File(path) as file:
            for spec in schema.dataset_specs(WHOLE):
                data, packing = file[spec.name], (None, False, None, False)
                if spec.chunk is not None:
                    filters = (True, "gzip") if compression == "deflate" else (False, None)
                    packing = ((1, *spec.chunk), *filters, False)
                found = (data.chunks, data.shuffle, data.compression, data.fletcher32)
                assert (spec.name, found, data.dtype) == (spec.name, packing, spec.dtype)
        report = check_dataset(path, full=True, replay=0, progress=False)
        assert report.passed, report.failures


def own_attributes(path):
    """Attributes of the schema that do not describe a run, by holder."""
    runs = ("configuration", "run_summary", "attributes_digest")
    with h5py.File(path) as file:
        found = {"/": {n: file.attrs[n] for n in schema.ROOT_ATTRIBUTES if n not in runs}}
        for name in DATASETS:
            attributes = {n: v for n, v in file[name].attrs.items() if n in OWN_ATTRIBUTES}
            found[name] = {n: np.asarray(v).tolist() for n, v in attributes.items()}
    return found


def require_untouched(path, before):
    """The file is as it was, and nothing half-written lies about."""
    assert path.read_bytes() == before
    assert set(os.listdir(path.parent)) <= {"a.h5", "a.h5.lock", "a.h5.parts"}
    for leftover in path.with_name("a.h5.parts").rglob("*"):
        assert leftover.is_dir() or re.fullmatch(r"shard-\d{10}-\d{10}\.h5", leftover.name)


def extend(path, compression="deflate", **options):
    generate(compressed(WHOLE, compression), path, progress=False, **options)


def refused(path, match, compression="deflate", **options):
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=match) as caught:
        extend(path, compression, **options)
    require_untouched(path, before)
    return str(caught.value)


def refusal(function, *arguments):
    """The message with which something is refused; empty if it is done."""
    try:
        function(*arguments)
    except DatasetError as error:
        return str(error)
    return ""


def whole_or_refused(made, path, compression):
    """The file is extended as it should be, or refused with a remedy and left as it was."""
    before = path.read_bytes()
    if message := refusal(extend, path, compression):
        assert REMEDY.search(message), f"no remedy: {message}"
        require_untouched(path, before)
    else:
        made.require_whole(path, compression)


def extended(path):
    extend(path)
    assert read_info(path).config.num_samples == 20


def extracted(path):
    """Other features: the file is written anew with as many samples."""
    assert extract_features(path, features=OTHER_FEATURES, progress=False).rewritten
    assert read_info(path).config.features == OTHER_FEATURES
