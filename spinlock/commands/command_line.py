"""The command line: Lightning's subcommands, and commands that do not need a trainer.

``spinlock fit | validate | test | predict`` use LightningCLI with a yaml file of ``trainer``,
``model`` and ``data``. Each other command is a module of `spinlock.commands`, which is imported
only when the command is run, so that commands start quickly.
"""

import importlib
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from spinlock.commands.data_sections import (
    Choices,
    config_files,
    with_plain_configs,
    with_whole_operators,
    without_null_generation,
)
from spinlock.commands.file_parser import usage_error
from spinlock.runtime.local_paths import local_path

_HELP = """usage: spinlock COMMAND ...

  fit | validate | test | predict   train or apply a model: spinlock fit --config FILE;
                                    fit --data.path DATASET trains on an existing file;
                                    predict --out TOKENS.h5 writes the tokens of all samples
  generate                          generate the dataset of a yaml: spinlock generate --config FILE
  info                              describe a dataset or an unfinished run: spinlock info FILE
  check                             measure every claim about a dataset: spinlock check FILE
  report                            write one page of checks and plots: spinlock report FILE
  codebook                          write a page that shows what each token means:
                                    spinlock codebook TOKENS.h5 --dataset FILE
  plot                              save a plot of one sample: spinlock plot FILE --sample I
  export                            write another layout: spinlock export FILE --format well
  extract-features                  compute the features again: spinlock extract-features FILE;
                                    --responses adds response features

spinlock COMMAND --help lists the options of a command.
"""

# Module of each command; its function `run` receives the command's arguments.
_COMMANDS = {
    name: f"spinlock.commands.{name.replace('-', '_')}"
    for name in (
        *("generate", "info", "check", "report", "codebook", "plot", "export"),
        "extract-features",
    )
}
_TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments after the name of the program; default: the arguments of the process.

    Example:
        >>> main(["--help"])  # doctest: +ELLIPSIS
        usage: spinlock COMMAND ...
        ...
    """
    arguments = list(sys.argv[1:] if args is None else args)
    _show_log()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments[0] in _COMMANDS:
        importlib.import_module(_COMMANDS[arguments[0]]).run(arguments[1:])
    elif not arguments[0].startswith("-") and arguments[0] not in _TRAINER_COMMANDS:
        usage_error("spinlock", f"there is no command {arguments[0]!r}")
    else:
        arguments = list(with_whole_operators(list(with_plain_configs(arguments))))
        choices = Choices.of(arguments)
        if choices.generation:
            arguments = list(without_null_generation(arguments))
        if choices.path and not choices.by_class:
            arguments = _with_settings_of_the_file(arguments, choices, choices.path)
        if arguments[0] == "predict":
            arguments = _with_token_writer(arguments)
        if args is None:
            # LightningCLI warns if it receives arguments other than those of the process.
            sys.argv[1:] = arguments
        _run_trainer(arguments, choices, of_process=args is None)


def _show_log() -> None:
    """Print the messages of this package to standard error.

    A handler of the root logger would print the messages of Lightning, which has a handler of its
    own, a second time.
    """
    logger = logging.getLogger("spinlock")
    logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())


def _with_token_writer(arguments: list[str]) -> list[str]:
    """Replace ``--out FILE`` of ``predict`` with options that add the callback `TokenWriter`."""
    parser = ArgumentParser(prog="spinlock predict", allow_abbrev=False, add_help=False)
    parser.add_argument("--out")
    known, others = parser.parse_known_args(arguments)
    if known.out is None:
        return arguments
    # Imported here because it takes longer than the rest of this module.
    from spinlock.runtime.output_files import check_output

    check_output(local_path(known.out))
    writer = ["--trainer.callbacks+=spinlock.callbacks.TokenWriter"]
    # The predictions are in the file and need not be kept in memory.
    return [*others, *writer, f"--trainer.callbacks.path={known.out}", "--return_predictions=false"]


def _with_settings_of_the_file(arguments: list[str], choices: Choices, path: str) -> list[str]:
    """Add what a dataset file decides unless the user does: its configuration, a default model.

    Settings of the dataset without a number of samples are compared with those of a file.
    """
    # Imported here because it takes longer than the rest of this module.
    from spinlock.commands.default_run import default_run, stored_generation

    stored: list[str] = []
    if choices.generation:
        stored = [] if choices.num_samples else stored_generation(path)
        if not stored:
            return arguments
    needs_model = arguments[0] == "fit" and not choices.model
    return [arguments[0], *(default_run(path) if needs_model else ()), *stored, *arguments[1:]]


def _run_trainer(arguments: Sequence[str], choices: Choices, *, of_process: bool) -> None:
    # Imported here because Lightning takes seconds to import.
    from lightning import LightningDataModule, LightningModule

    from spinlock.commands.config_writer import ConfigWriter
    from spinlock.commands.framework_messages import without_tips
    from spinlock.commands.trainer_cli import CheckpointPaths, TrainerCLI
    from spinlock.commands.trainer_parser import TrainerParser
    from spinlock.datamodules import SpinlockDataModule

    of_file = not (choices.generation or choices.by_class or {"-h", "--help"} & set(arguments))
    files = config_files(arguments)
    options = {"of_file": of_file, "files": files, "allow_abbrev": False}
    command = arguments[0] if arguments[0] in _TRAINER_COMMANDS else ""
    with without_tips():
        TrainerCLI(
            LightningModule,
            LightningDataModule if choices.by_class else SpinlockDataModule,
            command=command,
            subclass_mode_model=True,
            subclass_mode_data=choices.by_class,
            parser_class=TrainerParser,
            parser_kwargs={
                "prog": "spinlock",
                "command": command,
                **options,
                **{name: dict(options) for name in _TRAINER_COMMANDS if command in ("", name)},
            },
            save_config_callback=ConfigWriter,
            trainer_defaults={"callbacks": CheckpointPaths()},
            args=None if of_process else [*arguments],
        )
