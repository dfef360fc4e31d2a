"""Gives bad settings by yaml file, on the command line and in Python: one line, nothing written."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.bad_settings import BAD, BAD_FILES
from benchmarks.faults.files import SINGLE
from benchmarks.faults.processes import command, observe
from benchmarks.faults.settings_file import settings
from benchmarks.faults.verdicts import Tally, changes, problems_of, snapshot
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import SpinlockError
from spinlock.runtime.progress import printable


def try_configurations(folder: Path, seed: int, share: float) -> Tally:
    """Give each bad setting in all three ways, or in one of them if the share is below 1."""
    tally = Tally("configurations")
    step = max(1, round(1 / share)) if share < 1 else 1
    for number, (key, value) in list(enumerate(BAD))[::step]:
        ways = _ways(key, value)
        chosen = ways if share >= 1 else [ways[(number // step + seed) % len(ways)]]
        for way in chosen:
            _try(tally, folder, f"{key} = {str(value)[:40]!r}, {way}", key, way, value)
    for name, content in list(BAD_FILES.items())[::step]:
        for program in ("generate", "fit"):
            place = _place(folder)
            (place / "run.yaml").write_bytes(content)
            run = command(program, "--config", "run.yaml")
            _judge(tally, place, f"yaml file: {name}, {program}", run, "")
    place = _place(folder)
    os.mkfifo(place / "fifo.yaml")
    for program in ("generate", "fit"):
        _judge(tally, place, f"{program}, FIFO", command(program, "-c", "fifo.yaml"), "", keep=True)
    return tally


def _place(folder: Path) -> Path:
    place = folder / str(sum(1 for _ in folder.iterdir()))
    place.mkdir()
    (place / "loop.h5").symlink_to("loop.h5")
    return place


def _ways(key: str, value: object) -> list[str]:
    """Return the ways in which a setting can be given."""
    # No argument of a command holds NUL, and every text is a path.
    text_only = "\x00" in str(value) or (key == "data.path" and not isinstance(value, str))
    ways = ["yaml"] if text_only else ["yaml", "command line"]
    # A trainer in Python is Lightning's own.
    return ways if key.startswith("trainer.") else [*ways, "Python"]


def _try(tally: Tally, folder: Path, name: str, key: str, way: str, value: object) -> None:
    place = _place(folder)
    program = "generate" if key.startswith("data.") else "fit"
    base = settings("a.h5", SINGLE)
    if program == "fit":
        model = {"class_path": "spinlock.models.FeatureVQVAE", "init_args": {}}
        trainer = {"max_epochs": 1, "accelerator": "cpu", "logger": False}
        base |= {"model": model, "trainer": trainer}
    if way == "Python":
        run = _in_python(base, key, value)
    elif way == "yaml":
        _set(base, key, value)
        (place / "run.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
        run = command(program, "--config", "run.yaml")
    else:
        (place / "run.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
        text = value if isinstance(value, str) else json.dumps(value)
        run = command(program, "--config", "run.yaml", f"--{key}={text}")
    # A path is named as it is; the message need not repeat the key.
    named = "" if key == "data.path" else key.rpartition(".")[2]
    _judge(tally, place, name, run, named)


def _judge(
    tally: Tally,
    place: Path,
    name: str,
    run: Callable[[], object],
    named: str,
    *,
    keep: bool = False,
) -> None:
    tally.trials += 1
    before = snapshot(place)
    outcome = observe(run, place)
    problems = problems_of(outcome) + changes(before, snapshot(place))
    if outcome.status == 0:
        problems.append("succeeds")
    elif not problems and named not in outcome.err:
        problems.append(f"does not name {named}; {outcome.err.strip()[:300]}")
    tally.note(name, outcome, problems)


def _set(values: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _in_python(base: dict[str, Any], key: str, value: object) -> Callable[[], None]:
    def run() -> None:
        from spinlock import SpinlockDataModule
        from spinlock.models import FeatureVQVAE

        given = copy.deepcopy(base)
        _set(given, key, value)
        data = given["data"]
        try:
            config = GenerationConfig.from_dict(data.pop("generation"))
            module = SpinlockDataModule(data.pop("path"), config, **data)
            if key.startswith("data."):
                module.prepare_data()
                module.setup()
            else:
                from lightning import Trainer

                FeatureVQVAE(5, **given["model"]["init_args"])
                Trainer(**given["trainer"])
        except (SpinlockError, TypeError) as error:
            # A TypeError is Python's own answer to an argument that does not exist.
            raise SystemExit(f"spinlock: error: {printable(str(error))}") from error
        except Exception as error:
            if key.startswith("trainer."):
                raise SystemExit(f"spinlock: error: {key}: {error}"[:500].split("\n")[0]) from error
            raise

    return run
