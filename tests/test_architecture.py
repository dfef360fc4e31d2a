"""Rules of the code base that a test can check: imports, sizes, names and random generators."""

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import spinlock

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "spinlock": "spinlock",
    "datamodules": "spinlock.datamodules",
    "callbacks": "spinlock.callbacks",
}

# A module may import from its own row and from earlier rows.
ORDER = [
    {"spinlock.errors"},
    {"spinlock.runtime"},
    {"spinlock.kernels"},
    {"spinlock.configuration"},
    {"spinlock.features"},
    {"spinlock.simulation"},
    {"spinlock.splits", "spinlock.storage"},
    {
        "spinlock.checks",
        "spinlock.generation",
        "spinlock.metrics",
        "spinlock.plots",
        "spinlock.prototypes",
    },
    {"spinlock.codebook", "spinlock.contract", "spinlock.export", "spinlock.report"},
    {"spinlock.datamodules"},
    {"spinlock.models"},
    {"spinlock.callbacks"},
    {"spinlock.commands"},
]
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}
LIGHTNING = ("lightning", "pytorch_lightning")
# These import what the user asks for; everything else obeys the order.
ENTRIES = ("spinlock", "spinlock.__main__")
MAX_LINES = 300
MAX_PARAMETERS = {"SpinlockDataModule": 24}


def modules():
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


MODULES = dict(modules())


def prefixes(name):
    """The module and the packages that contain it, longest first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def level(name):
    """Row of the module in ORDER: that of its longest prefix there."""
    return next((LEVEL[prefix] for prefix in prefixes(name) if prefix in LEVEL), None)


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def import_nodes(tree, lazy):
    """Import statements of a module; with lazy, also those inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not is_type_checking(node) and (lazy or not isinstance(node, ast.FunctionDef)):
            yield from import_nodes(node, lazy)


@cache
def imports(name, lazy=False):
    """Full names that a module imports: modules, or attributes of modules."""
    found = set()
    for node in import_nodes(ast.parse(MODULES[name].read_text()), lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"relative import in {name}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def imported_modules(name, lazy=False):
    """Modules of this package that importing a module executes directly."""
    found = set()
    for imported in imports(name, lazy):
        found |= {prefix for prefix in prefixes(imported) if prefix in MODULES}
    return found - set(prefixes(name))


@cache
def chain_to_lightning(name, lazy=False):
    """A chain of imports from a module to Lightning, or None."""
    chains, seen = [[name]], {name, *ENTRIES}
    for chain in chains:
        if any(imported.startswith(LIGHTNING) for imported in imports(chain[-1], lazy)):
            return [*chain, "lightning"]
        new = imported_modules(chain[-1], lazy) - seen
        seen |= new
        chains += [[*chain, imported] for imported in sorted(new)]
    return None


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ENTRIES])
def test_imports_run_one_way(name):
    """Rows are ordered, so no chain of imports runs upward either."""
    assert level(name) is not None, f"{name} has no place in the import order"
    for imported in imported_modules(name, lazy=True) - set(ENTRIES):
        assert level(imported) <= level(name), f"{name} imports {imported}"


def test_there_are_no_circles():
    graph = {name: imported_modules(name) for name in MODULES if name not in ENTRIES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


LIGHT = [
    name for name in MODULES if name not in ENTRIES and level(name) < LEVEL["spinlock.datamodules"]
]


@pytest.mark.parametrize("name", LIGHT)
def test_only_datamodules_and_later_rows_import_lightning(name):
    """Directly or through other modules, at import time or inside a function."""
    chain = chain_to_lightning(name, lazy=True)
    assert chain is None, " -> ".join(chain)


def test_chains_are_found():
    assert chain_to_lightning("spinlock.datamodules", lazy=True)[-1] == "lightning"
    assert chain_to_lightning("spinlock.commands", lazy=True) is None
    assert chain_to_lightning("spinlock.__main__", lazy=True)[-1] == "lightning"


def loaded(code):
    """Top-level modules that are loaded after code has run in a fresh interpreter."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=100, capture_output=True, text=True
    )
    return set(result.stdout.split())


@pytest.mark.slow
def test_no_light_module_loads_lightning():
    """Other packages might import Lightning too, so the modules are really imported."""
    code = "\n".join(f"import {name}" for name in LIGHT)
    assert loaded(code) & {*LIGHTNING, "jsonargparse", "dask"} == set()


def test_importing_the_package_is_fast():
    heavy = {"torch", "numpy", "scipy", "h5py", "matplotlib", "jsonargparse", "lightning"}
    code = (
        f"import spinlock\nassert not {heavy} & sys.modules.keys()\n"
        "spinlock.GenerationConfig\nassert 'torch' not in sys.modules\n"
        "import scipy"
    )
    # What is imported is seen.
    assert "scipy" in loaded(code)


def test_public_names_are_loaded_on_demand():
    for name in spinlock.__all__:
        value = getattr(spinlock, name)
        if name in spinlock._MODULES:
            module = import_module(spinlock._MODULES[name])
            assert value is getattr(module, name)
    assert dir(spinlock) == sorted(spinlock.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        spinlock.nothing  # noqa: B018


def test_type_checkers_see_the_same_public_names():
    tree = ast.parse(MODULES["spinlock"].read_text())
    (block,) = filter(is_type_checking, tree.body)
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == spinlock._MODULES


def test_every_package_is_part_of_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(settings["packages"]) == packages


def test_no_two_modules_have_one_name():
    counts = Counter(path.stem for path in MODULES.values() if path.stem != "__init__")
    assert [name for name, count in counts.items() if count > 1] == []


def parameter_count(node):
    """Number of parameters of a class's constructor, or of fields if it is a dataclass."""
    decorators = " ".join(map(ast.unparse, node.decorator_list))
    if "dataclass" in decorators:
        fields = (item for item in node.body if isinstance(item, ast.AnnAssign))
        return sum("ClassVar" not in ast.unparse(field.annotation) for field in fields)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = item.args
            given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            return len(given) - 1
    return 0


def test_python_files_are_short():
    """The library, tests, benchmarks, scripts and examples."""
    folders = (*FOLDERS, "tests", "benchmarks", "scripts", "examples")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert {path.relative_to(ROOT).parts[0] for path in paths} == {*folders}
    lengths = {path: len(path.read_text().splitlines()) for path in paths}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("name", MODULES)
def test_constructors_are_small(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ClassDef):
            assert parameter_count(node) <= MAX_PARAMETERS.get(node.name, 18), node.name


@pytest.mark.parametrize("name", MODULES)
def test_no_global_seeding(name):
    text = MODULES[name].read_text()
    for call in ("manual_seed(", "np.random.seed", "random.seed(", "seed_everything("):
        assert call not in text, f"{name} calls {call}"
