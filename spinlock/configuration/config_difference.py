"""Describes the settings in which the configurations of two datasets differ."""

import json

from spinlock.configuration.generation_config import GenerationConfig


def explain_difference(theirs: GenerationConfig, ours: GenerationConfig) -> str:
    """Describe the settings in which two datasets differ.

    Args:
        theirs: Configuration of a file or a checkpoint.
        ours: Requested configuration.

    Example:
        >>> explain_difference(GenerationConfig(4, seed=1), GenerationConfig(8, seed=2))
        'seed: 1 there, 2 asked for'
    """
    one, two = (_flattened("", json.loads(config.to_json())) for config in (theirs, ours))
    packing = (f"storage.{name}" for name in ("compression", "shard_size", "layout"))
    ignored = ("num_samples", *packing)
    keys = [k for k in dict.fromkeys((*one, *two)) if one.get(k) != two.get(k) and k not in ignored]
    if keys:
        return "; ".join(
            f"{_shown(key)}: {_shown(one.get(key))} there, {_shown(two.get(key))} asked for"
            for key in keys
        )
    orders = [list(config.initial_conditions.weights) for config in (theirs, ours)]
    if orders[0] != orders[1]:
        # The order decides which variant a coordinate of the design stands for.
        return f"order of initial_conditions.weights: {orders[0]} there, {orders[1]} asked for"
    return "the versions of the simulation differ"


def _flattened(prefix: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        path: leaf
        for key, item in value.items()
        for path, leaf in _flattened(f"{prefix}.{key}" if prefix else key, item).items()
    }


def _shown(value: object) -> str:
    """Return a value as text without control characters."""
    text = str(value)
    return text if text.isprintable() else ascii(text)
