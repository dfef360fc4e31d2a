"""Features of the user's own in files: generated, added to an existing file, read and served."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from spinlock.commands.command_line import main
from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.datamodules import SpinlockDataModule
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import generate
from spinlock.generation.feature_extraction import Extraction, extract_features
from spinlock.storage import read_info, schema
from tests.helpers import small_config
from tests.test_extraction import CONFIG, FEATURES, contents

pytestmark = pytest.mark.slow

HERE = "tests.features.custom_features"
CUSTOM = CustomFeatureConfig(
    per_field=[f"{HERE}.mean_modulus", f"{HERE}.corner"], per_trajectory=[f"{HERE}.energy_gain"]
)


@pytest.fixture(scope="module")
def original(made_once):
    def write(folder):
        generate(CONFIG, folder / "dataset.h5", progress=False)

    return made_once("extraction", write) / "dataset.h5"


@pytest.fixture
def dataset(original, tmp_path):
    return shutil.copy(original, tmp_path / "dataset.h5")


def test_generation_stores_features_of_the_users_own(original, tmp_path):
    path = tmp_path / "custom.h5"
    generate(dataclasses.replace(CONFIG, features=CUSTOM), path, progress=False)
    with h5py.File(path) as file:
        fields, initial = file[schema.OUTPUTS][:], file[schema.INPUTS][:]
        custom = file["features/custom"]
        shapes = {name: custom[name]["features"].shape for name in custom}
        assert shapes == {
            "per_timestep": (18, 5, 2),
            "per_trajectory": (18, 3, 1),
            "aggregated": (18, 3),
            "initial": (18, 2),
        }
        names = custom["per_timestep/features"].attrs["names"]
        assert list(names) == ["mean_modulus", "corner"]
        np.testing.assert_allclose(
            custom["per_timestep/features"][..., 0], np.abs(fields).mean((1, 3, 4, 5)), rtol=1e-5
        )
        np.testing.assert_allclose(
            custom["initial/features"][..., 1], initial[..., 0, 0].mean(1), rtol=1e-5, atol=1e-6
        )
        rows = json.loads(file.attrs["features"])
    assert [row["name"] for row in rows[-3:]] == ["mean_modulus", "corner", "energy_gain"]
    assert rows[-1]["formula"] == "E_{T−1} − E_0"
    # The built-in ones are what they are without.
    with h5py.File(path) as file, h5py.File(original) as other:
        for name in FEATURES:
            assert file[name][...].tobytes() == other[name][...].tobytes()


def test_an_existing_file_can_be_given_other_features(original, dataset, tmp_path):
    generated = tmp_path / "generated.h5"
    generate(dataclasses.replace(CONFIG, features=CUSTOM), generated, progress=False)
    # The summary of the run, and the digest of attributes, which covers it.
    differ = {"@run_summary", "@attributes_digest"}
    with pytest.raises(DatasetError, match=r"does not hold features/custom.* leave out max_sampl"):
        extract_features(dataset, features=CUSTOM, max_samples=4, progress=False)
    assert extract_features(dataset, features=CUSTOM, progress=False) == Extraction(18, 18, True)
    found, expected = contents(dataset), contents(generated)
    assert found.keys() == expected.keys()
    assert {k: v for k, v in found.items() if k not in differ} == {
        k: v for k, v in expected.items() if k not in differ
    }
    trust = ["tests.features.custom_features"]
    assert extract_features(dataset, progress=False, trust=trust) == Extraction(18, 0, False)
    # One of as many columns is another.
    other = dataclasses.replace(CUSTOM, per_field=CUSTOM.per_field[::-1])
    extract_features(dataset, features=other, progress=False)
    with h5py.File(dataset) as file:
        names = file["features/custom/per_timestep/features"].attrs["names"]
        assert list(names) == ["corner", "mean_modulus"]
    assert extract_features(dataset, features="sdf", progress=False).rewritten
    assert contents(dataset) == contents(original)


def test_a_file_can_be_read_without_the_users_code(dataset, monkeypatch):
    extract_features(dataset, features=CUSTOM, progress=False)
    monkeypatch.setattr("importlib.import_module", None)
    assert read_info(dataset).config.features == CUSTOM


def test_the_command_line(dataset, tmp_path, capsys):
    main(["extract-features", str(dataset), "--max-samples", "3", "--device", "cpu"])
    said = "those of 0 differed or were missing; the file was left as it is"
    assert said in capsys.readouterr().out
    yaml = tmp_path / "run.yaml"
    generation = {"num_samples": 1, "features": {"per_field": [f"{HERE}.corner"]}}
    yaml.write_text(json.dumps({"data": {"generation": generation}}))
    main(["extract-features", str(dataset), "--config", str(yaml)])
    assert "those of 18 differed or were missing; the file was updated" in capsys.readouterr().out
    assert read_info(dataset).config.features == CustomFeatureConfig([f"{HERE}.corner"])


def test_what_cannot_be_imported_is_refused_before_anything_is_written(tmp_path):
    features = CustomFeatureConfig(per_field=["no_such.thing"])
    config = small_config(3, features=features)
    with pytest.raises(ConfigurationError, match=r"cannot import no_such\.thing"):
        generate(config, tmp_path / "a.h5", progress=False)
    assert not (tmp_path / "a.h5").exists()


def test_batches_hold_them_after_the_built_in_ones(tmp_path):
    config = small_config(24, features=CUSTOM, num_timesteps=2, num_realizations=1)
    module = SpinlockDataModule(tmp_path / "a.h5", config, scaling="none", progress=False)
    module.prepare_data()
    module.setup()
    batch = next(iter(module.predict_dataloader()))
    assert batch["features"].shape == batch["initial_features"].shape == (24, 48)
    assert module.feature_names[46:] == ("mean_modulus", "corner")
    with h5py.File(tmp_path / "a.h5") as file:
        stored = file["features/custom/per_timestep/features"][:, -1]
    np.testing.assert_array_equal(batch["features"][:, 46:].numpy(), stored)
