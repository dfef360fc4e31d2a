"""The command line: Lightning's subcommands, and those that need no trainer.

``spinlock fit | validate | test | predict`` run through LightningCLI on a yaml of ``trainer``,
``model`` and ``data``. The others are the modules of `spinlock.commands`, imported when asked for,
so that none waits for what only another needs.
"""

import importlib
import logging
import sys
from collections.abc import Sequence

_HELP = """usage: spinlock COMMAND ...

  fit | validate | test | predict   run a trainer on a yaml: spinlock fit --config FILE
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
        # None lets LightningCLI read the process's own arguments, without a warning.
        _run_trainer(None if args is None else arguments)


def _run_trainer(arguments: list[str] | None) -> None:
    # Imported here: Lightning takes seconds to import.
    from lightning import LightningModule
    from lightning.pytorch.cli import LightningCLI

    from spinlock.datamodules import SpinlockDataModule

    LightningCLI(
        LightningModule,
        SpinlockDataModule,
        subclass_mode_model=True,
        parser_kwargs={"allow_abbrev": False},
        save_config_kwargs={"overwrite": True},
        args=arguments,
    )
