"""Damages and forges checkpoints, and applies, resumes and loads them.

Nothing that a checkpoint names may be imported, unpickled or run.
"""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.faults.byte_mutations import byte_mutations
from benchmarks.faults.files import SINGLE
from benchmarks.faults.processes import Outcome, command, observe
from benchmarks.faults.verdicts import Tally, changes, problems_of, snapshot
from spinlock.generation.build import generate
from tests.helpers import dataset_contents

_OPTIONS = {"batch_size": 4, "val_fraction": 0.3, "test_fraction": 0.3, "progress": False}
_MODEL = {
    "class_path": "spinlock.models.FeatureVQVAE",
    "init_args": {
        "latent_dim": 2,
        "hidden_dims": [4],
        "codebook_size": 4,
        "loss": {"other_probe": 0.0, "alignment": 0.0},
    },
}
_TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 2,
}
# Values for any entry of a checkpoint.
_VALUES: tuple[Any, ...] = (
    *(None, -1, 0, 2**40, 2**80, 1e308, float("nan"), "", "\x1b[31m", "../../a", [], {}, True),
    *({"class_path": "os.system"}, [[[]]], "9" * 5000, "/etc/passwd", b"\xff\xfe", (1, 2)),
)


_READERS = ("predict", "validate", "fit")


class _Marks:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def try_checkpoints(folder: Path, seed: int, share: float) -> Tally:
    """Try damaged and forged checkpoints."""
    tally = Tally("checkpoints")
    home = folder / "home"
    home.mkdir()
    generate(SINGLE, home / "a.h5", progress=False)
    (home / "a.h5.lock").unlink(missing_ok=True)
    data = {"path": "a.h5", "generation": json.loads(SINGLE.to_json()), **_OPTIONS}
    run = {"data": data, "model": _MODEL, "trainer": _TRAINER}
    (home / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    made = command("fit", "--config", "run.yaml", "--trainer.max_epochs=1")
    outcome = observe(made, home, seconds=120)
    found = sorted(home.rglob("*.ckpt"))
    if not found:
        tally.fault(f"no checkpoint is written: {outcome.err[-500:]}")
        return tally
    good = folder / "good.ckpt"
    shutil.move(found[0], good)
    shutil.rmtree(home / "checkpoints", ignore_errors=True)
    results: dict[str, object] = {}
    for _ in range(2):
        results |= _try(tally, home, "undamaged", good.read_bytes(), {})
    if len(results) < 3:
        tally.fault(f"the undamaged checkpoint is refused by some of {_READERS}")
    mutations = byte_mutations(seed, round(60 * share) or 1, [])
    for name, change in mutations.items():
        content = bytearray(good.read_bytes())
        change(content)
        _try(tally, home, name, bytes(content), results)
    for name, content in _forgeries(good, seed, folder, round(60 * share) or 1):
        _try(tally, home, name, content, {})
    return tally


def _try(
    tally: Tally, home: Path, name: str, content: bytes, expected: dict[str, object]
) -> dict[str, object]:
    """Apply a checkpoint, and either validate or resume it.

    Args:
        tally: Counts and faults.
        home: Folder with the dataset and the settings.
        name: Description of the change to the checkpoint.
        content: The checkpoint.
        expected: Results of readers, which a checkpoint that is not refused must have.

    Returns:
        Results of the readers that succeeded.
    """
    tally.trials += 1
    place = home.parent / "trial"
    shutil.copytree(home, place)
    (place / "a.ckpt").write_bytes(content)
    config = ("--config", "run.yaml", "--ckpt_path", "a.ckpt")
    quiet = "--trainer.enable_checkpointing=false"
    runs: dict[str, Callable[[], object]] = {
        "predict": command("predict", *config, "--out", "tokens.h5"),
        "validate": command("validate", *config),
        "fit": command("fit", *config, quiet),
    }
    results: dict[str, object] = {}
    second = ("validate", "fit")[tally.trials % 2]
    for reader in ("predict", second):
        before = snapshot(place)
        outcome = observe(runs[reader], place)
        problems = problems_of(outcome)
        # Lightning writes the configuration before it restores the checkpoint.
        allowed = {"leaves config.yaml", "leaves config-v1.yaml"} if reader != "predict" else set()
        if outcome.status == 0:
            allowed |= {"leaves tokens.h5"} if reader == "predict" else set()
            results[reader] = _result(reader, place, outcome)
            if results[reader] != expected.get(reader, results[reader]):
                problems.append("succeeds with other results than the undamaged checkpoint")
        problems += sorted(set(changes(before, snapshot(place))) - allowed)
        if (home.parent / "marked").exists():
            problems.append("something in it was unpickled")
            (home.parent / "marked").unlink()
        tally.note(f"{name}, {reader}", outcome, problems)
    shutil.rmtree(place)
    return results


def _result(reader: str, place: Path, outcome: Outcome) -> object:
    """Return the tokens that a checkpoint gives, or the scores that are printed."""
    if reader == "predict":
        return dataset_contents(place / "tokens.h5")
    return outcome.out


def _forgeries(good: Path, seed: int, folder: Path, count: int) -> list[tuple[str, bytes]]:
    """Return changed checkpoints with valid bytes, by what was changed."""
    draws = random.Random(seed)
    checkpoint = torch.load(good, weights_only=True)
    paths = sorted(_paths(checkpoint), key=str)
    found = []
    for number in range(count):
        path, value = draws.choice(paths), _VALUES[number % len(_VALUES)]
        title = f"{number}: {str(value)[:12]!r} as {'.'.join(map(str, path))}"
        found.append((title, _saved(good, folder, path, value)))
    state = [path for path in paths if path[0] == "state_dict" and len(path) == 2]
    tensors: dict[str, Any] = {
        "a tensor of 2^40 values": torch.zeros(1).expand(2**40),
        "NaN": torch.tensor(float("nan")),
        "an empty tensor": torch.empty(0),
        "integers": torch.ones(3, dtype=torch.int64),
        "complex numbers": torch.ones(3, dtype=torch.complex64),
        "a sparse tensor": torch.eye(3).to_sparse(),
        "something that runs when unpickled": _Marks(folder / "marked"),
    }
    for name, tensor in tensors.items():
        path = draws.choice(state)
        found.append((f"{name} as {'.'.join(path)}", _saved(good, folder, path, tensor)))
    marks = pickle.dumps(_Marks(folder / "marked"))
    return [*found, ("a pickle", marks), ("nothing", b""), ("a text", b"checkpoint\x1b[31m")]


def _saved(good: Path, folder: Path, path: tuple[Any, ...], value: object) -> bytes:
    checkpoint = torch.load(good, weights_only=True)
    holder = checkpoint
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    torch.save(checkpoint, folder / "forged.ckpt")
    return (folder / "forged.ckpt").read_bytes()


def _paths(values: dict[Any, Any], path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all entries of nested dictionaries."""
    found = []
    for key, value in values.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += _paths(value, (*path, key))
    return found
