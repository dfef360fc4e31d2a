"""The command line: Lightning's subcommands, and those that need no trainer.

``spinlock fit | validate | test | predict`` run through LightningCLI on a yaml of ``trainer``,
``model`` and ``data``. The others are the modules of `spinlock.commands`, imported when asked for,
so that none waits for what only another needs.
"""

import importlib
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

_HELP = """usage: spinlock COMMAND ...

  fit | validate | test | predict   run a trainer on a yaml: spinlock fit --config FILE;
                                    predict --out TOKENS.h5 writes the tokens of all samples
  generate                          build the dataset of a yaml: spinlock generate --config FILE
  info                              describe a dataset or an unfinished run: spinlock info FILE
  check                             measure every claim about a dataset: spinlock check FILE
  report                            the same with pictures on one page: spinlock report FILE
  plot                              save one sample as a PNG: spinlock plot FILE --sample I
  export                            write another layout: spinlock export FILE --format well
  extract-features                  compute features again: spinlock extract-features FILE

spinlock COMMAND --help tells the options of a command.
"""

# Command -> the module whose `run` takes its arguments.
_COMMANDS = {
    name: f"spinlock.commands.{name.replace('-', '_')}"
    for name in ("generate", "info", "check", "report", "plot", "export", "extract-features")
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments after the program's name; by default those of the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("spinlock").setLevel(logging.INFO)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments[0] in _COMMANDS:
        importlib.import_module(_COMMANDS[arguments[0]]).run(arguments[1:])
    else:
        if arguments[0] == "predict":
            arguments = _with_token_writer(arguments)
        if args is None:
            # LightningCLI reads the process's own arguments without a warning.
            sys.argv[1:] = arguments
        _run_trainer(None if args is None else arguments)


def _with_token_writer(arguments: list[str]) -> list[str]:
    """``predict --out FILE`` is short for a `spinlock.callbacks.TokenWriter` among the callbacks."""
    parser = ArgumentParser(prog="spinlock predict", allow_abbrev=False, add_help=False)
    parser.add_argument("--out")
    known, others = parser.parse_known_args(arguments)
    if known.out is None:
        return arguments
    # Imported here: it takes longer than the rest of this module.
    from spinlock.runtime.output_files import check_output

    check_output(known.out)
    writer = ["--trainer.callbacks+=spinlock.callbacks.TokenWriter"]
    # The file holds them: there is no need to keep them in memory too.
    return [*others, *writer, f"--trainer.callbacks.path={known.out}", "--return_predictions=false"]


def _run_trainer(arguments: list[str] | None) -> None:
    # Imported here: Lightning takes seconds to import.
    from lightning import LightningModule

    from spinlock.commands.trainer_cli import ConfigWriter, TrainerCLI
    from spinlock.datamodules import SpinlockDataModule

    TrainerCLI(
        LightningModule,
        SpinlockDataModule,
        subclass_mode_model=True,
        parser_kwargs={"allow_abbrev": False},
        save_config_callback=ConfigWriter,
        args=arguments,
    )
