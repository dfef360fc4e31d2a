"""Lightning's command line, changed to read checkpoints as data and to say what a run has done."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningCLI

from spinlock.callbacks import TokenWriter
from spinlock.commands.closing_table import closing_table, codebook_command, dataset_of
from spinlock.commands.fit_progress import FitProgress
from spinlock.commands.trainer_parser import TrainerParser
from spinlock.configuration.import_path import imported
from spinlock.configuration.validation import check_arguments
from spinlock.errors import ConfigurationError, DatasetError, SpinlockError, in_a_line
from spinlock.models.resumable import ResumableModule, prepare_to_restore
from spinlock.runtime.checkpoint_file import check_checksums
from spinlock.runtime.local_paths import is_url, local_path
from spinlock.storage.hdf5_access import is_refusal

_LOG = logging.getLogger(__name__)
# Module of Lightning that restores checkpoints.
_RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
# Characters of an error of another package.
_LONGEST = 500


class TrainerCLI(LightningCLI):
    """Lightning's command line, which reads the arguments of models from checkpoints as data.

    Lightning passes the arguments in a checkpoint to its parser, which instantiates every class
    that they name. This class first checks them against the model's annotations, which allow only
    numbers, text and settings of the model. It ignores the arguments of models from other packages,
    which are then configured by the yaml file alone. Checkpoints, including those at a URL, are
    loaded with ``weights_only=True`` unless the user sets ``--weights_only false``; the arguments
    in the checkpoint are then ignored too.

    A model of this package that is not trained is not validated, tested or applied: these commands
    need ``--ckpt_path``, and warn about other models without it. ``fit`` ends with the table of
    `closing_table`.

    Args:
        command: Only subcommand; default: all. The options of each take a tenth of a second or more
            to list.
        options: Arguments of Lightning's command line.
    """

    def __init__(self, *arguments: Any, command: str = "", **options: Any) -> None:  # noqa: ANN401
        self._command = command
        super().__init__(*arguments, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the subcommands, and which arguments of the trainer's methods are no options."""
        known: dict[str, set[str]] = super().subcommands()
        return {self._command: known[self._command]} if self._command else known

    def before_instantiate_classes(self) -> None:
        """Check that there is a checkpoint to apply, and leave the configuration to the file.

        Raises:
            ConfigurationError: If a command other than ``fit`` has no checkpoint.
        """
        command = self.config["subcommand"]
        settings = self.config[command]
        model = str(settings.model.get("class_path"))
        if command != "fit" and settings.get("ckpt_path") is None:
            name = model.rpartition(".")[2]
            if model.startswith("spinlock."):
                raise ConfigurationError(
                    f"{command}: {name} is not trained; name a checkpoint with --ckpt_path FILE, "
                    "such as lightning_logs/version_0/checkpoints/NAME.ckpt"
                )
            _LOG.warning("%s: %s keeps its initial weights without --ckpt_path FILE", command, name)
        parser = self._parser(command)
        if isinstance(parser, TrainerParser) and parser.of_file:
            settings["data"]["generation"] = None

    def instantiate_classes(self) -> None:
        """Make the model, the data module and the trainer.

        Raises:
            SpinlockError: If a class of this package refuses an argument.
        """
        try:
            super().instantiate_classes()
        except Exception as error:
            # jsonargparse hides it in an error that shows all arguments.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, SpinlockError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 (Lightning's)
        """Make the trainer, with a progress bar that shows scores unless one is given."""
        settings = self._get(self.config_init, "trainer")
        given = settings["callbacks"] or []
        given = given if isinstance(given, list) else [given]
        if settings["enable_progress_bar"] in (None, True) and not any(
            isinstance(callback, ProgressBar) for callback in given
        ):
            kwargs["callbacks"] = [*given, FitProgress()]
        if self.config["subcommand"] == "predict":
            # Nothing is logged, so that there is no folder of logs, and no configuration in it.
            kwargs["logger"], self.save_config_callback = False, None
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError) as error:
            if isinstance(error, SpinlockError):
                raise
            raise ConfigurationError(f"trainer: {_shortened(error)}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the trainer's method; a checkpoint that cannot be restored is an error of one line.

        Raises:
            DatasetError: If Lightning cannot restore the checkpoint.
        """
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            if isinstance(error, SpinlockError) or not _is_raised_by(error, _RESTORING):
                raise
            path = self._get(self.config_init, "ckpt_path")
            raise DatasetError(
                f"{path}: the checkpoint is damaged, or is not that of this model and trainer: "
                f"{_shortened(error)}"
            ) from error

    def after_fit(self) -> None:
        """Print scores, files, and commands to try next."""
        text = closing_table(self.trainer)
        if self.trainer.is_global_zero:
            print(text, flush=True)

    def after_predict(self) -> None:
        """Print the file of tokens."""
        dataset = dataset_of(self.trainer)
        # Lightning does not declare the attribute.
        for writer in vars(self.trainer)["callbacks"]:
            if isinstance(writer, TokenWriter) and self.trainer.is_global_zero:
                print(f"\nTokens are in {writer.path}")
                if dataset is not None:
                    command = codebook_command(writer.path, dataset)
                    print(f"Next\n  {command}", flush=True)

    def _parse_ckpt_path(self) -> None:
        subcommand = self.config.get("subcommand")
        if not subcommand:
            return
        settings = self.config[subcommand]
        if settings.get("weights_only") is None:
            settings["weights_only"] = True
        path = settings.get("ckpt_path")
        if path:
            path = settings["ckpt_path"] = path if is_url(path) else str(local_path(path))
        if not settings["weights_only"] or not path or not Path(path).is_file():
            return
        model = model_of_checkpoint(Path(path))
        if model is not None:
            given = {subcommand: {"model": model}}
            self.config = self.parser.parse_object(given, self.config)


def _shortened(error: BaseException) -> str:
    text = in_a_line(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _is_raised_by(error: BaseException, module: str) -> bool:
    """Whether an error was raised by a module, or by what it called."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == module:
            return True
        trace = trace.tb_next
    return False


class CheckpointPaths(Callback):
    """Applies `prepare_to_restore` to the checkpoint of any model.

    Example:
        >>> callbacks = [CheckpointPaths()]  # an argument of a trainer
    """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check states; Lightning calls this before it restores the first callback or loop."""
        prepare_to_restore(checkpoint, trainer)


def model_of_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the model of a checkpoint in the form that a yaml file uses.

    Args:
        path: Checkpoint file.

    Returns:
        ``class_path`` and ``init_args``, or None if it is not a model of this package.

    Raises:
        DatasetError: If the checkpoint is damaged, or contains anything but tensors and plain data.
        ConfigurationError: If an argument is unknown or has another type than the model's. Names
            the argument.
    """
    check_checksums(path)
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        if is_refusal(error):
            raise
        # Damaged bytes make the unpickler fail in any way.
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
