"""Kills commands at random moments: the next run completes the work, with the same digests."""

import dataclasses
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.files import SINGLE, VIRTUAL
from benchmarks.faults.processes import Child, Outcome, command, observe
from benchmarks.faults.settings_file import settings_file
from benchmarks.faults.verdicts import Tally, changes, problems_of, snapshot
from tests.helpers import dataset_contents

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Further attempts to send a signal before a command ends.
_ATTEMPTS = 5
_SHORTER = dataclasses.replace(SINGLE, num_samples=6)


@dataclasses.dataclass(frozen=True)
class Task:
    """A command that is killed and then run again.

    Args:
        name: Name of the command.
        prepare: Function that puts what the command reads into a folder.
        run: The command, run in the folder.
        results: Function that returns what the command made, for comparison.
    """

    name: str
    prepare: Callable[[Path], object]
    run: Callable[[], object]
    results: Callable[[Path], object]


def try_kills(folder: Path, seed: int, share: float) -> Tally:
    """Kill each command with each signal, at moments drawn from the seed."""
    tally = Tally("kills")
    draws = random.Random(seed)
    tasks = _tasks(folder)
    repeats, ended = max(1, round(2 * share)), 0
    for task in tasks if share > 0.1 else tasks[:2]:
        expected, seconds = _undisturbed(tally, folder, task)
        signals = _SIGNALS * repeats if share > 0.1 else _SIGNALS[:1]
        for number, name in enumerate(signals):
            tally.trials += 1
            place = folder / f"{task.name} {number}"
            moment = draws.uniform(0, seconds)
            outcome, sent = _killed(task, place, name, moment)
            for _ in range(_ATTEMPTS):
                if sent:
                    break
                # The command was faster than the undisturbed one.
                shutil.rmtree(place)
                moment *= draws.uniform(0.3, 0.9)
                outcome, sent = _killed(task, place, name, moment)
            title = f"{task.name}, {name.name} after {moment:.2f} s"
            tally.note(title, outcome, _problems_of_kill(outcome, name))
            ended += sent
            _complete(tally, task, place, title, expected)
            shutil.rmtree(place)
    print(f"{ended} of {tally.trials} signals came before the end of the command", flush=True)
    return tally


def _problems_of_kill(outcome: Outcome, name: signal.Signals) -> list[str]:
    """Return what is wrong with the end of a process that was sent a signal."""
    if outcome.status == -name and not outcome.hung:
        return []
    problems = problems_of(outcome)
    if outcome.status > 0 and outcome.status != 128 + name:
        problems.append(f"exit status {outcome.status}, expected {128 + name}; {outcome.err}")
    return problems


def _complete(tally: Tally, task: Task, place: Path, title: str, expected: object) -> None:
    """Run the command again, and compare."""
    if task.name == "export" and (place / "well").exists():
        shutil.rmtree(place / "well")
    outcome = observe(task.run, place)
    problems = problems_of(outcome)
    if outcome.status:
        problems.append(f"cannot be run again; {outcome.err[-300:]}")
    elif task.results(place) != expected:
        problems.append("makes other values when it is run again")
    left = [name for name in snapshot(place) if _is_leftover(name)]
    problems += [f"leaves {name}" for name in left]
    tally.note(f"{title}, then run again", outcome, problems)


def _is_leftover(name: str) -> bool:
    return name.endswith(".tmp") or ".parts" in name or "tmp/" in name


def _undisturbed(tally: Tally, folder: Path, task: Task) -> tuple[object, float]:
    place = folder / f"{task.name} undisturbed"
    place.mkdir()
    task.prepare(place)
    before = snapshot(place)
    outcome = observe(task.run, place)
    problems = problems_of(outcome)
    if outcome.status or not changes(before, snapshot(place)):
        problems.append(f"does nothing: {outcome.err[-300:]}")
    tally.note(f"{task.name}, undisturbed", outcome, problems)
    return task.results(place), outcome.seconds


def _killed(task: Task, place: Path, name: signal.Signals, moment: float) -> tuple[Outcome, bool]:
    """Run a command in a new folder, and return how it ends and whether the signal was sent."""
    place.mkdir()
    task.prepare(place)
    child = Child(task.run, place)
    sent = not child.ends_within(moment)
    if sent:
        os.kill(child.pid, name)
    return child.outcome(), sent


def _tasks(folder: Path) -> list[Task]:
    made = folder / "made"
    made.mkdir()
    config = {
        "single": settings_file(folder / "single.yaml", "a.h5", SINGLE),
        "virtual": settings_file(folder / "virtual.yaml", "a.h5", VIRTUAL),
        "shorter": settings_file(folder / "shorter.yaml", "a.h5", _SHORTER),
    }
    for name in ("single", "shorter"):
        (made / name).mkdir()
        observe(command("generate", "--config", config[name]), made / name)
    (made / "parts").mkdir()
    for part in ("1/2", "2/2"):
        observe(command("generate", "--config", config["single"], "--part", part), made / "parts")

    def prepared(name: str) -> Callable[[Path], object]:
        return lambda place: shutil.copytree(made / name, place, dirs_exist_ok=True)

    def contents(place: Path) -> object:
        return dataset_contents(place / "a.h5")

    def generate(name: str, *more: str) -> Callable[[], object]:
        return command("generate", "--config", config[name], *more)

    return [
        Task("generate", lambda place: None, generate("single"), contents),
        Task("generate virtual", lambda place: None, generate("virtual"), contents),
        Task("assemble", prepared("parts"), generate("single", "--assemble"), contents),
        Task("extend", prepared("shorter"), generate("single"), contents),
        Task("extract-features", _without_responses(made), _extract(), contents),
        Task(
            "export",
            prepared("single"),
            command("export", "a.h5", "--format", "well", "--out", "well"),
            lambda place: _exported(place / "well"),
        ),
    ]


def _extract() -> Callable[[], object]:
    return command("extract-features", "a.h5", "--responses")


def _without_responses(made: Path) -> Callable[[Path], object]:
    """Return a function that copies a dataset without response features, which are then added."""
    folder = made / "plain"
    folder.mkdir()
    config = dataclasses.replace(SINGLE, responses=False)
    settings = settings_file(folder.parent / "plain.yaml", "a.h5", config)
    observe(command("generate", "--config", settings), folder)
    return lambda place: shutil.copytree(folder, place, dirs_exist_ok=True)


def _exported(folder: Path) -> object:
    return {
        str(path.relative_to(folder)): dataset_contents(path)
        for path in sorted(folder.rglob("*.hdf5"))
    }
