"""The command line: Lightning's subcommands, and those that need no trainer.

``spinlock fit | validate | test | predict`` run through LightningCLI on a yaml of ``trainer``,
``model`` and ``data``. ``spinlock generate`` builds the dataset of the same yaml; ``spinlock info``
describes a dataset file.
"""

import json
import logging
import sys
from argparse import ArgumentParser as PlainParser
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningModule
from lightning.pytorch.cli import LightningCLI

from spinlock.datamodules import SpinlockDataModule
from spinlock.errors import ConfigurationError
from spinlock.generation import generate
from spinlock.storage import read_info
from spinlock.storage.reader import DatasetInfo

_HELP = """usage: spinlock COMMAND ...

  fit | validate | test | predict   run a trainer on a yaml: spinlock fit --config FILE
  generate                          build the dataset of a yaml: spinlock generate --config FILE
  info                              describe a dataset: spinlock info FILE

spinlock COMMAND --help tells the options of a command.
"""


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
        _COMMANDS[arguments[0]](arguments[1:])
    else:
        LightningCLI(
            LightningModule,
            SpinlockDataModule,
            subclass_mode_model=True,
            parser_kwargs={"allow_abbrev": False},
            save_config_kwargs={"overwrite": True},
            # None lets LightningCLI read the process's own arguments, without a warning.
            args=None if args is None else arguments,
        )


def _generate(arguments: list[str]) -> None:
    plain = PlainParser(
        prog="spinlock generate",
        allow_abbrev=False,
        description="Build the dataset of a yaml's data section. Options of that section follow as "
        "for fit: --data.path FILE --data.generation.num_samples 100 ...",
    )
    plain.add_argument("--config", type=Path, help="yaml file as for fit")
    known, overrides = plain.parse_known_args(arguments)
    parser = ArgumentParser(prog="spinlock generate", allow_abbrev=False)
    parser.add_class_arguments(SpinlockDataModule, "data")
    if known.config is not None:
        overrides = [f"--data={json.dumps(_data_section(known.config))}", *overrides]
    data = parser.instantiate(parser.parse_args(overrides)).data
    generate(data.generation, data.path, device=data.device, progress=data.progress)
    print(_summary(read_info(data.path)))


def _data_section(path: Path) -> object:
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or "data" not in content:
        raise ConfigurationError(f"{path}: has no section `data`")
    return content["data"]


def _info(arguments: list[str]) -> None:
    parser = PlainParser(prog="spinlock info", description="Describe a dataset file.")
    parser.add_argument("file", type=Path)
    print(_summary(read_info(parser.parse_args(arguments).file)))


def _summary(info: DatasetInfo) -> str:
    config = info.config
    quality = info.provenance["design_quality"]
    devices = ", ".join(f"{d['name']} ({d['type']})" for d in info.provenance["device"])
    versions = "; ".join(
        " ".join(f"{package} {version}" for package, version in record.items())
        for record in info.provenance["package_versions"]
    )
    rows = {
        "file": f"{info.path} ({info.path.stat().st_size / 1e6:.1f} MB)",
        "fingerprint": info.fingerprint,
        "samples": f"{config.num_samples} ({config.probes_per_operator} probe(s) per operator)",
        "trajectories": f"{config.num_realizations} realizations x {config.num_timesteps} "
        f"timesteps of {config.channels} x {config.grid_size} x {config.grid_size}; stored "
        f"timesteps: {len(config.stored_steps)}",
        "seed": str(config.seed),
        "precision": config.precision,
        "design": f"centered L2 discrepancy {quality['centered_l2_discrepancy']:.3g}, largest "
        f"|correlation| {quality['max_abs_correlation']:.3g}, smallest stratum "
        f"{quality['min_stratum_count']:.0f}, of pairs {quality['min_pair_stratum_count']:.0f}",
        "computed on": devices,
        "computed with": versions,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


_COMMANDS: dict[str, Callable[[list[str]], None]] = {"generate": _generate, "info": _info}
