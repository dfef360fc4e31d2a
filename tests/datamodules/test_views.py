"""Batches of each view, compared with the file."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch

from benchmarks.synthetic import write_synthetic
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.parameter_space import typed_row
from spinlock.datamodules import FeatureDataset, LoaderOptions, SpinlockDataModule
from spinlock.datamodules.datasets import choose_realizations, pair_probes
from spinlock.datamodules.views import VIEWS, PairView
from spinlock.errors import ConfigurationError
from spinlock.simulation.parameter_count import parameter_count
from spinlock.storage import schema
from tests.datamodules import collect, loaders, ready
from tests.helpers import parameter_values, small_config


def test_labels_are_those_of_the_file(datasets):
    path, config = datasets["single"]
    datamodule = ready(path, config)
    rows = collect(datamodule.predict_dataloader())
    with h5py.File(path) as file:
        values = parameter_values(file)
        policies = file["metadata/evolution_policies"][:].astype(str)
    assert [datamodule.update_policy_names[i] for i in rows["update_policy"]] == policies.tolist()
    named = [datamodule.normalization_names[i] for i in rows["normalization"]]
    assert named == values["normalization"].astype(str).tolist()
    weights = [parameter_count(typed_row(row), config.channels) for row in values]
    assert rows["parameter_count"].tolist() == weights
    assert len(set(weights)) > 20


@pytest.mark.parametrize("view", ["features", "sequence", "both"])
def test_features_are_those_of_the_file(datasets, view):
    path, config = datasets["steps"]
    rows = collect(ready(path, config, view=view, scaling="none").predict_dataloader())
    with h5py.File(path) as file:
        features = file["features/sdf/per_timestep/features"][:]
        initial = file["features/sdf/initial/features"][:]
    expected = features if view == "sequence" else features[:, -1]
    np.testing.assert_array_equal(rows["features"], expected)
    np.testing.assert_array_equal(rows["initial_features"], initial)


@pytest.mark.parametrize("view", ["features", "both", "pairs"])
@pytest.mark.parametrize("timestep", [1, 2, 3])
def test_features_of_any_timestep(datasets, tmp_path, view, timestep):
    path, config = datasets["steps"]
    if view == "pairs":
        config = dataclasses.replace(config, probes_per_operator=2)
        path = tmp_path / "pairs.h5"
        write_synthetic(path, config)
    datamodule = ready(path, config, view=view, scaling="none", timestep=timestep)
    rows = collect(datamodule.predict_dataloader())
    with h5py.File(path) as file:
        features = file["features/sdf/per_timestep/features"][:]
    np.testing.assert_array_equal(rows["features"], features[:, timestep - 1])
    if view == "pairs":
        other = features[rows["other_index"], timestep - 1]
        np.testing.assert_array_equal(rows["other_features"], other)
    assert f"{view}, timestep {timestep} of 3" in str(datamodule)


@pytest.mark.parametrize(
    ("view", "timestep", "message"),
    [
        ("features", 0, r"timestep: must be in 1\.\.3, the timesteps of this dataset; got 0"),
        ("features", 4, r"timestep: must be in 1\.\.3, the timesteps of this dataset; got 4"),
        ("features", 1.5, r"timestep: must be in 1\.\.3, the timesteps of this dataset; got 1.5"),
        ("features", 1.0, r"timestep: must be in 1\.\.3, the timesteps of this dataset; got 1.0"),
        ("features", True, r"timestep: must be in 1\.\.3, the timesteps of this dataset; got True"),
        ("sequence", 1, "applies only to the views features, responses, pairs, probes, both; got"),
        ("fields", 1, "timestep: applies only to .*; got view=fields"),
    ],
)
def test_timesteps_that_there_are_not_are_refused(datasets, view, timestep, message):
    path, config = datasets["steps"]
    with pytest.raises(ConfigurationError, match=message):
        SpinlockDataModule(path, config, view=view, timestep=timestep)


def test_sequences_are_scaled_by_the_training_samples(datasets):
    datamodule = ready(*datasets["steps"], view="sequence", signed_log=False)
    raw = collect(ready(*datasets["steps"], view="sequence", scaling="none").predict_dataloader())
    training = collect(datamodule.train_dataloader())
    expected = raw["features"][training["index"]].double().mean(dim=(0, 1))
    torch.testing.assert_close(datamodule.feature_scaler.center, expected)
    scaled = training["features"].mean(dim=(0, 1))
    torch.testing.assert_close(scaled, torch.zeros(46), atol=1e-4, rtol=0)
    assert training["features"].shape[1:] == (3, 46)


def test_pairs_are_two_probes_of_one_operator(datasets):
    path, config = datasets["probed"]
    alone = collect(ready(path, config).predict_dataloader())
    pairs = collect(ready(path, config, view="pairs").predict_dataloader())
    assert pairs["index"].tolist() == list(range(90))
    assert pairs["other_index"].tolist() == [i - i % 3 + (i + 1) % 3 for i in range(90)]
    for key in ("features", "initial_features", "variant", "family"):
        assert torch.equal(pairs[key], alone[key])
        assert torch.equal(pairs[f"other_{key}"], alone[key][pairs["other_index"]])
    assert torch.equal(pairs["operator"], alone["operator"][pairs["other_index"]])
    assert (pairs["family"] != pairs["other_family"]).all()
    shared = {"operator", "params", "update_policy", "normalization", "parameter_count"}
    assert {f"other_{key}" for key in alone.keys() - shared} == pairs.keys() - alone.keys()


def test_pairs_stay_in_one_split_and_meet_every_sample_twice(datasets):
    datamodule = ready(*datasets["probed"], view="pairs")
    for loader in loaders(datamodule).values():
        rows = collect(loader)
        assert set(rows["index"].tolist()) == set(rows["other_index"].tolist())
        assert len(rows["index"].unique()) == len(rows["index"])


def test_pairs_leave_out_what_has_no_partner():
    operator = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])
    rows = torch.tensor([0, 2, 4, 5, 6, 7])
    assert pair_probes(rows, operator).tolist() == [[2, 4], [4, 2], [5, 6], [6, 5]]
    assert pair_probes(rows[:1], operator).tolist() == []


@pytest.mark.parametrize("view", ["fields", "both"])
@pytest.mark.parametrize("name", ["single", "steps"])
def test_fields_are_those_of_the_file(datasets, name, view):
    path, config = datasets[name]
    with h5py.File(path) as file:
        inputs, outputs = file["inputs/fields"][:], file["outputs/fields"][:]
    for realizations in ("all", "mean"):
        datamodule = ready(path, config, view=view, realizations=realizations)
        for loader in loaders(datamodule).values():
            rows = collect(loader)
            index = rows["index"].numpy()
            np.testing.assert_array_equal(rows["input_fields"], inputs[index])
            if realizations == "all":
                np.testing.assert_array_equal(rows["output_fields"], outputs[index])
            else:
                expected = outputs[index].astype(np.float64).mean(axis=1, keepdims=True)
                np.testing.assert_allclose(rows["output_fields"], expected, rtol=1e-5, atol=1e-6)
            assert ("features" in rows) == (view == "both")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(
            rows["params"], file["parameters/params"][:][rows["index"].numpy()]
        )


def shown(rows, outputs):
    """Return the realization of the file that each row equals."""
    candidates = outputs[rows["index"].numpy()]
    same = (rows["output_fields"].numpy() == candidates).reshape(*candidates.shape[:2], -1)
    assert (same.all(axis=-1).sum(axis=1) == 1).all()
    return dict(zip(rows["index"].tolist(), same.all(axis=-1).argmax(axis=1), strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_one_realization_at_random_each_epoch(datasets, num_workers):
    path, config = datasets["steps"]
    with h5py.File(path) as file:
        outputs = file["outputs/fields"][:]

    def epochs():
        options = {"view": "fields", "realizations": "one", "sampling_seed": 3}
        options["loader"] = LoaderOptions(num_workers=num_workers)
        loader = ready(path, config, **options).train_dataloader()
        return [shown(collect(loader), outputs) for _ in range(6)]

    first = epochs()
    assert epochs() == first
    for index in first[0]:
        assert len({epoch[index] for epoch in first}) > 1
    datamodule = ready(path, config, view="fields", realizations="one", val_fraction=0.4)
    loader = datamodule.val_dataloader()
    once, again = (shown(collect(loader), outputs) for _ in range(2))
    assert once == again
    assert len(set(once.values())) > 1


def test_realizations_are_chosen_evenly():
    samples, epoch = np.arange(6000) % 3000, np.arange(6000) // 3000
    chosen = choose_realizations(samples, epoch, 5, seed=0)
    assert np.abs(np.bincount(chosen, minlength=5) / 6000 - 0.2).max() < 0.02
    # Epochs and samples choose independently of each other.
    assert abs((chosen[:3000] == chosen[3000:]).mean() - 0.2) < 0.03
    assert abs((chosen[:-1] == chosen[1:]).mean() - 0.2) < 0.02
    assert (choose_realizations(samples, epoch, 5, seed=1) != chosen).mean() > 0.7


def test_only_some_timesteps_are_stored(tmp_path):
    config = small_config(16, num_timesteps=4, num_realizations=2)
    storage = dataclasses.replace(config.storage, fields="last", compression="none")
    config = dataclasses.replace(config, storage=storage)
    write_synthetic(tmp_path / "a.h5", config)
    datamodule = ready(tmp_path / "a.h5", config, view="fields", realizations="all")
    rows = collect(datamodule.predict_dataloader())
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(rows["output_fields"], file["outputs/fields"][:])
    assert rows["output_fields"].shape == (16, 2, 1, 3, 32, 32)


NO_FIELDS = small_config(storage=StorageConfig(fields="none", shard_size=8))


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (
            NO_FIELDS,
            {"view": "fields"},
            "fields needs stored .* are features, sequence, responses$",
        ),
        (NO_FIELDS, {"view": "both"}, "both needs stored fields"),
        (small_config(), {"view": "pairs"}, "pairs needs two .* responses, fields, both$"),
        (small_config(), {"view": "images"}, "view: must be one of features, sequence, resp"),
        (
            small_config(),
            {"realizations": "one"},
            "realizations: applies only to .* fields, both",
        ),
        (NO_FIELDS, {"realizations": "all"}, "to the views fields, both; got view=features"),
        (small_config(), {"view": "both", "realizations": "some"}, "realizations: must be one of"),
    ],
)
def test_a_view_that_the_file_does_not_hold(config, options, message):
    with pytest.raises(ConfigurationError, match=message):
        SpinlockDataModule("a.h5", config, **options)


def test_names_need_neither_file_nor_setup(datasets):
    datamodule = SpinlockDataModule("missing.h5", datasets["steps"][1])
    assert datamodule.num_features == len(datamodule.feature_names) == 46
    assert datamodule.num_timesteps == 3
    assert datamodule.num_variants == len(datamodule.variant_names) == 10
    assert datamodule.update_policy_names == ("autoregressive", "residual", "convex")
    assert datamodule.normalization_names == ("none", "instance", "batch")
    assert datamodule.parameter_axes[0] == "num_layers"
    assert len(datamodule.parameter_axes) == 15
    middle = datamodule.parameter_space.values(np.full((1, 15), 0.5))
    assert middle["grid_size"].item() == 32


def test_a_view_without_features_has_no_scaling(datasets):
    datamodule = ready(*datasets["single"], view="fields")
    with pytest.raises(ConfigurationError, match="no scaler of features; call setup"):
        datamodule.feature_scaler  # noqa: B018


OUTPUTS = "; columns: outputs; selection: all"
LAST = "both, timestep 3 of 3"


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("steps", {"view": "sequence"}, f"sequence{OUTPUTS}"),
        ("steps", {"view": "features", "timestep": 2}, f"features, timestep 2 of 3{OUTPUTS}"),
        ("steps", {"view": "fields", "realizations": "all"}, "fields, realizations: all"),
        ("steps", {"view": "both"}, f"{LAST}, realizations: mean{OUTPUTS}"),
        ("steps", {"view": "both", "realizations": "one"}, f"{LAST}, realizations: one{OUTPUTS}"),
        ("probed", {"view": "pairs"}, f"pairs, timestep 1 of 1{OUTPUTS}"),
    ],
)
def test_a_view_is_described_with_its_settings(datasets, name, options, text):
    lines = str(SpinlockDataModule(*datasets[name], **options)).splitlines()
    described = next(line for line in lines if line.startswith("view"))
    assert described.split(maxsplit=1)[1] == text
    assert ("realizations" in described) == (options["view"] in ("fields", "both"))


class OddOperators(PairView):
    """A custom view is one class in the table."""

    name = "initial"
    one_timestep = False

    def sources(self):
        return {"initial_features": [schema.INITIAL_FEATURES]}

    def arrange(self, samples, operator):
        return samples[operator[samples] % 2 == 1]

    def dataset(self, columns, rows, open_fields, seed):
        return FeatureDataset(columns, rows)


def test_a_new_view_is_one_class(datasets, monkeypatch):
    monkeypatch.setitem(VIEWS, "initial", OddOperators)
    datamodule = ready(*datasets["probed"], view="initial")
    rows = collect(datamodule.predict_dataloader())
    assert "features" not in rows
    assert rows["initial_features"].shape == (45, 46)
    assert (rows["operator"] % 2 == 1).all()
    with pytest.raises(ConfigurationError, match="views of this dataset are features, sequence"):
        SpinlockDataModule(*datasets["single"], view="initial")
