"""``spinlock generate`` generates the dataset of a yaml file, completely or in parts."""

import json
from argparse import ArgumentParser as PlainParser, ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from spinlock.commands.info import describe_file
from spinlock.errors import ConfigurationError
from spinlock.generation.build import assemble_parts, generate_part
from spinlock.storage import read_info

if TYPE_CHECKING:
    from spinlock.datamodules import SpinlockDataModule


def run(arguments: list[str]) -> None:
    """Generate the dataset or a part of it, or join the parts."""
    plain = PlainParser(
        prog="spinlock generate",
        allow_abbrev=False,
        description="Generate the dataset of the section `data` of a yaml file. Its options can be "
        "set as for fit: --data.path FILE --data.generation.num_samples 100 ...",
    )
    plain.add_argument("--config", type=Path, help="yaml file as for fit")
    plain.add_argument("--part", type=_part, metavar="I/N", help="compute only part I of N")
    plain.add_argument("--assemble", action="store_true", help="only join the parts")
    known, overrides = plain.parse_known_args(arguments)
    data = _data_module(known.config, overrides)
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
    print(describe_file(read_info(data.path)))


def _data_module(config: Path | None, overrides: list[str]) -> "SpinlockDataModule":
    # Imported here because Lightning takes seconds to import.
    from jsonargparse import ArgumentParser

    from spinlock.datamodules import SpinlockDataModule

    parser = ArgumentParser(prog="spinlock generate", allow_abbrev=False)
    parser.add_class_arguments(SpinlockDataModule, "data")
    if config is not None:
        name, settings = data_section(config)
        if name != SpinlockDataModule.__name__:
            raise ConfigurationError(
                f"{config}: data.class_path: {name} has no file to generate; only "
                f"{SpinlockDataModule.__name__} has one"
            )
        overrides = [f"--data={json.dumps(settings)}", *overrides]
    module: SpinlockDataModule = parser.instantiate(parser.parse_args(overrides)).data
    return module


def _part(text: str) -> tuple[int, int]:
    part, separator, num_parts = text.partition("/")
    if not (separator and part.isdecimal() and num_parts.isdecimal()):
        raise ArgumentTypeError(f"expected I/N, for example 3/8, got {text!r}")
    return int(part), int(num_parts)


def data_section(path: Path) -> tuple[str, object]:
    """Return the data module that the section ``data`` of a yaml file describes.

    Args:
        path: Yaml file as for ``spinlock fit``.

    Returns:
        Name of the data module's class, without the module, and its settings. In the file, the
        settings are the whole section, or ``init_args`` if the section has a ``class_path``.

    Raises:
        ConfigurationError: If the file has no such section.
    """
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or "data" not in content:
        raise ConfigurationError(f"{path}: has no section `data`")
    section = content["data"]
    if not (isinstance(section, dict) and "class_path" in section):
        return "SpinlockDataModule", section
    return str(section["class_path"]).rpartition(".")[2], section.get("init_args", {})
