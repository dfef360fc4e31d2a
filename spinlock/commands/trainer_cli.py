"""Lightning's command line, reading checkpoints as data and overwriting nothing."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from spinlock.configuration.import_path import imported
from spinlock.configuration.validation import check_arguments
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.runtime.output_files import unused_path


class TrainerCLI(LightningCLI):
    """Lightning's command line, which reads the arguments of models from checkpoints as data.

    Lightning gives the arguments that a checkpoint holds to its parser, which makes every class
    that they name. Here they are checked against the annotations of the model first, which allow
    numbers, text and settings of the model only; and arguments of other models stay unread: those
    follow from the yaml file alone. Checkpoints at a URL, too, load with ``weights_only=True``
    unless the user says otherwise.
    """

    def _parse_ckpt_path(self) -> None:
        subcommand = self.config.get("subcommand")
        if not subcommand:
            return
        settings = self.config[subcommand]
        if settings.get("weights_only") is None:
            settings["weights_only"] = True
        path = settings.get("ckpt_path")
        if not path or not Path(path).is_file():
            return
        model = model_of_checkpoint(Path(path))
        if model is not None:
            given = {subcommand: {"model": model}}
            self.config = self.parser.parse_object(given, self.config)


class ConfigWriter(SaveConfigCallback):
    """Saves the configuration of a run in its log folder, under a name that is not taken.

    The name is ``config.yaml``, or else ``config-v1.yaml`` and so on: without a logger, the log
    folder may be the one that holds the yaml file of the run itself.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the name, and save."""
        # Every process asks for the folder, since they agree on one.
        folder = trainer.log_dir
        if folder is not None and not self.already_saved:
            self.config_filename = unused_path(Path(folder) / "config.yaml").name
        super().setup(trainer, pl_module, stage)


def model_of_checkpoint(path: Path) -> dict[str, Any] | None:
    """The model of a checkpoint, as a yaml file would name it.

    Args:
        path: Checkpoint.

    Returns:
        ``class_path`` and ``init_args``, or None if it is not a model of this package.

    Raises:
        DatasetError: If the checkpoint holds more than tensors and plain data.
        ConfigurationError: If an argument is unknown or has another type than the model's. Names
            the argument.
    """
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{path} is not a checkpoint that is safe to load: {reason}") from error
    arguments = held.get("hyper_parameters") if isinstance(held, Mapping) else None
    if not isinstance(arguments, Mapping):
        return None
    class_path = arguments.get("_class_path")
    if not (isinstance(class_path, str) and class_path.startswith("spinlock.")):
        return None
    model = imported(class_path, f"{path}: _class_path", trusted=())
    if not (isinstance(model, type) and issubclass(model, LightningModule)):
        raise ConfigurationError(f"{path}: {class_path} is not a LightningModule")
    # Names that begin with an underscore are Lightning's own.
    init_args = {name: value for name, value in arguments.items() if not name.startswith("_")}
    try:
        check_arguments(model.__init__, init_args)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: the model's argument {error}") from error
    return {"class_path": class_path, "init_args": init_args}
