"""The settings of a ``spinlock fit`` that names a dataset file and no model."""

import json
import shlex
from typing import Any

from spinlock.errors import ConfigurationError, DatasetError
from spinlock.runtime.local_paths import local_path
from spinlock.storage import read_info

_LARGEST_BATCH = 256
_EPOCHS = 20
_CALLBACKS = ("FiniteCheck", "CodebookUsage", "ICMutualInformation")


def default_run(path: str) -> list[str]:
    """Return options for a small VQ-VAE of what the operators of a dataset do.

    With two or more probes of each operator, the model compares pairs of them, as in
    configs/quickstart.yaml; with one, it only decodes. Options of the user come later and win.

    Args:
        path: Dataset file, as the user writes it.

    Returns:
        Options of ``fit``.

    Raises:
        DatasetError: If the file is missing or not a dataset.
        ConfigurationError: If it has no response features.

    Example:
        >>> default_run("missing.h5")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        spinlock.errors.DatasetNotFoundError: missing.h5 does not exist; ...
    """
    config = read_info(local_path(path)).config
    if not config.responses:
        add = f"add them with `spinlock extract-features {shlex.quote(path)} --responses`"
        if config.storage.fields != "all":
            # They are computed from stored fields.
            add = "generate the dataset again, to another path, with `responses: true`"
        raise ConfigurationError(
            f"{path} has no response features, which the default model encodes; {add}, or choose a "
            "model with --config FILE"
        )
    pairs = config.probes_per_operator > 1
    columns = ["responses", "noise"]
    view: dict[str, Any] = {"name": "pairs" if pairs else "responses", "columns": columns}
    if pairs:
        view["selection"] = "invariant"
    # Four batches in an epoch, about.
    batch = min(_LARGEST_BATCH, max(1, config.num_samples // (8 if pairs else 4)))
    model: dict[str, Any] = {"codebook_size": 64}
    if not pairs:
        model["loss"] = {"other_probe": 0.0, "alignment": 0.0}
    names = (*_CALLBACKS, "OperatorConsistency") if pairs else _CALLBACKS
    settings = {
        "seed_everything": 42,
        "data.view": view,
        "data.batch_size": batch,
        "model": {"class_path": "spinlock.models.FeatureVQVAE", "init_args": model},
        "trainer.max_epochs": _EPOCHS,
        "trainer.log_every_n_steps": 1,
        "trainer.callbacks": [{"class_path": f"spinlock.callbacks.{name}"} for name in names],
    }
    return [f"--{name}={json.dumps(value)}" for name, value in settings.items()]


def stored_generation(path: str) -> list[str]:
    """Return an option that sets the configuration of a dataset file, for others to change.

    There is none without a dataset file, or if its configuration names classes, which the parser
    would import.

    Args:
        path: Dataset file, as the user writes it.

    Returns:
        One option, or none.

    Example:
        >>> stored_generation("missing.h5")
        []
    """
    try:
        config = read_info(local_path(path)).config.to_json()
    except DatasetError:
        return []
    return [] if "class_path" in config else [f"--data.generation={config}"]
