"""Files with a row for each operator, whose shards start inside an operator."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest

from spinlock.errors import DatasetError
from spinlock.generation.build import generate, shard_folder
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import schema
from tests.helpers import dataset_contents, small_config
from tests.storage.sabotage import ThisThread

pytestmark = pytest.mark.slow

# 3 operators, of which the last has 2 of its 3 probes; then 5. Shards are 4 samples.
SHORT = small_config(
    8,
    grid_size=24,
    base_channels=(2, 3),
    block_size=2,
    num_realizations=2,
    channels=2,
    probes_per_operator=3,
    operator="transport",
    dynamics=True,
)
WHOLE = dataclasses.replace(SHORT, num_samples=14)


@pytest.fixture(scope="module")
def made(made_once):
    def write(folder):
        generate(SHORT, folder / "short.h5", progress=False)
        one_shard = dataclasses.replace(WHOLE.storage, shard_size=14)
        generate(dataclasses.replace(WHOLE, storage=one_shard), folder / "whole.h5", progress=False)

    return made_once("operator_rows", write)


@pytest.fixture
def short(made, tmp_path):
    return shutil.copy(made / "short.h5", tmp_path / "a.h5")


def test_an_extended_file_is_the_one_made_at_once(made, short):
    generate(WHOLE, short, progress=False)
    contents = dataset_contents(short)
    assert contents == dataset_contents(made / "whole.h5")
    with h5py.File(short) as file:
        assert len(file[schema.DYNAMICS]) == 5


def test_a_resumed_extension_is_the_file_made_at_once(made, short):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(WHOLE, short, progress=False, executor=ThisThread(stop))
    assert list(shard_folder(WHOLE, short).glob("shard-*.h5"))
    generate(WHOLE, short, progress=False)
    assert dataset_contents(short) == dataset_contents(made / "whole.h5")


def test_features_of_an_extended_file_can_go_and_return(made, short):
    generate(WHOLE, short, progress=False)
    assert not extract_features(short, progress=False).rewritten
    extract_features(short, responses=False, progress=False)
    with h5py.File(short) as file:
        assert schema.RESPONSES not in file
    extract_features(short, responses=True, progress=False)
    assert dataset_contents(short) == dataset_contents(made / "whole.h5")


@pytest.mark.parametrize(("rows", "what"), [(3, "operators"), (8, "samples")])
def test_an_added_row_for_each_operator_is_refused(short, rows, what):
    with h5py.File(short, "r+") as file:
        file["operators/labels"] = np.arange(rows)
    with pytest.raises(DatasetError, match=rf"operators/labels .* each of its {rows} {what}"):
        generate(WHOLE, short, progress=False)
    # Sample 8 is the last one of the third operator.
    if what == "operators":
        generate(dataclasses.replace(SHORT, num_samples=9), short, progress=False)
        with h5py.File(short) as file:
            assert file["operators/labels"][...].tolist() == [0, 1, 2]


def test_what_was_added_to_response_features_outlives_them(short):
    before = dataset_contents(short)
    with h5py.File(short, "r+") as file:
        file["features/response"].attrs["mine"] = "kept"
        file["features/response/noise/notes"] = np.arange(3)
        file["features/response/noise"].attrs["too"] = 1
    for responses in (False, True):
        extract_features(short, responses=responses, progress=False)
        with h5py.File(short) as file:
            assert (schema.RESPONSES in file) == responses
            assert file["features/response"].attrs["mine"] == "kept"
            assert file["features/response/noise"].attrs["too"] == 1
            assert file["features/response/noise/notes"][...].tolist() == [0, 1, 2]
    after = dataset_contents(short)
    assert after.pop("features/response/noise/notes")
    assert after == before


def test_an_attribute_of_a_dataset_that_would_go_is_refused(short):
    with h5py.File(short, "r+") as file:
        file[schema.RESPONSES].attrs["mine"] = "precious"
    with pytest.raises(DatasetError, match=f"attribute mine was added to {schema.RESPONSES}"):
        extract_features(short, responses=False, progress=False)


def test_an_addition_with_the_name_of_a_new_dataset_is_refused(short):
    extract_features(short, responses=False, progress=False)
    with h5py.File(short, "r+") as file:
        file[schema.RESPONSES] = np.arange(3)
    with pytest.raises(DatasetError, match=f"{schema.RESPONSES} was added"):
        extract_features(short, responses=True, progress=False)
