"""A folder with a dataset file that a stranger made, and everything that a stranger may try."""

import contextlib
import dataclasses
import importlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import yaml
from lightning import seed_everything

from spinlock import SpinlockDataModule
from spinlock.__main__ import main as command_line
from spinlock.configuration import StoredConfig
from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.datamodules import SpinlockStream
from spinlock.errors import SpinlockError
from spinlock.generation.build import generate
from spinlock.models import FeatureVQVAE
from spinlock.storage import read_info, schema
from tests.helpers import reseal, seal, small_config

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


# ------------------------------------------------------------------------------------ what happens

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


# --------------------------------------------------------------------------------------- forgeries


def forge(path: Path, text: str, *, sealed: bool) -> None:
    """Rewrite the configuration of a file; with ``sealed`` every digest agrees with it again."""
    with h5py.File(path, "r+") as file:
        file.attrs["configuration"] = text
        if not sealed:
            return
        try:
            config = StoredConfig.from_json(text)
            fingerprint = config.fingerprint
            specs = schema.dataset_specs(config)
        except (SpinlockError, OverflowError, RecursionError, TypeError):
            seal(file, CONFIG)
            return
        file.attrs["fingerprint"] = fingerprint
        for spec in specs:
            if spec.name not in file and spec.name.startswith("features/custom/"):
                data = file.create_dataset(spec.name, (12, *spec.shape), spec.dtype)
                data.attrs["description"] = spec.description
                data.attrs["dimensions"] = list(spec.dims)
                data.attrs["names"] = list(spec.names)
        if all(spec.name in file for spec in specs):
            reseal(file, config)
        else:
            seal(file, CONFIG)


def settings() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(SETTINGS)
    return values


def with_settings(**changes: object) -> str:
    return json.dumps(settings() | changes)


def nested(depth: int) -> str:
    """A configuration whose operator's arguments are that many lists, one in the other."""
    values = with_settings(operator={"class_path": "a.B", "init_args": {"x": "HERE"}})
    return values.replace('"HERE"', "[" * depth + "]" * depth)


def with_mixture(**changes: object) -> str:
    return with_settings(initial_conditions=settings()["initial_conditions"] | changes)


def with_space(**changes: object) -> str:
    return with_settings(parameter_space=settings()["parameter_space"] | changes)


def refused(s: Scene) -> dict[str, tuple[str, str]]:
    """Configurations of no valid form, and what a refusal names."""
    operator = {"class_path": f"{s.module}.Halves"}
    yaml_file, json_file, text_file = map(str, s.secrets)
    evil = {"evil": {"a": s.command}}
    odd = {"evil": {**s.command, "family": s.command}}
    without = {key: value for key, value in settings().items() if key != "num_samples"}
    digits = with_settings().replace('"seed": 42', f'"seed": {"9" * 5000}')
    return {
        "command in the operator": (with_settings(operator={"a": s.shell_command}), "operator"),
        "command beside a class": (with_settings(operator=operator | {"x": s.command}), "operator"),
        "command in a variant": (with_mixture(custom=evil), "initial_conditions.custom.evil"),
        "command as a family": (with_mixture(custom=odd), "family"),
        "command as storage": (with_settings(storage=s.command), "storage.class_path"),
        "command as stored fields": (with_settings(storage={"fields": s.command}), "fields"),
        "command as space": (with_settings(parameter_space=s.command), "class_path"),
        "command as an axis": (with_space(alpha=s.command), "parameter_space.alpha"),
        "command as the mixture": (with_settings(initial_conditions=s.command), "class_path"),
        "command as features": (with_settings(features=s.command), "features"),
        "command as a number": (with_settings(num_samples=s.command), "num_samples"),
        "command as everything": (json.dumps(s.command), "class_path"),
        "class as storage": (with_settings(storage=f"{s.module}.Other"), "storage"),
        "class as space": (with_settings(parameter_space=f"{s.module}.Other"), "parameter_space"),
        "class as the operator": (with_settings(operator=f"{s.module}.Halves"), "operator"),
        "feature as features": (with_settings(features=f"{s.module}.positive_share"), "features"),
        "class as everything": (json.dumps(f"{s.module}.Other"), "configuration"),
        "class path in parts": (with_settings(operator={"class_path": [s.module]}), "operator"),
        "secret as storage": (with_settings(storage=yaml_file), "storage"),
        "secret json as storage": (with_settings(storage=json_file), "storage"),
        "secret as the mixture": (with_settings(initial_conditions=text_file), "conditions"),
        "secret as space": (with_settings(parameter_space="secret.json"), "parameter_space"),
        "secret as the operator": (with_settings(operator=json_file), "operator"),
        "secret as everything": (json.dumps(json_file), "configuration"),
        "secret as a parser's option": (with_settings(config=yaml_file), "config"),
        "secret as a list": (with_settings(features={"per_field": json_file}), "per_field"),
        "trusts itself": (with_settings(operator=operator, trusted=[s.module]), "trusted"),
        "unknown key": (with_settings(surprise=1), "surprise: unknown key"),
        "unknown key of a section": (with_settings(storage={"odd": s.command}), "storage.odd"),
        "unknown key of an axis": (with_space(alpha={"low": 0.1, "hi": 0.2}), "alpha.hi: unknown"),
        "missing key": (json.dumps(without), "num_samples"),
        "text as a number": (with_settings(num_samples="12"), "num_samples"),
        "bool as a number": (with_settings(num_samples=True), "num_samples"),
        "fraction as a number": (with_settings(num_samples=12.0), "num_samples"),
        "null as a section": (with_settings(storage=None), "storage"),
        "list as a section": (with_settings(parameter_space=[]), "parameter_space"),
        "number as text": (with_settings(precision=32), "precision"),
        "no JSON": ("{", "JSON"),
        "nothing": ("", "JSON"),
        "null": ("null", "configuration"),
        "a list": ("[]", "configuration"),
        "yaml with a tag": (f"!!python/object/apply:os.system ['touch {s.mark}']", "JSON"),
        "NaN": (with_mixture(weights={"sinusoids": float("nan")}), "initial_conditions.weights"),
        "deep": (nested(20_000), "JSON"),
        "huge number of samples": (with_settings(num_samples=10**30), "num_samples"),
        "huge seed": (with_settings(seed=10**100), "seed"),
        "too many digits": (digits, "JSON"),
    }


def huge(s: Scene) -> dict[str, tuple[str, str]]:
    """Values beyond what machines count, and what a refusal may name."""
    beyond = {"low": 10**400, "high": 10**400}
    wide = {"fields": "all", "shard_size": 10**30}
    return {
        "as deep as JSON allows": (nested(900), ""),
        "weight": (with_mixture(weights={"sinusoids": 10**400}), "weights"),
        "bound of a real axis": (with_space(alpha=beyond), "alpha"),
        "bound of an integer axis": (with_space(num_layers={"low": 1, "high": 10**400}), "layers"),
        "layers": (with_space(num_layers={"low": 10**30, "high": 10**30}), ""),
        "period": (with_space(schedule_period={"low": 1, "high": 10**30}), ""),
        "grid": (with_space(grid_size=[10**30]), ""),
        "kernel": (with_space(kernel_size=[10**30 + 1], grid_size=[10**31]), ""),
        "channels": (with_settings(channels=10**30), ""),
        "block": (with_settings(block_size=10**30, storage=wide), ""),
        "probes": (with_settings(probes_per_operator=10**30), ""),
    }


def opens(s: Scene) -> dict[str, tuple[str, str]]:
    """Configurations of a valid form, and what a computation says of them."""
    inner = {
        "class_path": "spinlock.simulation.initial_conditions.Sinusoids",
        "init_args": {"a": s.shell_command},
    }
    # So rare that the variants of the samples in the file do not change.
    weights = settings()["initial_conditions"]["weights"] | {"evil": 1e-9}
    argument = with_mixture(weights=weights, custom={"evil": inner})
    variant = {"evil": {"class_path": f"{s.module}.Stripes"}}
    features = {"per_field": [f"{s.module}.positive_share"], "per_trajectory": []}

    def operator(path: str) -> str:
        return with_settings(operator={"class_path": path})

    return {
        "command as the operator": (with_settings(operator=s.command), "--trust subprocess"),
        "command as an argument": (argument, "does not take these init_args"),
        "unused command": (with_mixture(custom={"evil": s.command}), ""),
        "unused module": (with_mixture(custom=variant), ""),
        "module as a feature": (with_settings(features=features), "--trust"),
        "module as the operator": (operator(f"{s.module}.Halves"), "--trust"),
        "name like the package's": (operator(f"spinlock_{s.module}.Halves"), "--trust"),
        "function of the package": (
            operator("spinlock.commands.command_line.main"),
            "must be a subclass",
        ),
        "through the package": (
            operator("spinlock.commands.command_line.importlib.import_module"),
            "operator",
        ),
    }


def names(attacks: Callable[[Scene], dict[str, object]]) -> list[str]:
    """Names of attacks, to make tests of."""
    return list(attacks(Scene(Path(), "module", Path())))


# ------------------------------------------------------------------------------------ entry points


def plot(scene):
    return scene.type("plot", scene.data, "--sample", 3, "--out", scene.folder / "sample.png")


def export(scene):
    return scene.type("export", scene.data, "--format", "well", "--out", scene.folder / "well")


def own_module(scene, **options):
    return SpinlockDataModule(scene.data, CONFIG, progress=False, **options)


def set_up_as_stored(scene):
    """Serve the file with the configuration that it holds."""
    module = SpinlockDataModule(
        scene.data, read_info(scene.data).config, progress=False, batch_size=2
    )
    module.prepare_data()
    module.setup()
    assert len(next(iter(module.train_dataloader()))["features"]) == 2


def extend_as_stored(scene):
    config = dataclasses.replace(read_info(scene.data).config, num_samples=16)
    generate(config, scene.data, progress=False)


def stream_as_stored(scene):
    next(iter(SpinlockStream(read_info(scene.data).config, batch_size=2, num_batches=1)))


ENTRIES: dict[str, Callable[[Scene], Outcome]] = {
    "info": lambda s: s.type("info", s.data),
    "check": lambda s: s.type("check", s.data, "--replay", 2),
    "check --full": lambda s: s.type("check", s.data, "--full", "--json"),
    "report": lambda s: s.type("report", s.data, "--out", s.folder / "report.html"),
    "plot": plot,
    "export": export,
    "extract-features": lambda s: s.type("extract-features", s.data),
    "read_info": lambda s: s.run(lambda: read_info(s.data)),
    "prepare_data": lambda s: s.run(lambda: own_module(s).prepare_data()),
    "setup": lambda s: s.run(lambda: own_module(s, view="both").setup()),
    "setup as stored": lambda s: s.run(lambda: set_up_as_stored(s)),
    "generate": lambda s: s.run(lambda: generate(CONFIG, s.data, progress=False)),
    "generate as stored": lambda s: s.run(lambda: extend_as_stored(s)),
    "stream as stored": lambda s: s.run(lambda: stream_as_stored(s)),
}
# Those that need the file to be the one of the user's own configuration.
OWN = ("prepare_data", "setup", "generate")
COMPUTES = ("generate as stored", "stream as stored")
# These draw and write pictures or fields, which takes most of the time.
SLOW = ("report", "plot", "export")
FORMS = {"stale digests": False, "new digests": True}


def forms(attacks):
    """Attacks in both forms; most of them with new digests only, to save time."""
    found = [(attack, "new digests") for attack in names(attacks)]
    return [*found, *((attack, "stale digests") for attack in names(attacks)[::4])]


def try_all(scene, entries, problem):
    """Run entry points; `problem` says what is wrong with an outcome, if anything is."""
    problems = {}
    for entry in entries:
        try:
            outcome = ENTRIES[entry](scene)
            wrong = problem(entry, outcome)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            problems[entry] = wrong[:300]
    assert not problems


OPTIONS = {"batch_size": 4, "val_fraction": 0.3, "test_fraction": 0.3, "progress": False}


def small_model(module):
    seed_everything(0)
    return FeatureVQVAE(
        module.num_features,
        num_initial_features=module.num_features,
        num_variants=module.num_variants,
        latent_dim=2,
        hidden_dims=[4],
        codebook_size=4,
    )


def run_file(scene):
    module = SpinlockDataModule(scene.data, CONFIG)
    run = {
        "data": {"path": str(scene.data), "generation": json.loads(CONFIG.to_json()), **OPTIONS},
        "model": {
            "class_path": "spinlock.models.FeatureVQVAE",
            "init_args": {
                "num_features": module.num_features,
                "num_variants": module.num_variants,
                "latent_dim": 2,
                "hidden_dims": [4],
                "codebook_size": 4,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "max_epochs": 2,
        },
    }
    path = scene.folder / "run.yaml"
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path
