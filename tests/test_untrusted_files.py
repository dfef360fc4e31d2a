"""Attacks by files of strangers: nothing that a file, a shard or a checkpoint names is run or read.

A stranger's configuration names `subprocess.Popen`, a module that leaves a mark when it is
imported, or a file of the user's. Whoever opens it gets the dataset or one clear error, and the
mark, the module and the content of the file stay out of sight.
"""

import contextlib
import copy
import dataclasses
import importlib
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from h5py import h5a, h5d, h5s, h5t
from lightning import __version__ as lightning_version
from lightning import seed_everything

from spinlock import GenerationConfig, SpinlockDataModule
from spinlock.__main__ import main as command_line
from spinlock.callbacks import DatasetReport
from spinlock.checks import CheckReport, check_dataset
from spinlock.configuration.generation_config import CustomFeatureConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.datamodules import SpinlockStream
from spinlock.errors import ConfigurationError, DatasetError, SpinlockError
from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.generation.feature_extraction import extract_features
from spinlock.models import FeatureVQVAE, SequenceVQVAE
from spinlock.report import write_report
from spinlock.storage import read_info, schema
from tests.callbacks import quiet_trainer
from tests.helpers import dataset_contents, reseal, seal, small_config

ROOT = Path(__file__).parent.parent
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
    """What an entry point came to: an error that the user sees or none, and everything it said."""

    error: str = ""
    text: str = ""


@dataclass
class Scene:
    """A folder with a dataset of a stranger's, and what the stranger is after."""

    folder: Path
    module: str
    data: Path
    events: list[tuple[str, str]] = field(default_factory=list, repr=False)

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
        """Do something in this process; only an error that the user can mend is caught."""
        said = io.StringIO()
        with audited() as events:
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    action()
            except SpinlockError as error:
                return Outcome(str(error), said.getvalue() + str(error))
            except Exception:
                # A crash, which fails the test; that something happened is worse news.
                self.events += events
                self.assert_nothing_happened()
                raise
            finally:
                self.events += events
        return Outcome("", said.getvalue())

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
        return Outcome(code.removeprefix("spinlock: error: "), outcome.text + code)

    def assert_nothing_happened(self, *outcomes: Outcome) -> None:
        assert not self.mark.exists(), "the stranger's command ran"
        assert not self.imported.exists(), "the stranger's module was imported"
        assert not {self.module, STRANGER} & sys.modules.keys()
        wanted = [str(path) for path in (self.mark, self.imported, *self.secrets)]
        touched = [event for event in self.events if any(path in event[1] for path in wanted)]
        assert not touched
        assert not any(SECRET in outcome.text for outcome in outcomes)


_NUMBER = itertools.count()


@pytest.fixture
def scene(tmp_path, original, monkeypatch):
    """A copy of a good file, secrets of the user's, and a stranger's module on the path."""
    data = Path(shutil.copy(original, tmp_path / "data.h5"))
    made = Scene(tmp_path, f"evil_{os.getpid()}_{next(_NUMBER)}", data)
    for path in made.secrets:
        path.write_text(json.dumps({"fields": "last", "compression": SECRET}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    made.lay_module()
    known = set(sys.modules)
    yield made
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in (made.module, STRANGER, "e"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("untrusted") / "data.h5"
    generate(CONFIG, path, progress=False)
    return path


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


@pytest.fixture(scope="module")
def strangers_file(tmp_path_factory):
    """A whole and true file, made where the stranger's module was."""
    folder = tmp_path_factory.mktemp("stranger")
    text = EXTENSIONS.format(imported=str(folder / "imported"), used=str(folder / "used"))
    (folder / f"{STRANGER}.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        generate(custom_config(STRANGER), folder / "data.h5", progress=False)
    finally:
        sys.path.remove(str(folder))
        del sys.modules[STRANGER]
    (folder / f"{STRANGER}.py").unlink()
    importlib.invalidate_caches()
    return folder / "data.h5"


@pytest.fixture
def custom(scene, strangers_file):
    """A scene whose file names a stranger's module, which is not there."""
    shutil.copy(strangers_file, scene.data)
    return scene


# --------------------------------------------------------------------------------------- forgeries


def forge(path: Path, text: str, *, sealed: bool) -> None:
    """Rewrite the configuration of a file; with ``sealed`` every digest agrees with it again."""
    with h5py.File(path, "r+") as file:
        file.attrs["configuration"] = text
        if not sealed:
            return
        try:
            config = GenerationConfig.from_json(text)
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
        "class_path": "spinlock.simulation.operator_family.ConvolutionalOperators",
        "init_args": {"a": s.shell_command},
    }
    variant = {"evil": {"class_path": f"{s.module}.Stripes"}}
    features = {"per_field": [f"{s.module}.positive_share"], "per_trajectory": []}

    def operator(path: str) -> str:
        return with_settings(operator={"class_path": path})

    return {
        "command as the operator": (with_settings(operator=s.command), "--trust subprocess"),
        "command as an argument": (with_settings(operator=inner), "does not take these init_args"),
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


@pytest.fixture
def no_figures(monkeypatch):
    """Reports without figures, which know of no class paths."""
    monkeypatch.setattr("spinlock.report.report_builder.report_plots", lambda source: [])


def try_all(scene, entries, problem):
    """Run entry points; `problem` says what is wrong with an outcome, if anything is."""
    problems = {}
    for entry in entries:
        try:
            outcome = ENTRIES[entry](scene)
            scene.assert_nothing_happened(outcome)
            wrong = problem(entry, outcome)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            problems[entry] = wrong[:300]
    assert not problems


@pytest.mark.parametrize(("attack", "form"), forms(refused))
def test_what_is_no_configuration_is_refused(scene, attack, form):
    text, named = refused(scene)[attack]
    forge(scene.data, text, sealed=FORMS[form])
    before = scene.data.read_bytes()

    def problem(entry, outcome):
        if not outcome.error:
            return "accepted"
        return "" if named in outcome.text else f"does not name {named}: {outcome.text}"

    try_all(scene, ENTRIES, problem)
    assert scene.data.read_bytes() == before


@pytest.mark.parametrize(("attack", "form"), forms(opens))
def test_what_a_configuration_names_stays_text(scene, attack, form, no_figures):
    text, said = opens(scene)[attack]
    forge(scene.data, text, sealed=FORMS[form])

    def problem(entry, outcome):
        if entry in OWN:
            return "" if outcome.error else "not noticed"
        if entry in COMPUTES or (entry == "extract-features" and "feature" in attack):
            if said and form == "new digests":
                parts = [said, "trust=["] if said.startswith("--") else [said]
                missing = [part for part in parts if part not in outcome.error]
                return f"does not say {missing}: {outcome.text}" if missing else ""
            return ""
        if form == "stale digests" or entry.startswith("check"):
            return ""
        return outcome.error

    slow = SLOW if (attack, form) == ("command as the operator", "new digests") else ()
    entries = [entry for entry in ENTRIES if entry in slow or entry not in SLOW]
    try_all(scene, entries, problem)


@pytest.mark.parametrize("attack", names(huge))
def test_huge_values_are_no_crash(scene, attack):
    text, named = huge(scene)[attack]
    forge(scene.data, text, sealed=False)
    entries = [entry for entry in ENTRIES if entry not in SLOW]
    # To describe such a file is no crime; a file of the user's own it is not.
    try_all(scene, entries, lambda entry, outcome: "" if outcome.error or entry not in OWN else "?")
    assert named in ENTRIES["prepare_data"](scene).error


def test_the_attacks_would_work(scene):
    """Following the class paths of the forgeries leaves the marks that the tests look for."""
    spec = scene.shell_command
    module, _, name = spec["class_path"].rpartition(".")
    with audited() as scene.events:
        process = getattr(importlib.import_module(module), name)(**spec["init_args"])
    process.wait()
    assert scene.mark.exists()
    with pytest.raises(AssertionError, match="command ran"):
        scene.assert_nothing_happened()
    scene.mark.unlink()
    with pytest.raises(AssertionError, match="Popen"):
        scene.assert_nothing_happened()
    scene.events = []
    scene.assert_nothing_happened()
    importlib.import_module(scene.module)
    with pytest.raises(AssertionError, match="was imported"):
        scene.assert_nothing_happened()


def test_the_good_file_passes_everywhere(scene, no_figures):
    for entry in ENTRIES:
        assert not ENTRIES[entry](scene).error


@pytest.mark.parametrize(
    ("command", "attack"),
    [("info", "command in the operator"), ("extract-features", "module as a feature")],
)
def test_a_process_of_its_own(scene, command, attack):
    """As a user types it, where the stranger's module can be imported."""
    text, _ = (refused(scene) | opens(scene))[attack]
    forge(scene.data, text, sealed=True)
    modules = os.pathsep.join([str(scene.folder / "modules"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "spinlock", command, str(scene.data)],
        env=os.environ | {"PYTHONPATH": modules, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    scene.assert_nothing_happened(Outcome("", done.stdout + done.stderr))
    assert done.returncode == 1
    assert done.stderr.startswith("spinlock: error: ")
    assert len(done.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------ files of strangers


@pytest.mark.parametrize("there", [False, True])
def test_a_file_of_custom_classes_opens_without_them(custom, there, no_figures):
    """Whether the stranger's module is there, with another content, makes no difference."""
    if there:
        custom.lay_module(STRANGER)
    outcomes = {name: ENTRIES[name](custom) for name in ("info", "read_info", "report")}
    outcomes |= {name: ENTRIES[name](custom) for name in ("plot", "export", "setup as stored")}
    custom.assert_nothing_happened(*outcomes.values())
    assert {name: outcome.error for name, outcome in outcomes.items()} == dict.fromkeys(
        outcomes, ""
    )
    assert "positive_share" in outcomes["info"].text
    assert "stripes" in outcomes["info"].text


@pytest.mark.parametrize("there", [False, True])
def test_a_check_measures_what_needs_no_class(custom, there):
    if there:
        custom.lay_module(STRANGER)
    report = check_dataset(custom.data, full=True, replay=2, progress=False)
    custom.assert_nothing_happened()
    assert report.passed
    replay = [row for row in report.rows if row.group == "replay"]
    assert replay
    assert not any(row.measurable for row in replay)
    # It says what to do.
    assert any("trust" in row.measured and STRANGER in row.measured for row in replay)
    assert report.row("integrity", "sample digests").passed
    assert report.row("integrity", "fingerprint").passed


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("entry", ["extract-features", *COMPUTES])
def test_computing_needs_the_users_word(custom, entry, there):
    if there:
        custom.lay_module(STRANGER)
    before = custom.data.read_bytes()
    outcome = ENTRIES[entry](custom)
    custom.assert_nothing_happened(outcome)
    assert f"--trust {STRANGER}" in outcome.error
    assert f"trust=['{STRANGER}']" in outcome.error
    assert custom.data.read_bytes() == before


def test_every_view_of_a_custom_file_is_served(custom):
    config = read_info(custom.data).config
    for view in ("features", "sequence", "fields", "both"):
        module = SpinlockDataModule(custom.data, config, view=view, progress=False, batch_size=2)
        module.setup()
        batch = next(iter(module.predict_dataloader()))
        if view != "fields":
            assert batch["features"].shape[-1] == 47
        assert module.family_names == ("gaussian_noise", "sinusoids", "waves")
    custom.assert_nothing_happened()


def test_a_trusted_module_is_replayed(custom):
    custom.lay_module(STRANGER)
    report = check_dataset(custom.data, replay=3, trust=[STRANGER], progress=False)
    replay = [row for row in report.rows if row.group == "replay"]
    assert replay
    assert all(row.passed for row in replay)
    assert custom.imported.exists()


@pytest.mark.parametrize("command", ["check", "extract-features", "report"])
def test_the_command_line_takes_modules_to_trust(custom, command, no_figures):
    custom.lay_module(STRANGER)
    options = ("--out", custom.folder / "report.html") if command == "report" else ()
    outcome = custom.type(command, custom.data, *options, "--trust", STRANGER)
    assert outcome.error == ""
    assert custom.imported.exists()
    if command == "check":
        assert "bitwise equal" in outcome.text
    if command == "report":
        page = (custom.folder / "report.html").read_text()
        assert "samples bitwise equal" in page


@pytest.mark.parametrize("command", ["check", "extract-features", "report"])
def test_help_tells_of_trust(scene, command):
    outcome = scene.type(command, "--help")
    assert "--trust" in outcome.text


def test_a_trusted_module_extends_the_file(custom):
    custom.lay_module(STRANGER)
    held = dataset_contents(custom.data)
    config = read_info(custom.data, trust=[STRANGER]).config
    generate(dataclasses.replace(config, num_samples=16), custom.data, progress=False)
    assert read_info(custom.data).config.num_samples == 16
    longer = dataset_contents(custom.data)
    assert all(longer[name][: len(old)] == old for name, old in held.items())


def test_extracting_features_with_trust(custom):
    custom.lay_module(STRANGER)
    done = extract_features(custom.data, trust=[STRANGER], progress=False)
    assert (done.samples, done.changed) == (12, 0)


@pytest.mark.parametrize(
    "trust",
    [
        [STRANGER[:-1]],
        [f"{STRANGER}.more"],
        [f"{STRANGER}s"],
        ["a", ""],
        [STRANGER.upper()],
        [f"{STRANGER}.Halves"],
        [f" {STRANGER}"],
        ["*"],
        [f"{STRANGER[:-1]}?"],
    ],
)
def test_trust_in_another_name_is_no_trust(custom, trust):
    custom.lay_module(STRANGER)
    config = dataclasses.replace(read_info(custom.data, trust=trust).config, num_samples=16)
    outcomes = [
        custom.run(lambda: generate(config, custom.data, progress=False)),
        custom.run(lambda: extract_features(custom.data, trust=trust, progress=False)),
    ]
    assert all("--trust" in outcome.error for outcome in outcomes)
    report = check_dataset(custom.data, replay=1, trust=trust, progress=False)
    assert not any(row.measurable for row in report.rows if row.group == "replay")
    custom.assert_nothing_happened(*outcomes)


def test_trust_in_a_package_includes_its_modules_only(scene):
    package = scene.folder / "modules" / f"{scene.module}_package"
    package.mkdir()
    (package / "__init__.py").touch()
    for folder, name in ((package, "inside"), (package.parent, f"{package.name}s")):
        text = EXTENSIONS.format(imported=str(folder / f"{name}.mark"), used=str(scene.mark))
        (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    for module in (f"{package.name}.inside", f"{package.name}s"):
        operator = {"class_path": f"{module}.Halves"}
        forge(scene.data, with_settings(operator=operator), sealed=True)
        config = read_info(scene.data, trust=[package.name]).config
        outcome = scene.run(
            lambda c=config: generate(c, scene.folder / "longer.h5", progress=False)
        )
        assert bool(outcome.error) == (module != f"{package.name}.inside")
    assert (package / "inside.mark").exists()
    assert not (package.parent / f"{package.name}s.mark").exists()


def test_a_name_in_place_of_a_list_does_not_trust_its_letters(scene):
    scene.lay_module("e")
    forge(scene.data, with_settings(operator={"class_path": "e.Halves"}), sealed=True)
    for attempt in (
        lambda: check_dataset(scene.data, replay=1, trust="evil", progress=False),
        lambda: generate(
            dataclasses.replace(read_info(scene.data, trust="evil").config, num_samples=13),
            scene.data,
            progress=False,
        ),
    ):
        with contextlib.suppress(TypeError):
            scene.run(attempt)
        assert not scene.imported.exists()
        assert "e" not in sys.modules


@pytest.mark.parametrize("name", ["Other", "run", "Path", "torch.Generator", "nothing"])
@pytest.mark.parametrize("where", ["operator", "variant", "feature"])
def test_a_trusted_module_gives_what_is_expected_only(scene, where, name):
    spec = {"class_path": f"{scene.module}.{name}", "init_args": {"a": 1}}
    changes = {
        "operator": {"operator": spec},
        "variant": {"initial_conditions": {"weights": {"evil": 1.0}, "custom": {"evil": spec}}},
        "feature": {"features": {"per_field": [spec["class_path"]], "per_trajectory": []}},
    }[where]
    forge(scene.data, with_settings(**changes), sealed=True)
    # Of a configuration that the user wrote, and of one that is trusted; a file whose layout does
    # not fit its configuration gives none.
    configs = [GenerationConfig.from_dict(settings() | changes)]
    with contextlib.suppress(DatasetError):
        configs.append(read_info(scene.data, trust=[scene.module]).config)
    assert where == "variant" or len(configs) == 2
    for each in configs:
        outcome = scene.run(lambda c=each: generate(c, scene.folder / "other.h5", progress=False))
        assert outcome.error
        assert spec["class_path"] in outcome.error
        assert not (scene.folder / "other.h5").exists()
    assert not scene.mark.exists(), "it was called"


@pytest.mark.parametrize("change", ["pickle", "copy", "replace", "deepcopy"])
def test_trust_is_neither_lost_nor_won(custom, change):
    custom.lay_module(STRANGER)
    changes = {
        "pickle": lambda c: pickle.loads(pickle.dumps(c)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "replace": lambda c: dataclasses.replace(c, seed=c.seed),
    }
    untrusted = changes[change](read_info(custom.data).config)
    outcome = custom.run(lambda: generate(untrusted, custom.folder / "b.h5", progress=False))
    assert f"--trust {STRANGER}" in outcome.error
    custom.assert_nothing_happened(outcome)
    trusted = changes[change](read_info(custom.data, trust=[STRANGER]).config)
    trusted = dataclasses.replace(trusted, num_samples=4)
    generate(trusted, custom.folder / "b.h5", progress=False)
    assert custom.imported.exists()


def test_a_module_of_a_stored_configuration_keeps_its_doubts(custom):
    """What a data module keeps in a checkpoint is no more trusted than what it was made of."""
    custom.lay_module(STRANGER)
    module = SpinlockDataModule(custom.folder / "new.h5", read_info(custom.data).config)
    again = SpinlockDataModule(**module.hparams | {"progress": False})
    outcomes = [custom.run(each.prepare_data) for each in (module, again)]
    custom.assert_nothing_happened(*outcomes)
    assert all(f"--trust {STRANGER}" in outcome.error for outcome in outcomes)


# -------------------------------------------------------------------------- the user's own classes


def test_ones_own_classes_work_from_end_to_end(scene):
    """Named by the user's yaml, on the command line."""
    own = custom_config(scene.module)
    run = {"data": {"path": "own.h5", "generation": json.loads(own.to_json()), "progress": False}}
    (scene.folder / "own.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    path = scene.folder / "own.h5"
    assert scene.type("generate", "--config", "own.yaml").error == ""
    assert scene.imported.exists()
    with h5py.File(path) as file:
        labels = file[schema.IC_TYPES][:].astype(str)
        shares = file["features/custom/per_timestep/features"][:, 0, 0]
        families = file[schema.IC_FAMILIES][:].astype(str)
    assert set(families) <= {"gaussian_noise", "sinusoids", "waves"}
    assert "stripes" in labels
    assert ((shares > 0) & (shares < 1)).all()
    # The user's own configuration is the user's word.
    longer = dataclasses.replace(own, num_samples=16)
    generate(longer, path, progress=False)
    module = SpinlockDataModule(path, longer, batch_size=2, progress=False)
    module.prepare_data()
    module.setup()
    assert next(iter(module.train_dataloader()))["features"].shape == (2, 47)
    trainer = quiet_trainer(scene.folder, DatasetReport(replay=1))
    trainer.validate(small_model(module), module, verbose=False)


def test_ones_own_feature_is_added_to_a_file(scene):
    feature = f"{scene.module}.positive_share"
    run = {"data": {"generation": {"num_samples": 12, "features": {"per_field": [feature]}}}}
    (scene.folder / "own.yaml").write_text(yaml.safe_dump(run))
    outcome = scene.type("extract-features", scene.data, "--config", "own.yaml")
    assert outcome.error == ""
    with h5py.File(scene.data) as file:
        assert list(file["features/custom/initial/features"].attrs["names"]) == ["positive_share"]


def test_naming_one_feature_does_not_trust_another_module(custom):
    """The file's operator and its own features stay a stranger's."""
    custom.lay_module(STRANGER)
    selection = CustomFeatureConfig(per_field=(f"{custom.module}.positive_share",))
    with audited() as custom.events:
        extract_features(custom.data, features=selection, progress=False)
    assert STRANGER not in sys.modules
    assert custom.module in sys.modules
    assert read_info(custom.data).config.features == selection


@pytest.mark.parametrize("feature", [".relative.feature", "..feature", "a..feature", ". .feature"])
def test_a_relative_import_path_is_refused(scene, feature):
    """`importlib` raises TypeError for these."""
    run = {"per_field": [feature], "per_trajectory": []}

    def attempt():
        generate(
            GenerationConfig.from_dict(settings() | {"features": run}),
            scene.folder / "b.h5",
            progress=False,
        )

    assert scene.run(attempt).error


# ------------------------------------------------------------------------------------------ shards


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """Dataset and shard of a run that was interrupted; copied by tests."""
    folder = tmp_path_factory.mktemp("shards")
    generate_part(CONFIG, folder / "unfinished.h5", 1, 2, progress=False)
    return folder / "unfinished.h5.parts"


@pytest.fixture
def shard(scene, unfinished):
    """The shard of an unfinished dataset in a scene."""
    shutil.copytree(unfinished, scene.folder / "unfinished.h5.parts")
    (found,) = (scene.folder / "unfinished.h5.parts").rglob("shard-*")
    return found


def shard_attacks(s):
    return refused(s) | opens(s) | huge(s)


@pytest.mark.parametrize("attack", names(shard_attacks))
def test_a_strangers_shard_is_described_and_not_assembled(scene, shard, attack):
    """It claims to be a shard of this dataset all the same."""
    path = scene.folder / "unfinished.h5"
    with h5py.File(shard, "r+") as file:
        file.attrs["configuration"] = shard_attacks(scene)[attack][0]
    described = scene.type("info", path)
    assembled = scene.run(lambda: assemble_parts(CONFIG, path))
    scene.assert_nothing_happened(described, assembled)
    assert "samples 0..11 are missing" in assembled.error
    assert not path.exists()


@pytest.mark.parametrize(
    "attack", ["command in the operator", "module as the operator", "secret as storage", "weight"]
)
def test_a_strangers_shard_is_computed_again(scene, shard, original, attack):
    path = scene.folder / "unfinished.h5"
    with h5py.File(shard, "r+") as file:
        file.attrs["configuration"] = shard_attacks(scene)[attack][0]
    outcome = scene.run(lambda: generate(CONFIG, path, progress=False))
    scene.assert_nothing_happened(outcome)
    assert outcome.error == ""
    assert dataset_contents(path) == dataset_contents(original)


def test_a_true_shard_of_custom_classes_is_no_reason_to_import(custom):
    """The user asks for this very dataset, with a configuration that was read from a file."""
    custom.lay_module(STRANGER)
    generate_part(custom_config(STRANGER), custom.folder / "b.h5", 1, 2, progress=False)
    del sys.modules[STRANGER]
    custom.imported.unlink()
    config = read_info(custom.data).config
    outcomes = [
        custom.type("info", custom.folder / "b.h5"),
        custom.run(lambda: generate(config, custom.folder / "b.h5", progress=False)),
    ]
    custom.assert_nothing_happened(*outcomes)
    assert [bool(outcome.error) for outcome in outcomes] == [False, True]


def as_directory(shard, victim):
    shard.mkdir()


def as_pipe(shard, victim):
    os.mkfifo(shard)


def as_link(shard, victim):
    shard.symlink_to(victim)


def as_dangling_link(shard, victim):
    shard.symlink_to("nothing")


def as_hard_link(shard, victim):
    os.link(victim, shard)


FIRST = "shard-0000000000-0000000008.h5"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (as_directory, FIRST),
        (as_pipe, FIRST),
        (as_link, FIRST),
        (as_dangling_link, FIRST),
        (as_hard_link, FIRST),
        (as_link, "shard-9999999990-9999999999.h5"),
        (as_directory, f"unfinished.h5.{'0' * 32}.tmp"),
    ],
)
def test_what_lies_among_the_shards_harms_nothing_else(scene, kind, name):
    path, victim = scene.folder / "unfinished.h5", scene.folder / "victim.h5"
    shutil.copy(scene.data, victim)
    before = victim.read_bytes()
    folder = scene.folder / "unfinished.h5.parts" / CONFIG.fingerprint[:16]
    folder.mkdir(parents=True)
    kind(folder / name, victim)
    outcomes = [
        scene.type("info", path),
        scene.run(lambda: generate(CONFIG, path, progress=False)),
    ]
    assert victim.read_bytes() == before
    assert not victim.is_symlink()
    # Only a directory, which is never removed, can be in the way.
    assert not outcomes[1].error or kind is as_directory


# ------------------------------------------------------------------------------------- checkpoints

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


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    """`seed_everything` leaves its seed in the environment, where other tests would find it."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")


@pytest.fixture(scope="module")
def good_checkpoint(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    module = SpinlockDataModule(original, CONFIG, **OPTIONS)
    model = small_model(module)
    trainer = quiet_trainer(folder)
    trainer.fit(model, module)
    trainer.save_checkpoint(folder / "good.ckpt")
    return torch.load(folder / "good.ckpt", weights_only=True)


def write_checkpoint(scene, checkpoint):
    path = scene.folder / "forged.ckpt"
    torch.save(checkpoint, path)
    # A stranger can send what passes weights_only.
    torch.load(path, weights_only=True)
    return path


def copied(value):
    return {k: copied(v) for k, v in value.items()} if isinstance(value, dict) else value


def trainer_entry(name):
    def act(scene, checkpoint):
        module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
        model = small_model(module)
        trainer = quiet_trainer(scene.folder, max_epochs=2)
        options = {} if name in ("fit", "predict") else {"verbose": False}
        getattr(trainer, name)(model, datamodule=module, ckpt_path=str(checkpoint), **options)

    return act


def load_state(scene, checkpoint):
    held = torch.load(checkpoint, weights_only=True)["SpinlockDataModule"]
    module = SpinlockDataModule(scene.data, CONFIG, **OPTIONS)
    module.load_state_dict(held)
    module.setup()


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


def predict_command(scene, checkpoint):
    out = scene.folder / "tokens.h5"
    return scene.type(
        "predict", "--config", run_file(scene), "--ckpt_path", checkpoint, "--out", out
    )


def fit_command(scene, checkpoint):
    return scene.type("fit", "--config", run_file(scene), "--ckpt_path", checkpoint)


def within(action):
    return lambda scene, checkpoint: scene.run(lambda: action(scene, checkpoint))


RESUMING = {
    "fit": within(trainer_entry("fit")),
    "validate": within(trainer_entry("validate")),
    "test": within(trainer_entry("test")),
    "predict": within(trainer_entry("predict")),
    "load_state_dict": within(load_state),
    "spinlock predict": predict_command,
    "spinlock fit": fit_command,
}


def states(s):
    """Changes of a data module's state in a checkpoint, and what a refusal names."""

    def other(text):
        """State of another dataset: its configuration is looked at."""
        return {"fingerprint": "0" * 64, "configuration": text}

    def scaler(**changes):
        return {"scalers": {"features": changes}}

    halves = with_settings(operator={"class_path": f"{s.module}.Halves"})
    return {
        "command in the operator": (other(refused(s)["command in the operator"][0]), "operator"),
        "command as the operator": (other(opens(s)["command as the operator"][0]), "another"),
        "module as the operator": (other(halves), "another dataset"),
        "secret as storage": (other(with_settings(storage=str(s.secrets[1]))), "storage"),
        "secret as everything": (other(json.dumps(str(s.secrets[0]))), "configuration"),
        "secret as the text": (other(str(s.secrets[0])), "JSON"),
        "configuration is a command": (other(s.command), "configuration"),
        "no configuration": (other(None), "configuration"),
        "huge weight": (other(huge(s)["weight"][0]), "weights"),
        "as deep as JSON allows": (other(nested(900)), "configuration"),
        "fingerprint is a number": ({"fingerprint": 5}, "fingerprint"),
        "settings are a list": ({"settings": []}, "settings"),
        "settings are tensors": ({"settings": {"timestep": torch.ones(3)}}, "settings"),
        "no scalers": ({"scalers": None}, "scalers"),
        "scalers are a list": ({"scalers": [1.0]}, "scalers"),
        "a scaler is a number": ({"scalers": {"features": 5}}, "scaling"),
        "a scaler is a list": ({"scalers": {"features": [1.0, 2.0]}}, "scaling"),
        "an empty scaler": ({"scalers": {"features": {}}}, "scaling"),
        "scalers of nothing": ({"scalers": {"other": None}}, "scal"),
        "a scaler has another name": ("rename", "scal"),
        "text in a scaler": (scaler(center="a"), "scaling"),
        "a command in a scaler": (scaler(center=s.command), "scaling"),
        "nothing in a scaler": (scaler(spread=None), "scaling"),
        "a number in a scaler": (scaler(knee=1.0), "scaling"),
        "NaN in a scaler": (scaler(center=[float("nan")] * 46), "scaling"),
        "too much in a scaler": (scaler(center=[0.0] * 47), "scaling"),
        "ragged lists in a scaler": (scaler(knots=[[0.0], [0.0, 1.0]]), "scaling"),
        "a huge number in a scaler": (scaler(center=[10**400] * 46), "scaling"),
        "a secret as scaling": (scaler(scaling=str(s.secrets[0])), "scaling"),
    }


def with_state(scene, good_checkpoint, attack):
    """A checkpoint with such a state; scalers are whole but for what is changed."""
    changes, named = states(scene)[attack]
    forged = copied(good_checkpoint)
    state = forged["SpinlockDataModule"]
    held = state["scalers"]["features"]
    if changes == "rename":
        changes = {"scalers": {"other": held}}
    scalers = changes.get("scalers")
    if isinstance(scalers, dict) and isinstance(scalers.get("features"), dict):
        changed = scalers["features"]
        changes = {"scalers": {"features": held | changed if changed else {}}}
    forged["SpinlockDataModule"] = state | changes
    return write_checkpoint(scene, forged), named


@pytest.mark.parametrize("attack", names(states))
def test_the_state_of_a_data_module_is_data(scene, good_checkpoint, attack):
    path, named = with_state(scene, good_checkpoint, attack)
    outcome = RESUMING["load_state_dict"](scene, path)
    scene.assert_nothing_happened(outcome)
    assert "checkpoint" in outcome.error
    assert named in outcome.error


@pytest.mark.parametrize(
    "attack", ["command in the operator", "module as the operator", "a scaler is a number"]
)
@pytest.mark.parametrize("entry", ["fit", "validate", "test", "predict", "spinlock predict"])
def test_no_trainer_makes_more_of_a_state(scene, good_checkpoint, attack, entry):
    path, named = with_state(scene, good_checkpoint, attack)
    outcome = RESUMING[entry](scene, path)
    scene.assert_nothing_happened(outcome)
    assert named in outcome.error
    assert not (scene.folder / "tokens.h5").exists()


@pytest.mark.parametrize("entry", ["fit", "test", "spinlock predict"])
def test_a_configuration_that_nobody_needs_is_not_looked_at(scene, good_checkpoint, entry):
    forged = copied(good_checkpoint)
    text = refused(scene)["command in the operator"][0]
    forged["SpinlockDataModule"]["configuration"] = text
    outcome = RESUMING[entry](scene, write_checkpoint(scene, forged))
    scene.assert_nothing_happened(outcome)
    assert outcome.error == ""


@pytest.mark.parametrize("state", [None, 5, [], "text"])
def test_a_state_that_is_no_dictionary_is_refused(scene, good_checkpoint, state):
    forged = copied(good_checkpoint) | {"SpinlockDataModule": state}
    outcome = RESUMING["load_state_dict"](scene, write_checkpoint(scene, forged))
    assert "checkpoint" in outcome.error


INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def data_arguments(s):
    """Changes of a data module's arguments in a checkpoint."""
    made = {"_instantiator": INSTANTIATOR}
    inside = {"generation": settings() | {"operator": {"a": s.shell_command}}}
    own = {"_class_path": "spinlock.datamodules.SpinlockDataModule"}
    weight = json.loads(huge(s)["weight"][0])
    return {
        "command in the operator": inside,
        "command in the operator, and an instantiator": inside | made,
        "command in the operator, and a class": inside | made | own,
        "another class": inside | made | {"_class_path": f"{s.module}.Other"},
        "another instantiator": inside | {"_instantiator": "os.system"},
        "secret as the configuration": {"generation": str(s.secrets[1])},
        "class as the configuration": {"generation": f"{s.module}.Other"},
        "command as the configuration": {"generation": s.command},
        "no configuration": {"generation": None},
        "a list as the configuration": {"generation": [s.command]},
        "secret as a section": {"generation": settings() | {"storage": str(s.secrets[0])}},
        "huge weight": {"generation": weight},
        "command as the variants": {"train_variants": s.command},
        "text as the batch size": {"batch_size": "4"},
        "command as the batch size": {"batch_size": s.command},
        "text as a fraction": {"val_fraction": "0.1"},
        "number as the path": {"path": 5},
        "command as the path": {"path": s.command},
        "number as the view": {"view": 5},
        "list as the scaling": {"scaling": ["standard"]},
        "text as the number of workers": {"loader": {"num_workers": "1"}},
    }


def use_data_module(path):
    module = SpinlockDataModule.load_from_checkpoint(path)
    module.prepare_data()
    module.setup()


def with_data_arguments(scene, good_checkpoint, **changes):
    forged = copied(good_checkpoint)
    forged["datamodule_hyper_parameters"] |= {"path": str(scene.data)} | changes
    return write_checkpoint(scene, forged)


@pytest.mark.parametrize("attack", names(data_arguments))
def test_the_arguments_of_a_data_module_are_data(scene, good_checkpoint, attack):
    changes = data_arguments(scene)[attack]
    path = with_data_arguments(scene, good_checkpoint, **changes)
    outcome = scene.run(lambda: use_data_module(path))
    scene.assert_nothing_happened(outcome)
    assert outcome.error


def test_an_executor_in_a_checkpoint_is_not_made(scene, good_checkpoint):
    """It is no argument that checkpoints keep: left out or refused."""
    changes = {"executor": scene.command, "_instantiator": INSTANTIATOR}
    path = with_data_arguments(scene, good_checkpoint, **changes)
    scene.assert_nothing_happened(scene.run(lambda: use_data_module(path)))


@pytest.mark.parametrize("attack", ["command as the operator", "module as the operator"])
def test_a_data_module_of_a_checkpoint_does_not_import(scene, good_checkpoint, attack):
    """Not even when it is asked to build the dataset."""
    new, generation = scene.folder / "new.h5", json.loads(opens(scene)[attack][0])
    path = with_data_arguments(scene, good_checkpoint, path=str(new), generation=generation)
    outcome = scene.run(
        lambda: SpinlockDataModule.load_from_checkpoint(path, allow_transfer=True).prepare_data()
    )
    scene.assert_nothing_happened(outcome)
    assert "--trust" in outcome.error
    assert not new.exists()


def model_arguments(s):
    """Changes of a model's arguments in a checkpoint."""
    return {
        "command as the quantizer": {"quantizer": s.command},
        "command in the quantizer": {"quantizer": {"kind": s.shell_command}},
        "command as the schedule": {"schedule": s.command},
        "command as the widths": {"hidden_dims": s.command},
        "command among the widths": {"hidden_dims": [s.command]},
        "class as the quantizer": {"quantizer": f"{s.module}.Other"},
        "secret as the quantizer": {"quantizer": str(s.secrets[0])},
        "secret as the terms": {"independence": str(s.secrets[1])},
        "secret as the widths": {"hidden_dims": str(s.secrets[1])},
        "secret as a number": {"codebook_size": str(s.secrets[1])},
        "text as a number": {"latent_dim": "2"},
    }


@pytest.mark.parametrize("attack", names(model_arguments))
def test_the_arguments_of_a_model_are_data(scene, good_checkpoint, attack):
    """Whether or not the checkpoint asks for Lightning's parser to read them."""
    problems = {}
    for instantiator in ({}, {"_instantiator": INSTANTIATOR}):
        forged = copied(good_checkpoint)
        forged["hyper_parameters"] |= model_arguments(scene)[attack] | instantiator
        path = write_checkpoint(scene, forged)
        try:
            scene.run(lambda p=path: FeatureVQVAE.load_from_checkpoint(p))
        except Exception as error:
            problems[str(instantiator)] = f"{type(error).__name__}: {error}"[:300]
        scene.assert_nothing_happened()
    assert not problems


@pytest.mark.parametrize("model", [FeatureVQVAE, SequenceVQVAE])
@pytest.mark.parametrize("argument", ["quantizer", "independence", "schedule"])
def test_no_argument_of_a_model_is_imported(scene, model, argument):
    """Lightning's parser imports what text names, where a class is expected."""
    arguments = {
        argument: f"{scene.module}.Other",
        "_instantiator": INSTANTIATOR,
        "_class_path": f"spinlock.models.{model.__name__}",
    }
    checkpoint = {
        "pytorch-lightning_version": lightning_version,
        "hyper_parameters": arguments,
        "state_dict": {},
    }
    path = write_checkpoint(scene, checkpoint)
    with contextlib.suppress(Exception):
        # That the error is clear is tested above.
        model.load_from_checkpoint(path)
    scene.assert_nothing_happened()


@pytest.mark.parametrize("attack", names(model_arguments)[1::2])
def test_the_command_line_takes_arguments_as_data(scene, good_checkpoint, attack):
    forged, changes = copied(good_checkpoint), model_arguments(scene)[attack]
    forged["hyper_parameters"] |= changes | {"_instantiator": INSTANTIATOR}
    outcome = predict_command(scene, write_checkpoint(scene, forged))
    scene.assert_nothing_happened(outcome)
    assert next(iter(changes)) in outcome.error


def classes(s):
    """Classes that a checkpoint names for its model."""
    return {
        "command": "subprocess.Popen",
        "module": f"{s.module}.Other",
        "module like the package": f"spinlock_{s.module}.Other",
        "relative": f"spinlock..{s.module}.Other",
        "file": f"spinlock.{s.folder}/modules/{s.module}.Other",
        "no model": "spinlock.callbacks.TokenWriter",
        "function": "spinlock.commands.command_line.main",
        "nothing": "spinlock.models.Nothing",
        "number": 5,
    }


@pytest.mark.parametrize("attack", names(classes))
def test_the_class_of_a_checkpoint_is_not_imported(scene, good_checkpoint, attack):
    forged = copied(good_checkpoint)
    forged["hyper_parameters"] |= {
        "_class_path": classes(scene)[attack],
        "_instantiator": INSTANTIATOR,
        "path": str(scene.mark),
        "evil": scene.command,
    }
    path = write_checkpoint(scene, forged)
    # A model or one clear error; the yaml file, or the caller, names the class.
    typed = predict_command(scene, path)
    scene.assert_nothing_happened(typed)
    loaded = scene.run(lambda: FeatureVQVAE.load_from_checkpoint(path))
    scene.assert_nothing_happened(loaded)


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("where", ["state_dict", "SpinlockDataModule", "hyper_parameters", "new"])
def test_a_checkpoint_is_not_unpickled(scene, good_checkpoint, where):
    forged = copied(good_checkpoint)
    forged.setdefault(where, {})["evil"] = Payload(scene.mark)
    path = scene.folder / "forged.ckpt"
    torch.save(forged, path)
    for load in (
        trainer_entry("fit"),
        trainer_entry("test"),
        lambda s, p: FeatureVQVAE.load_from_checkpoint(p),
        lambda s, p: SpinlockDataModule.load_from_checkpoint(p),
    ):
        # Of torch: nothing of this package comes before.
        with pytest.raises((pickle.UnpicklingError, SpinlockError)):
            load(scene, path)
        scene.assert_nothing_happened()
    outcome = predict_command(scene, path)
    scene.assert_nothing_happened(outcome)
    assert "safe to load" in outcome.error


@pytest.mark.parametrize("entry", ["spinlock predict", "spinlock fit"])
def test_a_checkpoint_from_elsewhere_is_not_unpickled(scene, good_checkpoint, entry, monkeypatch):
    """Lightning unpickles what it downloads unless it is told otherwise."""
    asked = []

    def download(url, *, weights_only=False, **options):
        asked.append(weights_only)
        return copied(good_checkpoint)

    class Elsewhere:
        """A file system in which everything is there."""

        def exists(self, path):
            return True

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    files = "lightning.fabric.plugins.io.torch_io.get_filesystem"
    monkeypatch.setattr(files, lambda path: Elsewhere())
    outcome = RESUMING[entry](scene, "http://localhost/model.ckpt")
    assert outcome.error or asked
    assert all(asked)


@pytest.mark.parametrize("entry", RESUMING)
def test_a_good_checkpoint_is_accepted(scene, good_checkpoint, entry):
    outcome = RESUMING[entry](scene, write_checkpoint(scene, good_checkpoint))
    assert outcome.error == ""
    assert (scene.folder / "tokens.h5").exists() == (entry == "spinlock predict")


def test_a_good_checkpoint_loads(scene, good_checkpoint):
    path = write_checkpoint(scene, good_checkpoint)
    module = SpinlockDataModule.load_from_checkpoint(path, path=str(scene.data))
    module.setup()
    assert module.generation == CONFIG
    model = FeatureVQVAE.load_from_checkpoint(path)
    assert model.hparams["latent_dim"] == 2


# ------------------------------------------------------------------------- other stored attributes

NO_CHECKS = CheckReport(())
ATTRIBUTES = ("package_versions", "device", "design_quality", "run_summary")
VALUES = {
    "list": "[]",
    "list of text": '["a"]',
    "number": "5",
    "null": "null",
    "text": '"text"',
    "mapping": "{}",
    "mapping of text": '{"seconds": "a", "computed_samples": "b", "centered_l2_discrepancy": []}',
    "list of lists": "[[1, 2]]",
    "huge number": "9" * 5000,
    "deep": "[" * 20_000 + "]" * 20_000,
    "no JSON": "{",
    "surrogates": r'[{"name": "\ud800", "type": "\udfff"}]',
}


@pytest.mark.parametrize("value", VALUES)
def test_attributes_of_other_kinds_are_no_crash(scene, original, value, no_figures):
    problems = {}
    for name in ATTRIBUTES:
        shutil.copy(original, scene.data)
        with h5py.File(scene.data, "r+") as file:
            file.attrs[name] = VALUES[value]
            seal(file, CONFIG)
        page = scene.folder / f"{name}.html"
        actions = [
            lambda: scene.type("info", scene.data),
            lambda: scene.run(lambda: read_info(scene.data)),
            lambda p=page: scene.run(lambda: write_report(scene.data, p, checks=NO_CHECKS)),
        ]
        if name == "device" and value in ("number", "mapping of text", "list of lists"):
            longer = dataclasses.replace(CONFIG, num_samples=13)
            actions.append(
                lambda c=longer: scene.run(lambda: generate(c, scene.data, progress=False))
            )
        for action in actions:
            try:
                # What a terminal can take.
                action().text.encode()
            except Exception as error:
                problems[name] = f"{type(error).__name__}: {error}"
    assert not problems


@pytest.mark.parametrize("name", ["configuration", "fingerprint", "schema_version", *ATTRIBUTES])
def test_attributes_that_are_no_text_are_refused(scene, name):
    with h5py.File(scene.data, "r+") as file:
        file.attrs[name] = np.arange(3)
        seal(file, CONFIG)
    entries = ("info", "read_info", "setup", "generate")
    try_all(scene, entries, lambda entry, outcome: "" if name in outcome.error else "not named")


@pytest.mark.parametrize("place", ["configuration", "fingerprint", "names", "data"])
def test_types_that_numpy_lacks_are_refused(scene, place):
    """HDF5 has a type of times, which h5py cannot read."""
    name, number = schema.PER_TIMESTEP, h5t.UNIX_D32LE
    with h5py.File(scene.data, "r+") as file:
        if place == "data":
            del file[name]
            h5d.create(file.id, name.encode(), number, h5s.create_simple((12, 1, 46)))
        else:
            holder = file[name] if place == "names" else file
            del holder.attrs[place]
            h5a.create(holder.id, place.encode(), number, h5s.create(h5s.SCALAR))
    entries = ("check", "prepare_data", "setup", "extract-features")
    try_all(scene, entries, lambda entry, outcome: "" if outcome.error else "accepted")


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "$\\frac{$", "\x1b]0;owned\x07"],
    ids=["markup", "formula", "escape"],
)
def test_names_of_variants_are_text(scene, name):
    """On a page, in a figure and on a terminal."""
    conditions = {
        "weights": {name: 1.0},
        "custom": {name: {"class_path": f"{scene.module}.Stripes"}},
    }
    with pytest.raises(ConfigurationError, match="names must be ASCII letters, digits"):
        GenerationConfig.from_dict(settings() | {"initial_conditions": conditions})


def test_a_page_holds_no_markup_of_the_file(scene, no_figures):
    markup = "<script>alert(1)</script>"
    with h5py.File(scene.data, "r+") as file:
        for name in ("package_versions", "device"):
            file.attrs[name] = json.dumps([{markup: markup, "name": markup, "type": markup}])
        file.attrs["fingerprint"] = markup
        file.attrs["run_summary"] = json.dumps({"stage_seconds": {markup: 1.0}})
        custom = {"other": {"class_path": "a.B", "init_args": {"text": markup}}}
        file.attrs["configuration"] = with_mixture(custom=custom)
        file[schema.PER_TIMESTEP].attrs["names"] = [markup] * 46
        file[schema.IC_TYPES][0] = b"<script>"
    page = scene.folder / "report.html"
    write_report(scene.data, page, progress=False)
    assert "<script" not in page.read_text()


def test_labels_that_are_no_text_are_refused(scene, no_figures):
    with h5py.File(scene.data, "r+") as file:
        file[schema.IC_TYPES][3] = b"\xff\xfe\x80"
        reseal(file, CONFIG)
    entries = ("info", "setup", "report", "plot", "export")
    try_all(scene, entries, lambda entry, outcome: "" if outcome.error else "accepted")


# Opens each file in a child, and prints how it ended.
CHILDREN = """
import json, os, sys
from spinlock.checks import CheckReport, check_dataset
from spinlock.errors import SpinlockError
from spinlock.generation.feature_extraction import extract_features
from spinlock.commands.command_line import main
import spinlock.datamodules, spinlock.storage

ended = {}
for name, action, path in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            if action == "read_info":
                spinlock.storage.read_info(path)
            else:
                main([action, path])
        except (SpinlockError, SystemExit):
            os._exit(0)
        except BaseException:
            os._exit(3)
        os._exit(0)
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""

# Where an attribute is, and who reads it.
POINTERS = {
    "configuration": ("/", "configuration", "read_info"),
    "fingerprint": ("/", "fingerprint", "info"),
    "schema_version": ("/", "schema_version", "info"),
    "run_summary": ("/", "run_summary", "info"),
    "checked": ("/", "design_quality", "check"),
    "names": (schema.PER_TIMESTEP, "names", "check"),
    "verified": (schema.PER_TIMESTEP, "names", "extract-features"),
    "the user's own": ("/", "note", "extract-features"),
    "the user's own, of a dataset": (schema.PARAMS, "note", "extract-features"),
}


@pytest.fixture(scope="module")
def endings(original, tmp_path_factory):
    """How readers of attributes end whose type h5py takes for pointers to Python objects.

    h5py reads the tag of an opaque type, ``NUMPY:|O``, as a dtype: the bytes in the file become the
    address of a Python object.
    """
    folder, cases = tmp_path_factory.mktemp("pointers"), []
    for number, (name, (where, attribute, action)) in enumerate(POINTERS.items()):
        path = folder / f"{number}.h5"
        shutil.copy(original, path)
        with h5py.File(path, "r+") as file:
            file[schema.PER_TIMESTEP][0, 0, 0] += 1.0
            reseal(file, CONFIG)
            if attribute in file[where].attrs:
                del file[where].attrs[attribute]
            kind = h5t.create(h5t.OPAQUE, 8)
            kind.set_tag(b"HARMLESS")
            made = h5a.create(file[where].id, attribute.encode(), kind, h5s.create(h5s.SCALAR))
            made.write(np.array(np.void(b"A" * 8)), mtype=kind)
        content = path.read_bytes()
        assert content.count(b"HARMLESS") == 1
        path.write_bytes(content.replace(b"HARMLESS", b"NUMPY:|O"))
        cases.append((name, action, str(path)))
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, json.dumps(cases)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", POINTERS)
def test_bytes_of_a_file_are_not_taken_for_objects(endings, name):
    assert endings[name] != -signal.SIGSEGV, "an address from the file was followed"
    assert endings[name] == 0
