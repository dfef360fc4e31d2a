"""Re-extraction: the same bits, nothing lost, nothing half-written, refused where it cannot be."""

import shutil
import threading

import h5py
import numpy as np
import pytest
import torch
from filelock import FileLock

from spinlock.configuration.file_content import CustomFeatureConfig, Every, StorageConfig
from spinlock.errors import ConfigurationError, DatasetError, DatasetNotFoundError
from spinlock.generation import feature_extraction as extraction, generate
from spinlock.generation.feature_extraction import Extraction, extract_features
from spinlock.simulation.provenance import _PACKAGES
from spinlock.storage import feature_update, read_info, schema
from tests.helpers import dataset_contents, reseal, small_config

pytestmark = pytest.mark.slow

CONFIG = small_config(
    18, grid_size=24, num_timesteps=5, num_realizations=3, probes_per_operator=2, channels=2
)
FEATURES = (
    schema.PER_TIMESTEP,
    schema.PER_TRAJECTORY,
    schema.AGGREGATED,
    schema.INITIAL_FEATURES,
)


@pytest.fixture(scope="module")
def original(made_once):
    def write(folder):
        generate(CONFIG, folder / "dataset.h5", progress=False)

    return made_once("extraction", write) / "dataset.h5"


@pytest.fixture
def dataset(original, tmp_path):
    return shutil.copy(original, tmp_path / "dataset.h5")


@pytest.fixture
def outdated(dataset):
    """A whole copy whose features of samples 2 and 15 another version computed, with the user's own
    data in it."""
    with h5py.File(dataset, "r+") as file:
        file[schema.PER_TIMESTEP][2, 1, 7] += 1.0
        file[schema.AGGREGATED][15] = 3.0
        reseal(file, CONFIG)
        file["mine/notes"] = [1, 2, 3]
        file.attrs["author"] = "me"
    return dataset


def contents(path):
    """Name -> bytes of every dataset, and every root attribute."""
    with h5py.File(path) as file:
        attributes = {f"@{name}": value for name, value in file.attrs.items()}
    return dataset_contents(path) | attributes


def beside(path):
    return sorted(entry.name for entry in path.parent.iterdir())


# ---------------------------------------------------------------------------------- the same bits


@pytest.mark.parametrize(
    "options",
    [
        {"num_timesteps": 1},
        {"num_timesteps": 4, "probes_per_operator": 3},
        *(
            pytest.param(options, marks=pytest.mark.repeated)
            for options in (
                {"num_timesteps": 4, "storage": StorageConfig(fields=Every(1), shard_size=8)},
                {"num_timesteps": 1, "storage": StorageConfig("last", "none", 4)},
                {"probes_per_operator": 4, "grid_size": 128, "channels": 1, "num_realizations": 2},
            )
        ),
        {"probes_per_operator": 4, "grid_size": 128, "channels": 3, "num_realizations": 1},
    ],
)
def test_features_of_a_fresh_file_are_the_same_to_the_bit(options, tmp_path, device):
    path = tmp_path / "a.h5"
    config = small_config(11, **{"grid_size": 24, **options})
    generate(config, path, device=device, progress=False)
    before, stat = path.read_bytes(), path.stat()
    assert extract_features(path, device=device, progress=False) == Extraction(11, 0, False)
    assert path.read_bytes() == before
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    assert beside(path) == ["a.h5", "a.h5.lock"]


def test_samples_are_filled_up_with_fields_like_theirs(original):
    """As an accelerator needs them; the function would refuse fields of zeros."""
    features = CustomFeatureConfig(["tests.features.custom_features.inverse_std"])
    task = extraction._Task(original, features, None, None, ())
    with h5py.File(original) as file:
        initial, fields = (
            torch.from_numpy(file[name][:3]) for name in (schema.INPUTS, schema.OUTPUTS)
        )
    alone, filled = (
        extraction._features(task, initial, fields, size, torch.device("cpu")) for size in (3, 8)
    )
    for name, values in alone.items():
        np.testing.assert_array_equal(filled[name], values, err_msg=name)


def test_wrong_features_are_replaced_and_nothing_else(original, outdated):
    assert extract_features(outdated, progress=False) == Extraction(18, 2, True)
    expected = contents(original)
    found = contents(outdated)
    assert found.pop("mine/notes") == np.array([1, 2, 3]).tobytes()
    assert found.pop("@author") == "me"
    assert found == expected
    assert read_info(outdated).config == CONFIG
    assert beside(outdated) == ["dataset.h5", "dataset.h5.lock"]
    with h5py.File(outdated) as file, h5py.File(original) as other:
        for name in (schema.INPUTS, schema.OUTPUTS):
            assert file[name].id.get_storage_size() == other[name].id.get_storage_size()


def test_only_the_first_samples_may_be_asked_for(outdated):
    before = contents(outdated)
    assert extract_features(outdated, max_samples=2, progress=False) == Extraction(2, 0, False)
    assert extract_features(outdated, max_samples=3, progress=False) == Extraction(3, 1, True)
    after = contents(outdated)
    assert after[schema.PER_TIMESTEP] != before[schema.PER_TIMESTEP]
    assert after[schema.AGGREGATED] == before[schema.AGGREGATED]  # sample 15 is as wrong as it was
    assert extract_features(outdated, max_samples=99, progress=False) == Extraction(18, 1, True)


def test_what_else_computed_the_features_is_recorded(outdated, monkeypatch):
    versions = {"spinlock": "9", "torch": "9"}
    monkeypatch.setattr(
        "spinlock.simulation.provenance._versions",
        lambda: {package: versions.get(package, "1") for package in _PACKAGES},
    )
    extract_features(outdated, progress=False)
    records = read_info(outdated).provenance["package_versions"]
    assert len(records) == 2
    assert records[1]["spinlock"] == "9"


# ------------------------------------------------------------------------------- interruptions


def test_what_a_killed_run_left_is_removed_and_nothing_else(outdated):
    folder = outdated.parent
    (folder / f".dataset.h5.{32 * 'a'}.tmp").touch()
    others = ["..h5.other", f".dataset_h5.{32 * 'a'}.tmp", ".dataset.h5.notes.tmp"]
    for name in others:
        (folder / name).touch()
    extract_features(outdated, progress=False)
    assert beside(outdated) == sorted([*others, "dataset.h5", "dataset.h5.lock"])


@pytest.mark.parametrize("where", ["copy_samples", "field_digests", "seal", "publish"])
def test_a_failure_while_writing_leaves_the_file_as_it_was(where, outdated, monkeypatch):
    before = outdated.read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_update, where, full)
    with pytest.raises(DatasetError, match=r"cannot update .*dataset\.h5: .*No space left"):
        extract_features(outdated, progress=False)
    assert outdated.read_bytes() == before
    assert beside(outdated) == ["dataset.h5", "dataset.h5.lock"]
    monkeypatch.undo()
    assert extract_features(outdated, progress=False).rewritten


def test_readers_keep_the_file_that_they_opened(outdated):
    with h5py.File(outdated, "r", locking="best-effort") as file:
        wrong = file[schema.PER_TIMESTEP][2, 1, 7]
        extract_features(outdated, progress=False)
        assert file[schema.PER_TIMESTEP][2, 1, 7] == wrong


def test_a_link_stays_a_link(outdated, tmp_path):
    link = tmp_path / "elsewhere" / "link.h5"
    link.parent.mkdir()
    link.symlink_to(outdated)
    assert extract_features(link, progress=False).rewritten
    assert link.is_symlink()
    assert beside(link) == ["link.h5"]  # what is locked is the file, whatever it is called
    assert extract_features(outdated, progress=False) == Extraction(18, 0, False)


def test_it_waits_for_whoever_writes_the_file(dataset):
    results = []
    with FileLock(f"{dataset}.lock"):
        thread = threading.Thread(
            target=lambda: results.append(extract_features(dataset, progress=False))
        )
        thread.start()
        thread.join(0.5)
        assert results == []
    thread.join(60)
    assert results == [Extraction(18, 0, False)]


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("fields", "steps", "message"),
    [
        ("last", 3, r"stores the fields of 1 of 3 timesteps \(storage.fields: last\)"),
        (Every(2), 3, "stores the fields of 1 of 3 timesteps"),
        ("none", 3, "stores the fields of 0 of 3 timesteps"),
        ("none", 1, "stores the fields of 0 of 1 timesteps"),
    ],
)
def test_files_that_lack_timesteps_are_refused(fields, steps, message, tmp_path):
    path = tmp_path / "a.h5"
    storage = StorageConfig(fields=fields, shard_size=4)
    options = {"num_timesteps": steps, "storage": storage, "responses": False}
    generate(small_config(4, grid_size=24, **options), path, progress=False)
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=rf"{message}.* Generate the dataset again"):
        extract_features(path, progress=False)
    with pytest.raises(DatasetError, match=r"storage\.fields: all or responses: true$"):
        extract_features(path, responses=True, progress=False)
    assert path.read_bytes() == before
    assert beside(path) == ["a.h5", "a.h5.lock"]


def test_what_is_no_dataset_is_left_alone(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        extract_features(text)
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        extract_features(tmp_path / "missing.h5")
    assert beside(text) == ["text.h5"]


def test_a_file_without_its_fields_is_refused(dataset):
    with h5py.File(dataset, "r+") as file:
        del file[schema.INPUTS]
    with pytest.raises(DatasetError, match="inputs/fields is missing"):
        extract_features(dataset)


def test_a_device_that_is_not_there_is_refused(outdated):
    before = outdated.read_bytes()
    with pytest.raises(ConfigurationError, match="device: got mps"):
        extract_features(outdated, device="mps")
    assert outdated.read_bytes() == before


@pytest.mark.parametrize("number", [0, -3])
def test_a_number_of_samples_is_positive(number, dataset):
    with pytest.raises(ConfigurationError, match=f"max_samples: .* got {number}"):
        extract_features(dataset, max_samples=number)
