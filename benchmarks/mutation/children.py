"""Runs tests in forked processes, in which a module can be replaced by a mutant.

Importing torch takes seconds, so this process imports it once, and each run of tests is a fork of
it. Spinlock itself and its tests are imported in the forks only. A mutant is put in place by an
import hook; no file is changed.
"""

import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

#: Imported once, before processes are forked.
PRELOADED = ("h5py", "hypothesis", "lightning", "matplotlib", "numpy", "pandas", "pytest")
PRELOADED += ("scipy.fft", "scipy.ndimage", "scipy.special", "scipy.stats", "sklearn.metrics")
PRELOADED += ("torch", "torchmetrics", "torch.testing", "jsonargparse", "distributed", "xarray")
# A mutant must not fill the memory of the machine.
_MEMORY = 16 << 30
#: The exit status of a process that took too long.
TIMED_OUT = 124


def preload() -> None:
    """Import what tests need, except for what is mutated."""
    for name in PRELOADED:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    assert not [name for name in sys.modules if name.partition(".")[0] in ("spinlock", "tests")]


class MutantFinder:
    """Loads one module from another text.

    Args:
        name: Full name of the module.
        path: Path of its file.
        source: The text to load.
    """

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how the module is loaded, and None for other modules."""
        if fullname != self._name:
            return None
        loader = _TextLoader(fullname, str(self._path))
        loader.text = self._source
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


class _TextLoader(importlib.machinery.SourceFileLoader):
    text = ""

    def get_code(self, fullname: str) -> CodeType:
        code = compile(self.text, self.path, "exec", dont_inherit=True)
        return code


def in_child(function: Callable[[Path], Any], seconds: float) -> tuple[int, Any]:
    """Return the exit status and the result of a function that a fork of this process runs.

    Args:
        function: Function of an empty folder, whose result is written as JSON.
        seconds: Limit of the processor time; the elapsed time may be four times as long.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _become_child(folder, seconds)
            result = function(folder)
            (folder / "result.json").write_text(json.dumps(result), "utf-8")
            status = 0
        finally:
            os._exit(status)
    status = _wait(child, 4 * seconds)
    result_file = folder / "result.json"
    result = json.loads(result_file.read_text("utf-8")) if result_file.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    return status, result


def _become_child(folder: Path, seconds: float) -> None:
    os.setsid()
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    (folder / "work").mkdir()
    os.chdir(folder / "work")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    limit = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _wait(child: int, seconds: float) -> int:
    """Return the exit status of a child, and end the processes that it has left."""
    end = time.monotonic() + seconds
    pause = 0.01
    while True:
        found, raw = os.waitpid(child, os.WNOHANG)
        late = time.monotonic() > end
        if found or late:
            break
        time.sleep(pause)
        pause = min(0.1, 1.5 * pause)
    with suppress(ProcessLookupError):
        # The child leads a group of its own.
        os.killpg(child, signal.SIGKILL)
    if not found:
        os.waitpid(child, 0)
        return TIMED_OUT
    status = os.waitstatus_to_exitcode(raw)
    return TIMED_OUT if status in (-signal.SIGXCPU, -signal.SIGKILL) else status


def run_pytest(root: Path, folder: Path, files: Sequence[Path], plugin: object) -> int:
    """Run test files in this process, and return the status of pytest.

    Examples of Hypothesis are the same in each run, and failing ones are not made smaller.
    """
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    phases = (Phase.explicit, Phase.generate)
    quiet = list(HealthCheck)
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=quiet,
    )
    settings.load_profile("mutation")
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", "-m", "not repeated"]
    options += ["-o", "addopts=", "-c", str(root / "pyproject.toml"), "--rootdir", str(root)]
    options += ["--basetemp", str(folder / "pytest")]
    if plugin_runs_on(plugin):
        options.remove("-x")
    return int(pytest.main([*options, *map(str, files)], plugins=[plugin]))


def plugin_runs_on(plugin: object) -> bool:
    """Tell whether tests go on after a failure."""
    return bool(getattr(plugin, "runs_on", False))
