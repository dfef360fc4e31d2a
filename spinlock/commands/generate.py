"""``spinlock generate`` generates the dataset of a yaml file, completely or in parts."""

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from spinlock.commands.data_sections import (
    Choices,
    config_files,
    with_data_only,
    with_plain_configs,
    with_whole_operators,
    without_null_generation,
)
from spinlock.commands.file_parser import CommandParser
from spinlock.commands.info import describe_file
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.generation.build import assemble_parts, generate_part
from spinlock.storage import read_info, require_dataset

if TYPE_CHECKING:
    from spinlock.datamodules import SpinlockDataModule


def run(arguments: list[str]) -> None:
    """Generate the dataset or a part of it, or join the parts."""
    plain = CommandParser(
        "generate",
        "Generate the dataset of the section `data` of a yaml file. Its settings are "
        "options as for fit: --data.path FILE --data.generation.num_samples 100 ... "
        "`spinlock fit --help` lists them.",
    )
    plain.add_argument(
        "-c",
        "--config",
        metavar="CONFIG",
        action="append",
        help="yaml file as for fit; of several files and options, later ones win",
    )
    plain.add_argument("--part", type=_part, metavar="I/N", help="compute only part I of N")
    plain.add_argument("--assemble", action="store_true", help="only join the parts")
    arguments = list(with_plain_configs(arguments))
    files = config_files(arguments)
    sets_generation = Choices.of(arguments).generation
    arguments = list(with_data_only(list(with_whole_operators(arguments))))
    if sets_generation:
        arguments = list(without_null_generation(arguments))
    known, overrides = plain.parse_known_args(arguments)
    data = _data_module(overrides, files)
    if data.path.exists():
        # The data module would use the file with other stored fields than asked for.
        require_dataset(data.path, GenerationConfig.from_dict(data.hparams["generation"]))
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
    info = read_info(data.path)
    print(describe_file(info))
    held, asked = info.config.num_samples, data.generation.num_samples
    if held > asked:
        print(f"The file existed and holds {held} samples, of which {asked} were asked for.")


def _data_module(arguments: list[str], files: tuple[str, ...]) -> "SpinlockDataModule":
    # Imported here because Lightning takes seconds to import.
    from spinlock.commands.trainer_parser import TrainerParser
    from spinlock.datamodules import SpinlockDataModule

    parser = TrainerParser(
        prog="spinlock generate", description=None, allow_abbrev=False, files=files
    )
    parser.add_lightning_class_args(SpinlockDataModule, "data")
    module: SpinlockDataModule = parser.instantiate(parser.parse_args(arguments)).data
    return module


def _part(text: str) -> tuple[int, int]:
    part, separator, num_parts = text.partition("/")
    if not (separator and part.isdecimal() and num_parts.isdecimal()):
        raise ArgumentTypeError(f"expected I/N, for example 3/8, got {text!r}")
    return int(part), int(num_parts)
