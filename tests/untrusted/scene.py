"""A folder with a dataset file that a stranger made, and what the stranger is after."""

import contextlib
import dataclasses
import importlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spinlock.__main__ import main as command_line
from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import SpinlockError
from tests.helpers import small_config

ROOT = Path(__file__).parent.parent.parent
CONFIG = small_config(12, base_channels=(2, 3), num_realizations=2, channels=2)
SETTINGS = CONFIG.to_json()
SECRET = "correct horse battery staple"
# A module of the stranger's own, with which the stranger's file was truly made.
STRANGER = "a_stranger_s_extensions"
EXTENSIONS = '''
from pathlib import Path

import torch

from spinlock.features import custom_feature
from spinlock.simulation.initial_conditions import InitialCondition
from spinlock.simulation.operator_family import OperatorFamily

Path({imported!r}).touch()


class Halves(OperatorFamily):
    """Halves fields."""

    def operator(self, values, *, seed, index, channels, precision, device):
        return lambda fields: 0.5 * fields


class Stripes(InitialCondition):
    """One wave along x."""

    def __init__(self, wavenumber=3, variance=1.0):
        super().__init__(variance)
        self.wavenumber = wavenumber

    def raw(self, seed, index, channels, grid_size):
        x = torch.arange(grid_size, device=index.device) / grid_size
        stripes = (2 * torch.pi * self.wavenumber * x).cos()
        return stripes.expand(len(index), channels, grid_size, grid_size).clone()


@custom_feature(formula="share of positive values", unit="1", range="[0, 1]", exponent=0)
def positive_share(fields):
    return (fields > 0).float().mean((-2, -1))


class Other:
    """No subclass of anything that a configuration may name."""

    def __init__(self, **anything):
        Path({used!r}).touch()


def run(*arguments, **anything):
    Path({used!r}).touch()
'''


# What strangers want to happen in this process: (event, arguments) of Python's audit hooks.
_WANTED: list[tuple[str, str]] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _WANTED is not None and event in ("subprocess.Popen", "os.system", "os.exec", "open"):
        _WANTED.append((event, repr(arguments)))


sys.addaudithook(_audit)


@contextlib.contextmanager
def audited():
    """The audit events of a block."""
    global _WANTED
    _WANTED = events = []
    try:
        yield events
    finally:
        _WANTED = None


@dataclass
class Outcome:
    """The error that a user sees, if there is one, and everything that was printed."""

    error: str = ""
    text: str = ""


@dataclass
class Scene:
    """A folder with a stranger's dataset, and what the stranger is after.

    Args:
        folder: The folder.
        module: Name of the stranger's module.
        data: The stranger's dataset.
        events: Audit events of everything that was run.
        trusting: Whether the user trusts the stranger, so that what was run may do anything.
    """

    folder: Path
    module: str
    data: Path
    events: list[tuple[str, str]] = field(default_factory=list, repr=False)
    trusting: bool = False

    @property
    def mark(self) -> Path:
        """Comes into being when the stranger's command or class runs."""
        return self.folder / "USED"

    @property
    def imported(self) -> Path:
        """Comes into being when the stranger's module is imported."""
        return self.folder / "IMPORTED"

    @property
    def secrets(self) -> tuple[Path, ...]:
        return tuple(self.folder / f"secret{suffix}" for suffix in (".yaml", ".json", ".txt"))

    @property
    def command(self) -> dict[str, object]:
        """What runs a command, where class paths are followed."""
        return {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(self.mark)]}}

    @property
    def shell_command(self) -> dict[str, object]:
        arguments = {"args": f"touch {self.mark}", "shell": True}
        return {"class_path": "subprocess.Popen", "init_args": arguments}

    def lay_module(self, name: str | None = None) -> None:
        """Put a module on the path that leaves a mark when it is imported or used."""
        modules = self.folder / "modules"
        modules.mkdir(exist_ok=True)
        text = EXTENSIONS.format(imported=str(self.imported), used=str(self.mark))
        (modules / f"{name or self.module}.py").write_text(text)
        importlib.invalidate_caches()

    def run(self, action: Callable[[], object]) -> Outcome:
        """Do something in this process, and check that nothing happened that the stranger wants.

        Only errors that the user can fix are caught.
        """
        said, error = io.StringIO(), ""
        with audited() as events:
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    action()
            except SpinlockError as caught:
                error = str(caught)
            except Exception:
                # A crash fails the test, but that something happened is worse news.
                self.events += events
                self.assert_nothing_happened()
                raise
        self.events += events
        return self._checked(Outcome(error, said.getvalue() + error))

    def _checked(self, outcome: Outcome) -> Outcome:
        if not self.trusting:
            self.assert_nothing_happened(outcome)
        return outcome

    def type(self, *arguments: object) -> Outcome:
        """Run a command of the command line in this process, as ``python -m spinlock`` does."""
        given = sys.argv
        sys.argv = ["spinlock", *map(str, arguments)]
        stopped: list[object] = []

        def run() -> None:
            try:
                command_line()
            except SystemExit as stop:
                stopped.append(stop.code)

        try:
            outcome = self.run(run)
        finally:
            sys.argv = given
        code = stopped[0] if stopped else 0
        if code in (0, None):
            return outcome
        if code == 1:
            return Outcome("a claim fails", outcome.text)
        assert isinstance(code, str), f"exit status {code}: {outcome.text}"
        assert code.startswith("spinlock: error: ")
        assert "\n" not in code
        return self._checked(Outcome(code.removeprefix("spinlock: error: "), outcome.text + code))

    def assert_nothing_happened(self, *outcomes: Outcome) -> None:
        assert not self.mark.exists(), "the stranger's command ran"
        assert not self.imported.exists(), "the stranger's module was imported"
        assert not {self.module, STRANGER} & sys.modules.keys()
        wanted = [str(path) for path in (self.mark, self.imported, *self.secrets)]
        touched = [event for event in self.events if any(path in event[1] for path in wanted)]
        assert not touched
        assert not any(SECRET in outcome.text for outcome in outcomes)


def custom_config(module, num_samples=12):
    """A dataset of the module `EXTENSIONS`: operators, an initial condition and a feature."""
    stripes = {
        "class_path": f"{module}.Stripes",
        "init_args": {"wavenumber": 2},
        "family": "waves",
    }
    return dataclasses.replace(
        CONFIG,
        num_samples=num_samples,
        operator={"class_path": f"{module}.Halves", "init_args": {}},
        initial_conditions=InitialConditionConfig(
            weights={"gaussian_noise_1": 1.0, "sinusoids": 1.0, "stripes": 2.0},
            custom={"stripes": stripes},
        ),
        features=CustomFeatureConfig(per_field=(f"{module}.positive_share",)),
    )
