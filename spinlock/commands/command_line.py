"""The command line: Lightning's subcommands, and commands that do not need a trainer.

``spinlock fit | validate | test | predict`` use LightningCLI with a yaml file of ``trainer``,
``model`` and ``data``. Each other command is a module of `spinlock.commands`, which is imported
only when the command is run, so that commands start quickly.
"""

import importlib
import logging
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import yaml

_HELP = """usage: spinlock COMMAND ...

  fit | validate | test | predict   train or apply a model: spinlock fit --config FILE;
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
    else:
        if arguments[0] == "predict":
            arguments = _with_token_writer(arguments)
        if args is None:
            # LightningCLI warns if it receives arguments other than those of the process.
            sys.argv[1:] = arguments
        _run_trainer(None if args is None else arguments)


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

    check_output(known.out)
    writer = ["--trainer.callbacks+=spinlock.callbacks.TokenWriter"]
    # The predictions are in the file and need not be kept in memory.
    return [*others, *writer, f"--trainer.callbacks.path={known.out}", "--return_predictions=false"]


def _run_trainer(arguments: list[str] | None) -> None:
    # Imported here because Lightning takes seconds to import.
    from lightning import LightningDataModule, LightningModule

    from spinlock.commands.trainer_cli import CheckpointPaths, ConfigWriter, TrainerCLI
    from spinlock.datamodules import SpinlockDataModule

    by_class = _chooses_data_module(sys.argv[1:] if arguments is None else arguments)
    TrainerCLI(
        LightningModule,
        LightningDataModule if by_class else SpinlockDataModule,
        subclass_mode_model=True,
        subclass_mode_data=by_class,
        parser_kwargs={"allow_abbrev": False},
        save_config_callback=ConfigWriter,
        trainer_defaults={"callbacks": CheckpointPaths()},
        args=arguments,
    )


def _chooses_data_module(arguments: Sequence[str]) -> bool:
    """Return whether the arguments or a yaml file choose the data module by ``class_path``."""
    parser = ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("-c", "--config", type=Path, action="append", default=[])
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--data.class_path", dest="class_path")
    known = parser.parse_known_args(arguments)[0]
    # Lightning reports files that are missing.
    contents = [yaml.safe_load(path.read_text()) for path in known.config if path.is_file()]
    sections = [content.get("data") for content in contents if isinstance(content, dict)]
    # The option holds the section itself, a file that holds it, or the name of a class.
    texts = [Path(text).read_text() if os.path.isfile(text) else text for text in known.data]
    sections += [yaml.safe_load(text) for text in texts]
    return known.class_path is not None or any(
        isinstance(section, str) or (isinstance(section, dict) and "class_path" in section)
        for section in sections
    )
