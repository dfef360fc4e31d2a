"""Export in The Well's layout: what is written, and what the real package reads of it."""

import h5py
import numpy as np
import pytest
import yaml

from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.configuration.parameter_space import PARAMETER_NAMES
from spinlock.errors import DatasetError
from spinlock.export.the_well import WELL_SPLITS, export_well
from spinlock.generation import generate
from spinlock.splits import split_operators
from tests.helpers import small_config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "runs.h5"
    config = small_config(
        40,
        grid_size=24,
        block_size=20,
        num_timesteps=4,
        num_realizations=2,
        channels=2,
        probes_per_operator=2,
        storage=StorageConfig(shard_size=40, fields=Every(2)),
    )
    generate(config, path, progress=False)
    return path


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("well") / "out"
    written = export_well(dataset, out, progress=False)
    assert sorted(written) == sorted(p for p in out.rglob("*") if p.is_file())
    return out


def test_every_trajectory_is_in_the_split_of_its_operator(dataset, exported):
    split = split_operators(20, (0.8, 0.1, 0.1), 0, num_axes=15)
    seen = []
    with h5py.File(dataset) as source:
        initial, outputs = source["inputs/fields"][:], source["outputs/fields"][:]
        noise_scale = source["parameters/values/noise_scale"][:]
        policies = source["metadata/evolution_policies"][:].astype(str)
        labels = source["metadata/ic_types"][:].astype(str)
    for position, name in enumerate(WELL_SPLITS):
        with h5py.File(exported / "data" / name / "runs.h5".replace(".h5", ".hdf5")) as file:
            sample, realization = file["spinlock/sample"][:], file["spinlock/realization"][:]
            assert file["spinlock/operator"][:].tolist() == (sample // 2).tolist()
            assert (split[sample // 2] == position).all()
            variants = file["spinlock/initial_condition"].attrs["choices"]
            chosen = variants[file["spinlock/initial_condition"][:]]
            assert chosen.tolist() == labels[sample].tolist()
            assert file.attrs["n_trajectories"] == len(sample)
            assert list(file["dimensions"].attrs["spatial_dims"]) == ["y", "x"]
            assert file["dimensions/time"][:].tolist() == [0, 2, 4]
            for channel in range(2):
                field = file[f"t0_fields/channel_{channel}"][:]
                np.testing.assert_array_equal(field[:, 0], initial[sample, channel])
                later = outputs[sample, realization, :, channel]
                np.testing.assert_array_equal(field[:, 1:], later)
            np.testing.assert_array_equal(file["scalars/noise_scale"], noise_scale[sample])
            choices = file["scalars/update_policy"].attrs["choices"]
            chosen = choices[file["scalars/update_policy"][:].astype(int)]
            assert chosen.tolist() == policies[sample].tolist()
            seen += list(zip(sample, realization, strict=True))
    assert sorted(seen) == [(i, m) for i in range(40) for m in range(2)]


def test_statistics_are_those_of_the_training_split(exported):
    statistics = yaml.safe_load((exported / "stats.yaml").read_text())
    with h5py.File(exported / "data" / "train" / "runs.hdf5") as file:
        for name in ("channel_0", "channel_1"):
            field = file["t0_fields"][name][:].astype(np.float64)
            for suffix, values in (("", field), ("_delta", np.diff(field, axis=1))):
                expected = {
                    "mean": values.mean(),
                    "std": values.std(),
                    "rms": np.sqrt(np.square(values).mean()),
                }
                for kind, value in expected.items():
                    assert statistics[kind + suffix][name] == pytest.approx(value, abs=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_well_reads_it(dataset, exported):
    data = pytest.importorskip(
        "the_well.data", reason="the-well is not installed: not opened with it"
    )
    from the_well.data.normalization import ZScoreNormalization

    opened = data.WellDataset(
        path=str(exported), well_split_name="train", n_steps_input=1, n_steps_output=2
    )
    metadata = opened.metadata
    assert metadata.dataset_name == "runs"
    assert metadata.field_names[0] == ["channel_0", "channel_1"]
    assert metadata.spatial_resolution == (24, 24)
    assert metadata.boundary_condition_types == ["PERIODIC"]
    assert metadata.n_steps_per_trajectory == [3]
    assert len(opened) == sum(metadata.n_trajectories_per_file)
    item = opened[5]
    # Nothing says which sample it is.
    assert tuple(metadata.constant_scalar_names) == PARAMETER_NAMES
    with h5py.File(exported / "data" / "train" / "runs.hdf5") as file:
        sample, realization = (int(file[f"spinlock/{n}"][5]) for n in ("sample", "realization"))
    with h5py.File(dataset) as source:
        scale = source["parameters/values/noise_scale"][sample]
        place = PARAMETER_NAMES.index("noise_scale")
        assert item["constant_scalars"][place].item() == pytest.approx(scale)
        initial, later = source["inputs/fields"][sample], source["outputs/fields"][sample]
    np.testing.assert_array_equal(item["input_fields"][0].numpy(), np.moveaxis(initial, 0, -1))
    expected = np.moveaxis(later[realization], 1, -1)
    np.testing.assert_array_equal(item["output_fields"].numpy(), expected)
    # 2 is The Well's code of a periodic boundary; both ends of both axes.
    assert (item["boundary_conditions"] == 2).all()
    assert item["output_time_grid"].tolist() == [2, 4]
    normalized = data.WellDataset(
        path=str(exported),
        well_split_name="train",
        n_steps_input=1,
        n_steps_output=2,
        use_normalization=True,
        normalization_type=ZScoreNormalization,
    )
    fields = np.concatenate(
        [
            np.concatenate([normalized[i]["input_fields"], normalized[i]["output_fields"]])
            for i in range(len(normalized))
        ]
    )
    np.testing.assert_allclose(fields.mean(axis=(0, 1, 2), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(fields.std(axis=(0, 1, 2), dtype=np.float64), 1, atol=1e-5)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(dataset, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DatasetError, match="exists already"):
        export_well(dataset, tmp_path / "there", progress=False)
    none = StorageConfig(fields="none", shard_size=8)
    generate(small_config(4, grid_size=24, storage=none), tmp_path / "none.h5", progress=False)
    with pytest.raises(DatasetError, match="stores no fields"):
        export_well(tmp_path / "none.h5", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_export_leaves_nothing(dataset, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spinlock.export.the_well._trajectories", fail)
    with pytest.raises(KeyboardInterrupt):
        export_well(dataset, tmp_path / "out", progress=False)
    assert list(tmp_path.iterdir()) == []
