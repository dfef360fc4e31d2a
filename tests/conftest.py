"""Fixtures shared by all tests."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from spinlock.runtime.arithmetic import fixed_arithmetic

# Processes side by side share the cores out.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // workers))

# Without a GPU, kernels run in Triton's interpreter. Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


# Files whose tests mostly wait for other processes, one after another. They come first, so that the
# other processes of the test run have work meanwhile, and none is left alone with them in the end.
WAITING = (
    "test_termination.py",
    "test_readme.py",
    "test_quickstart.py",
    "test_examples.py",
    "test_kernel_resources.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that wait, and leave repeated tests out where slow ones are."""
    for item in items:
        if item.get_closest_marker("repeated"):
            item.add_marker("slow")
    items.sort(key=lambda item: item.path.name not in WAITING)


def pytest_collection_finish() -> None:
    """Spare garbage collections what was imported, which lives until the end of the session."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Every device of this machine: the same test runs on each."""
    chosen = torch.device(request.param)
    # TF32, cuDNN's default, is no arithmetic to compare with an oracle.
    with fixed_arithmetic(chosen) if chosen.type == "cuda" else nullcontext():
        yield chosen


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a folder of files once for all tests, also of other test processes.

    Its arguments are the name of the folder and a function that writes files into a folder. Tests
    change only copies of the files.
    """
    base = tmp_path_factory.getbasetemp()
    # Each of several processes has a folder of its own in a common one.
    common = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once"
    common.mkdir(exist_ok=True)

    def make(name: str, write: Callable[[Path], object]) -> Path:
        folder, complete = common / name, common / f"{name}.complete"
        with FileLock(common / f"{name}.lock"):
            if not complete.exists():
                folder.mkdir()
                write(folder)
                complete.touch()
        return folder

    return make
