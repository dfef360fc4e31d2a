"""Settings of the experiments in configs/experiments/experiments.yaml."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Settings = dict[str, Any]

TABLE: Settings = yaml.safe_load(
    (Path(__file__).parents[1] / "configs" / "experiments" / "experiments.yaml").read_text()
)
# What the settings of a small run are divided by. Smaller batches leave it several steps an epoch.
_SMALL = {"num_samples": 20, "batch_size": 8, "max_epochs": 5}


def experiments() -> list[str]:
    """Names of all experiments."""
    return list(TABLE["experiments"])


def settings(name: str) -> Settings:
    """Settings of an experiment, nested as in a yaml file for ``spinlock fit``."""
    result = TABLE["base"]
    for changes in _changes(name):
        result = merged(result, changes)
    return deepcopy(result)


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """Nested settings with changes applied; ``key+`` appends to the list ``key``."""
    result = dict(before)
    for key, value in changes.items():
        name, old = key.removesuffix("+"), before.get(key.removesuffix("+"))
        if name != key:
            result[name] = old + value
        elif isinstance(value, dict) and isinstance(old, dict):
            result[name] = merged(old, value)
        else:
            result[name] = value
    return result


def of_data_seed(given: Settings, data_seed: int) -> Settings:
    """Settings whose data are generated with another seed, into a file of their own."""
    path = Path(given["data"]["path"])
    changes = {"path": str(path.with_stem(f"{path.stem}-{data_seed}"))}
    return merged(given, {"data": {**changes, "generation": {"seed": data_seed}}})


def small(given: Settings) -> Settings:
    """Settings of a small run, whose data are in a file of their own."""
    data, path = given["data"], Path(given["data"]["path"])
    generation = {"num_samples": data["generation"]["num_samples"] // _SMALL["num_samples"]}
    changes = {
        "data": {
            "path": str(path.with_stem(f"{path.stem}-small")),
            "batch_size": data["batch_size"] // _SMALL["batch_size"],
            "generation": generation,
        },
        "trainer": {"max_epochs": given["trainer"]["max_epochs"] // _SMALL["max_epochs"]},
    }
    return merged(given, changes)


def costs() -> str:
    """A table of the experiments: their data, and the time that a run takes."""
    lines = [["experiment", "data", "samples", "MB", "generation", "training"]]
    for name in experiments():
        data, measured = settings(name)["data"], TABLE["measured"]
        kind = Path(data["path"]).stem
        made = measured["data"][kind]
        lines.append(
            [
                name,
                kind,
                f"{data['generation']['num_samples']:,}",
                f"{made['megabytes']}",
                f"{made['minutes']} min",
                f"{measured['training_minutes'].get(name, 1)} min",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([*rows, "", TABLE["measured"]["conditions"]])


def _changes(name: str) -> Iterator[Settings]:
    """The changes to the base that an entry of the table stands for, in order."""
    entry = dict({**TABLE["groups"], **TABLE["experiments"]}[name])
    for other in entry.pop("use", []):
        yield from _changes(other)
    yield entry
