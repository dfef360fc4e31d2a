"""Configurations that a stranger may write into a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from spinlock.configuration import StoredConfig
from spinlock.errors import SpinlockError
from spinlock.storage import schema
from spinlock.storage.dimensions import dataset_scales, scale_name
from tests.helpers import reseal, seal
from tests.untrusted.scene import CONFIG, SETTINGS, Scene


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
                scale = dataset_scales(config)[scale_name(spec.name, "feature")]
                file.create_dataset(scale.name, data=list(scale.values), dtype=scale.dtype)
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


def with_axes(operator: dict[str, str], **axes: object) -> str:
    space = settings()["parameter_space"] | {"operator_axes": axes}
    return with_settings(operator=operator, parameter_space=space)


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
        "axis of a family without axes": (
            with_space(operator_axes={"gain": [1, 2]}),
            "unknown axis 'gain'",
        ),
        "list as the kind of an axis": (
            with_axes(operator, gain={"kind": ["x"], "low": 0, "high": 1}),
            "operator_axes.gain",
        ),
        "lists as values of an axis": (with_axes(operator, gain=[[1], [2]]), "operator_axes.gain"),
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


FORMS = {"stale digests": False, "new digests": True}


def forms(attacks):
    """Attacks in both forms; most of them with new digests only, to save time."""
    found = [(attack, "new digests") for attack in names(attacks)]
    return [*found, *((attack, "stale digests") for attack in names(attacks)[::4])]
