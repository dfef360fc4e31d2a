"""The tables of docs/data_format.md match the schema, and its examples read a real file."""

import re
from pathlib import Path

import h5py
import pytest

from scripts.fill_tables import PARAMETER_GROUPS, filled
from spinlock.configuration.operator_axes import BUILTIN_AXES
from spinlock.configuration.parameter_space import PARAMETER_NAMES
from spinlock.generation import generate
from spinlock.simulation.dynamics_columns import DYNAMICS
from spinlock.simulation.transport_flow import TRUE_DYNAMICS
from spinlock.storage import schema
from tests.helpers import small_config

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "data_format.md").read_text(encoding="utf-8")


def rows(heading, page=PAGE):
    """First cells of the table under a heading."""
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_tables_are_up_to_date():
    assert filled(PAGE) == PAGE, "out of date: run python -m scripts.fill_tables"
    assert PAGE.startswith(f"# The dataset file, schema {schema.SCHEMA_VERSION}\n")


def test_groups_of_parameters_are_in_column_order():
    assert [len(names) for names in PARAMETER_GROUPS.values()] == [5, 5, 2, 3]
    assert sum(PARAMETER_GROUPS.values(), ()) == PARAMETER_NAMES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format")
    config = small_config(12, grid_size=24, num_realizations=2, dynamics=True)
    generate(config, folder / "data" / "quickstart.h5")
    return folder


def test_the_page_names_everything_that_a_file_holds(tmp_path):
    config = small_config(2, grid_size=24, num_realizations=2, num_timesteps=2, dynamics=True)
    generate(config, tmp_path / "file.h5")
    with h5py.File(tmp_path / "file.h5") as file:
        found = []
        file.visititems(lambda name, item: found.append((name, item)))
        datasets = {name: item for name, item in found if isinstance(item, h5py.Dataset)}
        scales = {name for name, item in datasets.items() if item.is_scale}
        values = set(schema.value_names(config))
        assert set(rows("Dimension scales")) == scales
        assert set(rows("Datasets")) == {*datasets, f"{schema.VALUES}/<axis>"} - scales - values
        assert rows("Root attributes") == list(schema.ROOT_ATTRIBUTES)
        assert set(file.attrs) == set(schema.ROOT_ATTRIBUTES)
        assert rows("Parameters") == [*PARAMETER_NAMES, *BUILTIN_AXES["transport"]]
        assert all(f"`{name}`" in PAGE for name in TRUE_DYNAMICS)
        for name, item in datasets.items():
            assert item.attrs["description"] in PAGE or name in values
            own = {"CLASS", "NAME"} if name in scales else {"dimensions", "names", "sha256"}
            assert set(item.attrs) - {"description", "DIMENSION_LIST"} <= own, name


def test_the_tree_is_the_table(folder):
    tree = PAGE.partition("<!-- table: tree -->\n\n```\n")[2].partition("```")[0]
    path, leaves = [], []
    for line in tree.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 4
        path = [*path[:depth], name.rstrip("/")]
        if not name.endswith("/"):
            leaves.append("/".join(path))
    assert sorted(leaves) == sorted(rows("Datasets"))


def test_every_column_of_the_dynamics_has_one_row():
    page = (DOCS / "dynamics.md").read_text(encoding="utf-8")
    section = page.partition("## Columns\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (`.+) \|$", section, re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    found = [(name, unit) for names, *_, unit, _ in cells for name in re.findall(r"`(\w+)`", names)]
    assert found == [(column.name, column.unit) for column in DYNAMICS]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_h5py_and_torch_examples_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    namespace = {}
    plain, torch = blocks("python")[:2]
    exec(plain, namespace)
    assert namespace["initial"].shape == (8, 3, 24, 24)
    assert namespace["fields"].shape == (8, 2, 3, 24, 24)
    assert namespace["final"].shape == (12, 46) == (12, len(namespace["names"]))
    assert set(namespace["ic_types"]) <= set(small_config().initial_conditions.weights)
    assert namespace["values"]["noise_scale"].shape == (12,)
    assert namespace["dynamics"].shape == (12, 18)
    exec(torch, namespace)
    assert [tuple(one.shape) for one in namespace["batch"]] == [(4, 3, 24, 24), (4, 2, 3, 24, 24)]


def test_pandas_example_runs(folder, monkeypatch):
    pytest.importorskip("pandas", reason="pandas is not installed: its example is not run")
    monkeypatch.chdir(folder)
    namespace = {}
    exec(blocks("python")[3], namespace)
    table = namespace["table"]
    assert len(table) == 12
    assert {"spatial_mean", "variant", "noise_scale", "update_policy"} <= set(table.columns)
    assert table["update_policy"].isin(["autoregressive", "residual", "convex"]).all()
    assert namespace["spread"].loc["sinusoids", "count"] > 0


def test_xarray_example_runs(folder, monkeypatch):
    pytest.importorskip("xarray", reason="xarray is not installed: its example is not run")
    pytest.importorskip("netCDF4", reason="netCDF4 is not installed: the example is not run")
    monkeypatch.chdir(folder)
    namespace = {}
    exec(blocks("python")[2], namespace)
    with h5py.File("data/quickstart.h5") as file:
        features = file["features/sdf/per_timestep/features"]
        column = features[:, -1, list(features.attrs["names"]).index("spatial_std")]
        expected = column[file["parameters/values/noise_scale"][:] < 0.01].mean()
    assert namespace["quiet"] == pytest.approx(expected)


def test_neuraloperator_example_runs(folder, monkeypatch):
    pytest.importorskip(
        "neuralop", reason="neuraloperator is not installed: its example is not run"
    )
    monkeypatch.chdir(folder)
    namespace = {}
    exec(blocks("python")[4], namespace)
    assert len(namespace["first"]) == 12
    with h5py.File("data/quickstart.h5") as file:
        assert (namespace["pair"]["x"].numpy() == file["inputs/fields"][7]).all()
        assert (namespace["pair"]["y"].numpy() == file["outputs/fields"][7, 0]).all()


def test_the_well_example_runs(folder, monkeypatch):
    pytest.importorskip("the_well.data", reason="the-well is not installed: example not run")
    monkeypatch.chdir(folder)
    namespace = {}
    exec(blocks("python")[5], namespace)
    item = namespace["item"]
    assert item["input_fields"].shape == item["output_fields"].shape == (1, 24, 24, 3)
    assert item["constant_scalars"].shape == (15,)


def test_every_dataset_of_the_matlab_example_is_one(folder):
    (text,) = blocks("matlab")
    named = set(re.findall(r"'/([a-z_/]+)'", text))
    assert named
    with h5py.File(folder / "data" / "quickstart.h5") as file:
        assert all(isinstance(file[name], h5py.Dataset) for name in named)
