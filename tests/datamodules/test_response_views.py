"""Batches of response features, of all probes of an operator, and of dynamics."""

import h5py
import numpy as np
import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.datamodules import (
    SpinlockStream,
    SpinlockStreamModule,
    VariantSelection,
    ViewOptions,
)
from spinlock.datamodules.datasets import group_probes
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import PER_TIMESTEP_NAMES
from spinlock.features.response import (
    NOISE_NAMES,
    TRANSPORT_NAMES,
    divergence_names,
    response_names,
)
from spinlock.simulation.dynamics_rows import dynamics_names
from spinlock.storage import schema
from tests.datamodules import collect, loaders, ready
from tests.helpers import reseal, small_config

RESPONSES = response_names(3)


def stored(path, *names):
    with h5py.File(path) as file:
        return [file[name][:] for name in names]


def everything(path, config, **options):
    return collect(ready(path, config, scaling="none", **options).predict_dataloader())


def test_responses_and_noise_are_those_of_the_file(datasets):
    path, config = datasets["responding"]
    rows = everything(path, config, view="responses")
    responses, noise = stored(path, schema.RESPONSES, schema.NOISE_RESPONSES)
    np.testing.assert_array_equal(rows["features"], np.hstack([responses[:, -1], noise]))
    outputs = everything(path, config)
    assert torch.equal(rows["initial_features"], outputs["initial_features"])
    assert rows.keys() == outputs.keys()


def test_names_and_sizes_of_responses_need_no_setup(datasets):
    datamodule = SpinlockDataModule("missing.h5", datasets["responding"][1], view="responses")
    assert datamodule.feature_names == RESPONSES + NOISE_NAMES
    assert datamodule.num_features == len(RESPONSES) + 6
    assert datamodule.initial_feature_names == PER_TIMESTEP_NAMES
    assert datamodule.num_initial_features == 46


def test_one_realization_has_no_noise_columns(datasets):
    path, config = datasets["probed"]
    datamodule = ready(path, config, view="responses")
    assert datamodule.feature_names == RESPONSES
    assert collect(datamodule.train_dataloader())["features"].isfinite().all()
    options = ViewOptions("features", columns=("noise",))
    with pytest.raises(ConfigurationError, match=r"noise needs two .* num_realizations 1"):
        SpinlockDataModule(path, config, view=options)


@pytest.mark.parametrize("timestep", [1, 3])
def test_columns_of_one_timestep_in_any_order(datasets, timestep):
    path, config = datasets["steps"]
    columns = ("divergence", "outputs", "transport", "responses", "noise")
    options = ViewOptions("features", columns=columns)
    datamodule = ready(path, config, view=options, scaling="none", timestep=timestep)
    rows = collect(datamodule.predict_dataloader())
    steps = (schema.PER_TIMESTEP, schema.TRANSPORT_RESPONSES, schema.RESPONSES)
    divergence, noise, *others = stored(path, schema.DIVERGENCE, schema.NOISE_RESPONSES, *steps)
    parts = [divergence, *(rows[:, timestep - 1] for rows in others), noise]
    np.testing.assert_array_equal(rows["features"], np.hstack(parts))
    expected = (*divergence_names(3), *PER_TIMESTEP_NAMES, *TRANSPORT_NAMES, *RESPONSES)
    expected += NOISE_NAMES
    assert datamodule.feature_names == expected


def test_all_timesteps_share_the_columns_of_the_sample(datasets):
    path, config = datasets["steps"]
    options = ViewOptions("sequence", columns=("responses", "noise"))
    rows = everything(path, config, view=options)
    responses, noise = stored(path, schema.RESPONSES, schema.NOISE_RESPONSES)
    assert rows["features"].shape == (30, 3, len(RESPONSES) + 6)
    np.testing.assert_array_equal(rows["features"][..., : len(RESPONSES)], responses)
    for step in range(3):
        np.testing.assert_array_equal(rows["features"][:, step, len(RESPONSES) :], noise)


def test_pairs_of_responses(datasets):
    path, config = datasets["responding"]
    alone = everything(path, config, view="responses")
    pairs = everything(path, config, view=ViewOptions("pairs", columns=("responses", "noise")))
    assert torch.equal(pairs["features"], alone["features"])
    assert torch.equal(pairs["other_features"], alone["features"][pairs["other_index"]])


def test_probes_are_all_samples_of_an_operator(datasets):
    path, config = datasets["responding"]
    alone = everything(path, config)
    rows = everything(path, config, view="probes")
    assert rows["index"].tolist() == [[3 * o, 3 * o + 1, 3 * o + 2] for o in range(50)]
    for key in ("features", "initial_features", "variant", "family", "index"):
        assert torch.equal(rows[key], alone[key][rows["index"]])
        assert rows[key].shape[:2] == (50, 3)
    for key in alone.keys() - {"features", "initial_features", "variant", "family", "index"}:
        assert torch.equal(rows[key], alone[key][::3])
    assert rows["operator"].tolist() == list(range(50))


def test_probes_of_one_row_are_a_sample_without_batch_dimension(datasets):
    datamodule = ready(*datasets["responding"], view="probes")
    one = datamodule.predict_dataloader().dataset[7]
    assert one["features"].shape == (3, 46)
    assert one["operator"] == 7


def test_operators_stay_in_one_split(datasets):
    datamodule = ready(*datasets["responding"], view="probes")
    found = [set(collect(loader)["operator"].tolist()) for loader in loaders(datamodule).values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 50
    assert f"{len(found[0])} train" in str(datamodule.prepared.subsets)


def test_operators_with_fewer_selected_probes_are_left_out(datasets):
    path, config = datasets["responding"]
    alone = everything(path, config)
    names = SpinlockDataModule(path, config).family_names
    selection = VariantSelection(exclude=names[:1])
    datamodule = ready(path, config, view="probes", train_variants=selection)
    rows = collect(datamodule.train_dataloader())
    kept = {o for o in range(50) if (alone["family"][3 * o : 3 * o + 3] != 0).all()}
    assert 0 < len(kept) < 50
    split = set(collect(ready(path, config).train_dataloader())["operator"].tolist())
    assert set(rows["operator"].tolist()) == kept & split
    assert rows["features"].shape[1] == 3


def test_probes_are_grouped_by_operator():
    operator = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])
    assert group_probes(torch.tensor([0, 2, 4, 5, 6, 7]), operator).tolist() == [[2, 4], [5, 6]]
    assert group_probes(torch.tensor([1, 7]), operator).tolist() == [[1], [7]]
    assert group_probes(torch.tensor([], dtype=torch.int64), operator).shape == (0, 1)


@pytest.mark.parametrize("view", ["features", "responses", "pairs", "probes", "fields", "both"])
def test_every_view_has_the_dynamics_of_its_operators(datasets, view):
    path, config = datasets["responding"]
    datamodule = ready(path, config, view=view)
    (dynamics,) = stored(path, schema.DYNAMICS)
    for loader in (*loaders(datamodule).values(), datamodule.predict_dataloader()):
        rows = collect(loader)
        expected = datamodule.scalers["dynamics"].transform(torch.from_numpy(dynamics))
        assert torch.equal(rows["dynamics"], expected[rows["operator"]])
    assert datamodule.dynamics_names == dynamics_names(config)
    assert dynamics.shape == (50, len(datamodule.dynamics_names))


def test_files_without_dynamics_have_none(datasets):
    datamodule = ready(*datasets["single"])
    assert datamodule.dynamics_names == ()
    assert "dynamics" not in collect(datamodule.train_dataloader())


def test_dynamics_that_are_not_finite_are_refused(datasets, tmp_path):
    path, config = datasets["responding"]
    (tmp_path / "a.h5").write_bytes(path.read_bytes())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file[schema.DYNAMICS][11, 3] = np.nan
        reseal(file, config)
    with pytest.raises(DatasetError, match=r"operators/dynamics has NaN.* first in operator 11"):
        ready(tmp_path / "a.h5", config)


WITHOUT = small_config(responses=False, probes_per_operator=2)


@pytest.mark.parametrize(
    ("config", "view", "message"),
    [
        (
            WITHOUT,
            "responses",
            "view: responses needs response features .*`spinlock extract-features FILE "
            "--responses` adds them .* are features, sequence, pairs, probes, fields, both$",
        ),
        (WITHOUT, {"name": "pairs", "columns": ["outputs", "noise"]}, "noise needs response feat"),
        (small_config(), "probes", "probes needs two or more probes of each operator"),
        (small_config(), {"name": "fields", "columns": ["noise"]}, "columns: applies only to .* f"),
        (small_config(), {"name": "fields", "selection": "invariant"}, "selection: applies only"),
        (
            small_config(),
            {"columns": []},
            "columns: must be one or more different groups of outputs",
        ),
        (small_config(), {"columns": ["noise", "noise"]}, "more different groups"),
        (small_config(), {"columns": ["inputs"]}, r"columns\[0\]: must be one of 'outputs'"),
        (small_config(), {"columns": "noise"}, "columns: must be a list"),
        (small_config(), {"selection": "some"}, "selection: must be one of 'all', 'invariant'"),
        (small_config(), {"view": "pairs"}, "view.view: unknown key; allowed are name, columns"),
        (small_config(), {"name": "images"}, "view: must be one of features, sequence"),
        (small_config(), {"columns": ["divergence"]}, "divergence also two .* num_timesteps 1"),
    ],
)
def test_columns_that_the_view_or_the_file_does_not_hold(config, view, message):
    with pytest.raises(ConfigurationError, match=message):
        SpinlockDataModule("a.h5", config, view=view)


def test_options_are_checked_when_they_are_made():
    assert ViewOptions("pairs", columns=["noise"]).columns == ("noise",)
    with pytest.raises(
        ConfigurationError, match=r"view.columns: must be one or more different groups"
    ):
        ViewOptions("pairs", columns=("noise", "noise"))
    with pytest.raises(ConfigurationError, match=r"view.selection: must be one of"):
        ViewOptions("pairs", selection="most")


def test_streams_have_the_columns_of_files(tmp_path):
    """Samples that begin in the middle of an operator, of a file that is really computed."""
    config = small_config(8, probes_per_operator=2, num_realizations=2, num_timesteps=2)
    columns = ("responses", "divergence", "outputs", "noise")
    datamodule = ready(
        tmp_path / "a.h5", config, view=ViewOptions(columns=columns), scaling="none", batch_size=2
    )
    rows = collect(datamodule.predict_dataloader())
    stream = SpinlockStream(
        config, batch_size=5, start=1, num_batches=1, device="cpu", columns=columns
    )
    (batch,) = stream
    assert torch.equal(batch["features"], rows["features"][1:6])
    assert stream.feature_names == datamodule.feature_names
    with pytest.raises(ConfigurationError, match=r"view.columns: must be one of outputs"):
        SpinlockStream(config, columns=("inputs",))


def test_stream_modules_scale_and_name_their_columns():
    config = small_config(8, probes_per_operator=2, num_realizations=2)
    sizes = {"batch_size": 4, "num_batches": 1, "eval_samples": 4, "scaling_samples": 8}
    options = {**sizes, "device": "cpu", "population": 100, "columns": ("responses",)}
    datamodule = SpinlockStreamModule(config, **options)
    datamodule.setup()
    assert datamodule.feature_names == RESPONSES
    assert datamodule.num_initial_features == 46
    assert datamodule.dynamics_names == ()
    assert len(datamodule.feature_scaler.center) == len(RESPONSES)
    (batch,) = datamodule.val_dataloader()
    assert batch["features"].shape == (4, len(RESPONSES))
    plain = SpinlockStreamModule(config, **options | {"columns": ("outputs",)})
    with pytest.raises(DatasetError, match=r"columns: \['responses'\] there, \['outputs'\] here"):
        plain.load_state_dict(datamodule.state_dict())
