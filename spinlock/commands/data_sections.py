"""Finds the section `data` of yaml files and of arguments, before a parser is made for it."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinlock.commands.yaml_text import parsed_yaml, read_yaml
from spinlock.errors import ConfigurationError
from spinlock.runtime.local_paths import local_path

_OPERATOR = "--data.generation.operator"


def data_section(path: Path) -> tuple[str, Any]:
    """Return the data module that the section ``data`` of a yaml file describes.

    Args:
        path: Yaml file as for ``spinlock fit``.

    Returns:
        Name of the data module's class, without the module, and its settings. In the file, the
        settings are the whole section, or ``init_args`` if the section has a ``class_path``.

    Raises:
        ConfigurationError: If the file cannot be read or has no such section.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or "data" not in content:
        raise ConfigurationError(f"{path}: has no section `data`")
    section = content["data"]
    if not (isinstance(section, dict) and "class_path" in section):
        return "SpinlockDataModule", section
    return str(section["class_path"]).rpartition(".")[2], section.get("init_args", {})


@dataclass(frozen=True)
class Choices:
    """What the arguments of a trainer's command and its yaml files choose.

    Args:
        by_class: Whether they choose the data module by ``class_path``.
        generation: Whether they set the configuration of the dataset; ``null`` stands for that of
            the dataset file.
        model: Whether they choose a model.
        path: Path of the dataset file, or None.
        files: Whether they name a yaml file.
        num_samples: Whether they set the number of samples of the dataset.
    """

    by_class: bool = False
    generation: bool = False
    model: bool = False
    path: str | None = None
    files: bool = False
    num_samples: bool = False

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Choices":
        """Read the arguments and the yaml files that they name; the last value decides.

        Args:
            arguments: Arguments from `with_plain_configs`.

        Example:
            >>> choices = Choices.of(["fit", "--data.path=a.h5", "--model", "FeatureVQVAE"])
            >>> choices.path, choices.model, choices.generation
            ('a.h5', True, False)
        """
        by_class = generation = model = num_samples = False
        path = None
        for name, value in _settings(arguments):
            if name == "data":
                by_class |= isinstance(value, str)
                section = value if isinstance(value, dict) else {}
                by_class |= "class_path" in section
                generation = section.get("generation", generation) not in (None, False)
                path = section.get("path", path)
                given = section.get("generation")
                num_samples |= isinstance(given, str) or "num_samples" in (given or {})
            elif name == "data.class_path":
                by_class = True
            elif name == "data.path":
                path = value
            elif f"{name}.".startswith("data.generation."):
                generation = value != "null"
                # A whole configuration may come as one value.
                num_samples |= name in ("data.generation", "data.generation.num_samples")
            elif f"{name}.".startswith("model."):
                model = value not in (None, "null")
        files = bool(config_files(arguments))
        return cls(by_class, generation, model, path, files, num_samples)


def config_files(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the values of the options ``--config``.

    Example:
        >>> config_files(["fit", "--config=a.yaml", "--data.path", "a.h5"])
        ('a.yaml',)
    """
    return tuple(value for name, value in _options(arguments) if name == "--config")


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each option."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, separator, value = argument.partition("=")
            yield name, value if separator else "".join(arguments[position + 1 : position + 2])


def _settings(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each setting, of yaml files and of options, in order."""
    for option, text in _options(arguments):
        if option == "--config":
            yield from _content(text).items()
        elif option == "--data":
            # The option holds the section itself, a file that holds it, or the name of a class.
            yield "data", read_yaml(text) if os.path.isfile(text) else parsed_yaml(text, option)
        else:
            yield option[2:], text


def _content(path: str) -> dict[str, Any]:
    """Return the sections of a yaml file; Lightning reports files that are missing."""
    content = read_yaml(path) if os.path.exists(path) else None
    return content if isinstance(content, dict) else {}


def _section(content: dict[str, Any]) -> dict[str, Any]:
    """Return the section ``data`` of a yaml file if it has settings."""
    section = content.get("data")
    return section if isinstance(section, dict) else {}


def with_plain_configs(arguments: Sequence[str]) -> Iterator[str]:
    """Write each ``--config FILE``, ``-c FILE`` and ``-cFILE`` as ``--config=FILE``.

    Args:
        arguments: Arguments of a command.

    Yields:
        The same arguments, with the paths of yaml files expanded.

    Example:
        >>> list(with_plain_configs(["fit", "-ca.yaml", "-c", "b.yaml", "--config"]))
        ['fit', '--config=a.yaml', '--config=b.yaml', '--config']
    """
    rest = iter(arguments)
    for argument in rest:
        option, _, value = argument.partition("=")
        if argument.startswith("-c") and option != "-c":
            value = argument[2:]
        elif option not in ("-c", "--config"):
            yield argument
            continue
        value = value or next(rest, "")
        yield f"--config={local_path(value)}" if value else argument


def without_null_generation(arguments: Sequence[str]) -> Iterator[str]:
    """Leave out ``generation: null`` of arguments that set the configuration later.

    The parser would take it for the value of each setting of the configuration.

    Args:
        arguments: Arguments from `with_plain_configs`.

    Yields:
        The same arguments. A yaml file with the setting is replaced by its content without it.

    Example:
        >>> list(without_null_generation(["--data={path: a.h5, generation: null}"]))
        ['--data={"path": "a.h5"}']
    """
    for argument in arguments:
        option, _, value = argument.partition("=")
        content: dict[str, Any] = {}
        if option == "--config":
            content = _content(value)
        elif option == "--data" and value:
            content = dict(_settings([argument]))
        section = _section(content)
        if section.get("generation", section) is None:
            del section["generation"]
            kept = content if option == "--config" else section
            yield f"{option}={json.dumps(kept, default=str)}"
        elif argument != "--data.generation=null":
            yield argument


def with_data_only(arguments: Sequence[str]) -> Iterator[str]:
    """Replace yaml files among arguments by the settings of their section ``data``, in place.

    A command that has no trainer thus merges several files and options as ``fit`` does: later ones
    win. ``--data.init_args.NAME``, as it is for a section with a ``class_path``, is
    ``--data.NAME``.

    Args:
        arguments: Arguments from `with_plain_configs`.

    Yields:
        Arguments without ``--config``.

    Raises:
        ConfigurationError: If no file has a section ``data``, or it describes another data module
            than `SpinlockDataModule`.
    """
    errors, sections = [], 0
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option != "--config" or not value:
            yield argument.replace("--data.init_args.", "--data.", 1)
            continue
        path = Path(value)
        try:
            name, settings = data_section(path)
        except ConfigurationError as error:
            errors.append(error)
            continue
        if name != "SpinlockDataModule":
            raise ConfigurationError(
                f"{path}: data.class_path: {name} has no file to generate; only "
                "SpinlockDataModule has one"
            )
        sections += 1
        yield f"--data={json.dumps(settings)}"
    if errors and not sections:
        raise errors[0]


def with_whole_operators(arguments: Sequence[str]) -> Iterator[str]:
    """Precede each mapping for ``generation.operator`` by a name, which the mapping replaces.

    jsonargparse takes a mapping that replaces another one, of a yaml file before it, for new
    settings of the same class, which it then imports. Without that, it would fail.

    Args:
        arguments: Arguments from `with_plain_configs`.

    Yields:
        The same arguments, and options ``--data.generation.operator=convolutional``.

    Raises:
        ConfigurationError: If an option sets a part of the mapping.

    Example:
        >>> mapping = '--data.generation.operator={"class_path": "my.Family"}'
        >>> list(with_whole_operators([mapping])) == [f"{_OPERATOR}=convolutional", mapping]
        True
    """
    for position, argument in enumerate(arguments):
        option, separator, value = argument.partition("=")
        value = value if separator else "".join(arguments[position + 1 : position + 2])
        if option.startswith(f"{_OPERATOR}."):
            raise ConfigurationError(
                f"{option}: an operator family is one value: {_OPERATOR} "
                "'{class_path: package.Class, init_args: {...}}'"
            )
        if option == "--config":
            generation = _section(_content(value)).get("generation")
            given = generation.get("operator") if isinstance(generation, dict) else None
        else:
            given = parsed_yaml(value, option) if option == _OPERATOR else None
        if isinstance(given, dict):
            yield f"{_OPERATOR}=convolutional"
        yield argument
