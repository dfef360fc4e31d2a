"""Selected columns: by the training samples, in checkpoints and in runs from yaml files."""

import json

import pytest
import torch
import yaml

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.datamodules import InvariantColumns, VariantSelection, ViewOptions
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features.response import NOISE_NAMES, TRANSPORT_NAMES, response_names
from tests.datamodules import collect, ready

RESPONSES = response_names(3)
COUNT = len(RESPONSES) + len(NOISE_NAMES)
INVARIANT = ViewOptions("responses", selection="invariant")


def everything(path, config, **options):
    return collect(ready(path, config, scaling="none", **options).predict_dataloader())


def test_invariant_columns_are_those_of_the_training_samples(datasets):
    path, config = datasets["responding"]
    datamodule = ready(path, config, view=INVARIANT)
    raw = everything(path, config, view="responses")
    train = collect(ready(path, config).train_dataloader())["index"].sort().values
    labels = [raw[key][train] for key in ("variant", "operator")]
    names = RESPONSES + NOISE_NAMES
    expected = InvariantColumns.fit(raw["features"][train], *labels, names)
    assert datamodule.invariant == expected
    # The synthetic file has operators in these columns; others of its columns are noise.
    stored = RESPONSES + TRANSPORT_NAMES
    own = {*stored[: len(stored) // 2], *NOISE_NAMES}
    assert own >= {*expected.selected}
    assert len(expected.selected) > len(own) / 2
    assert datamodule.feature_names == expected.selected
    assert datamodule.num_features == len(expected.selected) < len(names)
    # Validation and test samples have the same columns and are scaled by the training samples.
    for loader in (datamodule.train_dataloader(), datamodule.test_dataloader()):
        rows = collect(loader)
        chosen = expected.select(raw["features"][rows["index"]])
        assert torch.equal(rows["features"], datamodule.feature_scaler.transform(chosen))


def test_the_selection_uses_the_training_variants_alone(datasets):
    """Columns of held-out families are spoiled, which the selection must not see."""
    path, config = datasets["responding"]
    names = SpinlockDataModule(path, config).family_names
    held_in = VariantSelection(exclude=names[:1])
    options = {"view": INVARIANT, "train_variants": held_in, "eval_variants": "all"}
    datamodule = ready(path, config, **options)
    labels = everything(path, config)
    used = collect(datamodule.train_dataloader())["index"].sort().values
    assert (labels["family"][used] != 0).all()
    raw = everything(path, config, view="responses")
    labels = [raw[key][used] for key in ("variant", "operator")]
    expected = InvariantColumns.fit(raw["features"][used], *labels, RESPONSES + NOISE_NAMES)
    assert datamodule.invariant == expected
    assert datamodule.invariant != ready(path, config, view=INVARIANT).invariant


def test_one_probe_has_the_fixed_list(datasets):
    datamodule = ready(*datasets["single"], view=INVARIANT)
    assert datamodule.invariant.operator == ()
    assert "channel_mean_2" in datamodule.feature_names
    assert "band_gain_2" not in datamodule.feature_names


def test_names_of_selected_columns_are_known_after_setup(datasets):
    datamodule = SpinlockDataModule(*datasets["responding"], view=INVARIANT)
    with pytest.raises(ConfigurationError, match=r"selected by the training .* after setup\(\)"):
        datamodule.num_features  # noqa: B018
    assert datamodule.num_initial_features == 46
    assert "not set up" in str(datamodule)


def test_the_selection_is_printed(datasets):
    datamodule = ready(*datasets["responding"], view=INVARIANT)
    text = str(datamodule)
    assert "responses, timestep 1 of 1; columns: responses, noise; selection: invariant" in text
    assert f"selection of features: {datamodule.invariant.describe()}" in text
    scaling = text.split("scaling of features:")[1].split("scaling of initial_features")[0]
    for name in (*RESPONSES, *NOISE_NAMES):
        assert (f"\n{name} " in scaling) == (name in datamodule.feature_names)


def test_a_checkpoint_keeps_the_selection(datasets):
    path, config = datasets["responding"]
    state = json.loads(json.dumps(ready(path, config, view=INVARIANT).state_dict()))
    fresh = SpinlockDataModule(path, config, view=INVARIANT)
    fresh.load_state_dict(state)
    fresh.setup()
    assert fresh.state_dict() == state
    # Other samples, which would select other columns, are given those of the checkpoint.
    other = ready(path, config, view=INVARIANT, split_seed=3, allow_transfer=True)
    assert other.invariant != fresh.invariant
    other.load_state_dict(state)
    assert other.invariant == fresh.invariant
    rows = collect(other.predict_dataloader())
    assert torch.equal(rows["features"], collect(fresh.predict_dataloader())["features"])


@pytest.mark.parametrize(
    ("saved", "loaded", "transfer", "message"),
    [
        (
            "features",
            "responses",
            False,
            r"columns: \['outputs'\] there, \['responses', 'noise'\] here",
        ),
        (
            "responses",
            "features",
            False,
            r"columns: \['responses', 'noise'\] there, \['outputs'\] here",
        ),
        ("responses", INVARIANT, False, "selection: 'all' there, 'invariant' here"),
        (
            "responses",
            INVARIANT,
            True,
            f"selects no columns, and this data module from {COUNT} col",
        ),
        (
            INVARIANT,
            "responses",
            True,
            f"selects from {COUNT} columns, and this data module no columns",
        ),
        ("features", "responses", True, "scales other columns of features .* only there: "),
    ],
)
def test_checkpoints_of_other_columns_are_refused(datasets, saved, loaded, transfer, message):
    path, config = datasets["responding"]
    state = ready(path, config, view=saved).state_dict()
    datamodule = SpinlockDataModule(path, config, view=loaded, allow_transfer=transfer)
    with pytest.raises(DatasetError, match=message):
        datamodule.load_state_dict(state)
    assert not datamodule.scalers
    assert datamodule.invariant is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda invariant: invariant | {"chosen": [1] * COUNT}, r"invariant columns.chosen\[0\]"),
        (lambda invariant: invariant | {"names": ["a"] * COUNT}, "another view or feature set"),
        (lambda invariant: invariant | {"chosen": [True] * COUNT}, "features .* only here: "),
        (lambda _: "persistence", "invariant: must be .*mapping"),
    ],
)
def test_forged_selections_are_refused(datasets, change, message):
    path, config = datasets["responding"]
    datamodule = ready(path, config, view=INVARIANT)
    state = datamodule.state_dict()
    state["invariant"] = change(state["invariant"])
    before = datamodule.invariant
    with pytest.raises(DatasetError, match=message):
        datamodule.load_state_dict(state)
    assert datamodule.invariant is before


def test_checkpoints_name_the_columns_of_every_view(datasets):
    for view in ("features", "pairs", "probes", ViewOptions("features", columns=("outputs",))):
        state = ready(*datasets["responding"], view=view).state_dict()
        assert set(state) == {"fingerprint", "configuration", "settings", "scalers", "columns"}
        assert state["settings"]["columns"] == ["outputs"]
        assert state["settings"]["selection"] == "all"


@pytest.mark.parametrize("view", ["responses", {"columns": ["outputs", "responses", "noise"]}])
def test_a_yaml_file_with_responses_trains(datasets, tmp_path, view):
    path, config = datasets["responding"]
    datamodule = ready(path, config, view=view)
    columns = {
        "num_features": datamodule.num_features,
        "num_initial_features": datamodule.num_initial_features,
        "num_variants": datamodule.num_variants,
        "codebook_size": 8,
        "hidden_dims": [16],
        "loss": {"other_probe": 0, "alignment": 0},
    }
    run = {
        "data": {
            "path": str(path),
            "generation": json.loads(config.to_json()),
            "progress": False,
            "batch_size": 32,
            "view": view,
        },
        "model": {"class_path": "spinlock.models.FeatureVQVAE", "init_args": columns},
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(tmp_path),
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    main(["fit", "--config", str(tmp_path / "run.yaml")])
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    again = SpinlockDataModule.load_from_checkpoint(checkpoint)
    assert str(again.view) == str(datamodule.view)
    state = torch.load(checkpoint, weights_only=True)["SpinlockDataModule"]
    assert len(state["scalers"]["features"]["center"]) == datamodule.num_features
