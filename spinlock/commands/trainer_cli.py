"""Lightning's command line, changed to read checkpoints as data and to overwrite no file."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from spinlock.configuration.import_path import imported
from spinlock.configuration.validation import check_arguments
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.models.resumable import ResumableModule, drop_foreign_paths
from spinlock.runtime.output_files import unused_path


class TrainerCLI(LightningCLI):
    """Lightning's command line, which reads the arguments of models from checkpoints as data.

    Lightning passes the arguments in a checkpoint to its parser, which instantiates every class
    that they name. This class first checks them against the model's annotations, which allow only
    numbers, text and settings of the model. It ignores the arguments of models from other packages,
    which are then configured by the yaml file alone. Checkpoints, including those at a URL, are
    loaded with ``weights_only=True`` unless the user sets ``--weights_only false``; the arguments
    in the checkpoint are then ignored too.
    """

    def _parse_ckpt_path(self) -> None:
        subcommand = self.config.get("subcommand")
        if not subcommand:
            return
        settings = self.config[subcommand]
        if settings.get("weights_only") is None:
            settings["weights_only"] = True
        path = settings.get("ckpt_path")
        if not settings["weights_only"] or not path or not Path(path).is_file():
            return
        model = model_of_checkpoint(Path(path))
        if model is not None:
            given = {subcommand: {"model": model}}
            self.config = self.parser.parse_object(given, self.config)


class CheckpointPaths(Callback):
    """Applies `drop_foreign_paths` to the checkpoint of any model before callbacks are restored.

    Example:
        >>> callbacks = [CheckpointPaths()]  # an argument of a trainer
    """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Drop unsafe paths; Lightning calls this before it restores the first callback."""
        drop_foreign_paths(checkpoint, trainer.ckpt_path)


class ConfigWriter(SaveConfigCallback):
    """Saves the configuration of a run in its log folder without replacing a file.

    The file is ``config.yaml``, or ``config-v1.yaml`` and so on if the name is taken: without a
    logger, the log folder may contain the yaml file of the run itself.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the name of the file, and save the configuration."""
        # log_dir is a collective operation, so every process must access it.
        folder = trainer.log_dir
        if folder is not None and not self.already_saved:
            self.config_filename = unused_path(Path(folder) / "config.yaml").name
        super().setup(trainer, pl_module, stage)


def model_of_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the model of a checkpoint in the form that a yaml file uses.

    Args:
        path: Checkpoint file.

    Returns:
        ``class_path`` and ``init_args``, or None if it is not a model of this package.

    Raises:
        DatasetError: If the checkpoint contains anything but tensors and plain data.
        ConfigurationError: If an argument is unknown or has another type than the model's. Names
            the argument.
    """
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DatasetError(
            f"{path} is not a checkpoint that is safe to load: it is damaged, or contains more "
            "than tensors and plain data. If you trust its author, load it with --weights_only "
            "false, which runs code that it contains"
        ) from error
    arguments = held.get("hyper_parameters") if isinstance(held, Mapping) else None
    if not isinstance(arguments, Mapping):
        return None
    class_path = arguments.get("_class_path")
    if not (isinstance(class_path, str) and class_path.startswith("spinlock.")):
        return None
    model = imported(class_path, f"{path}: _class_path", trusted=())
    if not (
        isinstance(model, type)
        and issubclass(model, ResumableModule)
        and model.__module__.startswith("spinlock.")
    ):
        raise ConfigurationError(
            f"{path}: _class_path: {class_path} is not a model of this package"
        )
    # Names of Lightning begin with an underscore. check_arguments refuses names that are not text.
    init_args = {name: value for name, value in arguments.items() if str(name)[:1] != "_"}
    try:
        check_arguments(model.__init__, init_args)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: the model's argument {error}") from error
    return {"class_path": class_path, "init_args": init_args}
