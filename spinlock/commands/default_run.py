"""The settings of ``spinlock fit --data.path FILE``, which names a dataset file and no model."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from spinlock.errors import ConfigurationError
from spinlock.runtime.local_paths import local_path
from spinlock.storage import read_info

_LARGEST_BATCH = 256
_EPOCHS = 20
_CALLBACKS = ("FiniteCheck", "CodebookUsage", "ICMutualInformation")


def default_run(arguments: Sequence[str]) -> list[str]:
    """Return options for a small VQ-VAE of what the operators of a dataset do.

    With two or more probes of each operator, the model compares pairs of them, as in
    configs/quickstart.yaml; with one, it only decodes. Options of the user come later and win.

    Args:
        arguments: Arguments of ``fit``, which choose no model.

    Returns:
        Options; none if the arguments name no file.

    Raises:
        DatasetError: If the file is missing or not a dataset.

    Example:
        >>> default_run(["fit", "--trainer.max_epochs=3"])
        []
    """
    parser = ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--data.path", dest="path")
    path = parser.parse_known_args(arguments)[0].path
    if path is None:
        return []
    config = read_info(local_path(path)).config
    if not config.responses:
        raise ConfigurationError(
            f"{path} has no response features, which the default model encodes; add them with "
            f"`spinlock extract-features {path} --responses`, or choose a model with --config FILE"
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
