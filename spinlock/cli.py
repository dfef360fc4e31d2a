"""The command line: Lightning's subcommands, and those that need no trainer.

``spinlock fit | validate | test | predict`` run through LightningCLI on a yaml of ``trainer``,
``model`` and ``data``. ``spinlock generate`` builds the dataset of the same yaml; ``spinlock info``
describes a dataset file.
"""

import json
import logging
import sys
from argparse import ArgumentParser as PlainParser
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningModule
from lightning.pytorch.cli import LightningCLI

from spinlock.config import GenerationConfig
from spinlock.datamodules import SpinlockDataModule
from spinlock.errors import ConfigurationError
from spinlock.extraction import extract_features
from spinlock.generation import assemble_parts, generate_part
from spinlock.storage import read_info
from spinlock.storage.reader import DatasetInfo
from spinlock.summary import describe_design

_HELP = """usage: spinlock COMMAND ...

  fit | validate | test | predict   run a trainer on a yaml: spinlock fit --config FILE
  generate                          build the dataset of a yaml: spinlock generate --config FILE
  info                              describe a dataset: spinlock info FILE
  extract-features                  compute features again: spinlock extract-features FILE

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
    plain.add_argument("--part", type=_part, metavar="I/N", help="compute part I of N only")
    plain.add_argument("--assemble", action="store_true", help="only join the parts")
    known, overrides = plain.parse_known_args(arguments)
    parser = ArgumentParser(prog="spinlock generate", allow_abbrev=False)
    parser.add_class_arguments(SpinlockDataModule, "data")
    if known.config is not None:
        overrides = [f"--data={json.dumps(_data_section(known.config))}", *overrides]
    data = parser.instantiate(parser.parse_args(overrides)).data
    if known.part is not None:
        part, num_parts = known.part
        generate_part(
            data.generation,
            data.path,
            part,
            num_parts,
            device=data.device,
            progress=data.progress,
        )
        return
    if known.assemble:
        assemble_parts(data.generation, data.path)
    else:
        data.prepare_data()
    print(_summary(read_info(data.path)))


def _part(text: str) -> tuple[int, int]:
    part, separator, num_parts = text.partition("/")
    if not (separator and part.isdecimal() and num_parts.isdecimal()):
        raise ArgumentTypeError(f"expected I/N, for example 3/8, got {text!r}")
    return int(part), int(num_parts)


def _data_section(path: Path) -> object:
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or "data" not in content:
        raise ConfigurationError(f"{path}: has no section `data`")
    return content["data"]


def _info(arguments: list[str]) -> None:
    parser = PlainParser(prog="spinlock info", description="Describe a dataset file.")
    parser.add_argument("file", type=Path)
    print(_summary(read_info(parser.parse_args(arguments).file)))


def _extract_features(arguments: list[str]) -> None:
    parser = PlainParser(
        prog="spinlock extract-features",
        allow_abbrev=False,
        description="Compute the features of a dataset file again from the fields that it stores, "
        "and bring the file up to date if they differ from what it holds. An interrupted run goes "
        "on where it was.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--max-samples", type=int, metavar="K", help="those of the first K only")
    parser.add_argument("--device", help="where to compute; by default a GPU, if there is one")
    parser.add_argument(
        "--config", type=Path, help="yaml whose data.generation.features the file shall hold"
    )
    given = parser.parse_args(arguments)
    features = None
    if given.config is not None:
        section = _data_section(given.config)
        generation = section.get("generation", {}) if isinstance(section, dict) else {}
        features = GenerationConfig.from_dict(generation).features
    done = extract_features(
        given.file, features=features, max_samples=given.max_samples, device=given.device
    )
    print(
        f"{given.file}: features of {done.samples} samples computed, those of {done.changed} "
        f"differed; the file was {'updated' if done.rewritten else 'left as it is'}"
    )


def _summary(info: DatasetInfo) -> str:
    config = info.config
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
        "design": describe_design(info.design_quality).removeprefix("design: "),
        "digest": info.digest,
        "computed on": devices,
        "computed with": versions,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "generate": _generate,
    "info": _info,
    "extract-features": _extract_features,
}
