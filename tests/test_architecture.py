"""The house rules that a machine can check: import direction, light imports, no global seeding."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"spinlock": "spinlock", "datamodules": "spinlock.datamodules"}
FOLDERS["callbacks"] = "spinlock.callbacks"

# Earlier packages may not import later ones (design.md).
ORDER = [
    {"spinlock.errors"},
    {"spinlock.runtime"},
    {"spinlock.configuration"},
    {"spinlock.simulation", "spinlock.features"},
    {"spinlock.simulation.simulator", "spinlock.simulation.provenance"},
    {"spinlock.splits", "spinlock.storage"},
    {"spinlock.checks", "spinlock.generation", "spinlock.metrics", "spinlock.plots"},
    {"spinlock.contract", "spinlock.export", "spinlock.report"},
    {"spinlock.datamodules"},
    {"spinlock.callbacks", "spinlock.models"},
    {"spinlock.commands"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def modules():
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


MODULES = dict(modules())


def room(name):
    """The room a module belongs to: its longest prefix that has a level."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in LEVEL), None)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
    if name in ("spinlock", "spinlock.__main__"):
        return
    assert room(name) in LEVEL, f"{name} has no place in the import order"
    for imported in imports(MODULES[name]):
        target = room(imported)
        if target is not None and target != room(name):
            assert LEVEL[target] <= LEVEL[room(name)], f"{name} imports {imported}"
        if imported.startswith("lightning"):
            upper = ("datamodules", "callbacks", "models", "commands")
            allowed = tuple(f"spinlock.{name}" for name in upper)
            assert name.startswith(allowed), f"{name} imports Lightning"


def test_importing_the_package_stays_light():
    code = (
        "import sys, spinlock, spinlock.features, spinlock.storage, spinlock.generation.build\n"
        "heavy = {'lightning', 'jsonargparse', 'matplotlib', 'dask'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from spinlock import SpinlockDataModule\n"
        "assert 'lightning' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_models_do_not_load_the_callbacks():
    code = (
        "import sys, spinlock.models\n"
        "loaded = [name for name in sys.modules if name.startswith('spinlock.callbacks')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


@pytest.mark.parametrize("name", MODULES)
def test_no_global_seeding(name):
    text = MODULES[name].read_text()
    for call in ("manual_seed(", "np.random.seed", "random.seed(", "seed_everything("):
        assert call not in text, f"{name} calls {call}"
