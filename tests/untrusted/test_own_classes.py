"""Classes that the user names work, and make no other module trusted."""

import dataclasses
import json
import sys

import h5py
import pytest
import yaml

from spinlock import GenerationConfig, SpinlockDataModule
from spinlock.callbacks import DatasetReport
from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.generation.build import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_info, schema
from tests.callbacks import quiet_trainer
from tests.untrusted.entry_points import small_model
from tests.untrusted.forged_configurations import settings
from tests.untrusted.scene import STRANGER, audited, custom_config

pytestmark = pytest.mark.slow


def test_ones_own_classes_work_from_end_to_end(scene):
    """Named by the user's yaml, on the command line."""
    scene.trusting = True
    own = custom_config(scene.module)
    run = {"data": {"path": "own.h5", "generation": json.loads(own.to_json()), "progress": False}}
    (scene.folder / "own.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    path = scene.folder / "own.h5"
    assert scene.type("generate", "--config", "own.yaml").error == ""
    assert scene.imported.exists()
    with h5py.File(path) as file:
        labels = file[schema.IC_TYPES][:].astype(str)
        shares = file["features/custom/per_timestep/features"][:, 0, 0]
        families = file[schema.IC_FAMILIES][:].astype(str)
    assert set(families) <= {"gaussian_noise", "sinusoids", "waves"}
    assert "stripes" in labels
    assert ((shares > 0) & (shares < 1)).all()
    # The user's own configuration is the user's word.
    longer = dataclasses.replace(own, num_samples=16)
    generate(longer, path, progress=False)
    module = SpinlockDataModule(path, longer, batch_size=2, progress=False)
    module.prepare_data()
    module.setup()
    assert next(iter(module.train_dataloader()))["features"].shape == (2, 47)
    trainer = quiet_trainer(scene.folder, DatasetReport(replay=1))
    trainer.validate(small_model(module), module, verbose=False)


def test_ones_own_feature_is_added_to_a_file(scene):
    scene.trusting = True
    feature = f"{scene.module}.positive_share"
    run = {"data": {"generation": {"num_samples": 12, "features": {"per_field": [feature]}}}}
    (scene.folder / "own.yaml").write_text(yaml.safe_dump(run))
    outcome = scene.type("extract-features", scene.data, "--config", "own.yaml")
    assert outcome.error == ""
    with h5py.File(scene.data) as file:
        assert list(file["features/custom/initial/features"].attrs["names"]) == ["positive_share"]


def test_naming_one_feature_does_not_trust_another_module(custom):
    """The file's operator and its own features stay a stranger's."""
    custom.lay_module(STRANGER)
    selection = CustomFeatureConfig(per_field=(f"{custom.module}.positive_share",))
    with audited() as custom.events:
        extract_features(custom.data, features=selection, progress=False)
    assert STRANGER not in sys.modules
    assert custom.module in sys.modules
    assert read_info(custom.data).config.features == selection


@pytest.mark.parametrize("feature", [".relative.feature", "..feature", "a..feature", ". .feature"])
def test_a_relative_import_path_is_refused(scene, feature):
    """`importlib` raises TypeError for these."""
    run = {"per_field": [feature], "per_trajectory": []}

    def attempt():
        generate(
            GenerationConfig.from_dict(settings() | {"features": run}),
            scene.folder / "b.h5",
            progress=False,
        )

    assert scene.run(attempt).error
