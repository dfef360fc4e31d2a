"""Finds the section `data` of yaml files and of arguments, before a parser is made for it."""

import json
import os
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spinlock.errors import ConfigurationError
from spinlock.runtime.local_paths import local_path

_OPERATOR = "--data.generation.operator"


def read_yaml(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401 (any yaml)
    """Return the content of a yaml file, in UTF-8 under any locale.

    Raises:
        OSError: If it cannot be read.
        yaml.YAMLError: If it is not yaml.
    """
    return yaml.safe_load(Path(path).read_bytes())


def data_section(path: Path) -> tuple[str, Any]:
    """Return the data module that the section ``data`` of a yaml file describes.

    Args:
        path: Yaml file as for ``spinlock fit``.

    Returns:
        Name of the data module's class, without the module, and its settings. In the file, the
        settings are the whole section, or ``init_args`` if the section has a ``class_path``.

    Raises:
        ConfigurationError: If the file has no such section.
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
        generation: Whether they set the configuration of the dataset.
        model: Whether they choose a model.
    """

    by_class: bool
    generation: bool
    model: bool

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Choices":
        """Read the arguments and the yaml files that they name.

        Example:
            >>> Choices.of(["fit", "--data.path=a.h5", "--model", "FeatureVQVAE"])
            Choices(by_class=False, generation=False, model=True)
        """
        parser = ArgumentParser(allow_abbrev=False, add_help=False)
        parser.add_argument("-c", "--config", action="append", default=[])
        parser.add_argument("--data", action="append", default=[])
        parser.add_argument("--data.class_path", dest="class_path")
        parser.add_argument("--data.generation", dest="generation")
        known, others = parser.parse_known_args(arguments)
        # Lightning reports files that are missing.
        paths = [os.path.expanduser(path) for path in known.config]
        contents = [read_yaml(path) for path in paths if os.path.isfile(path)]
        contents = [content for content in contents if isinstance(content, dict)]
        sections = [content["data"] for content in contents if "data" in content]
        # The option holds the section itself, a file that holds it, or the name of a class.
        sections += [
            read_yaml(text) if os.path.isfile(text) else yaml.safe_load(text) for text in known.data
        ]
        by_class = known.class_path is not None or any(
            isinstance(section, str) or (isinstance(section, dict) and "class_path" in section)
            for section in sections
        )
        generations = [
            section.get("generation") for section in sections if isinstance(section, dict)
        ]
        generations += [known.generation, *_settings("--data.generation.", others)]
        models = [content.get("model") for content in contents] + _settings("--model.", others)
        return cls(
            by_class,
            # --data.generation null stands for that of the file.
            known.generation != "null" and any(given is not None for given in generations),
            any(given is not None for given in models),
        )


def _settings(prefix: str, options: Sequence[str]) -> list[str]:
    """Return the options that are a setting, or set one that it contains."""
    names = [option.partition("=")[0] for option in options]
    return [name for name in names if f"{name}.".startswith(prefix)]


def with_data_only(arguments: Sequence[str]) -> Iterator[str]:
    """Replace yaml files among arguments by the settings of their section ``data``, in place.

    A command that has no trainer thus merges several files and options as ``fit`` does: later ones
    win. ``--data.init_args.NAME``, as it is for a section with a ``class_path``, is
    ``--data.NAME``.

    Args:
        arguments: Arguments of the command.

    Yields:
        Arguments without ``--config`` and ``-c``.

    Raises:
        ConfigurationError: If no file has a section ``data``, or it describes another data module
            than `SpinlockDataModule`.
    """
    rest, errors, sections = iter(arguments), [], 0
    for argument in rest:
        option, _, value = argument.partition("=")
        if option not in ("-c", "--config"):
            yield argument.replace("--data.init_args.", "--data.", 1)
            continue
        if not (value := value or next(rest, "")):
            yield argument
            continue
        path = local_path(value)
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
        arguments: Arguments of a command.

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
        if option in ("-c", "--config"):
            path = os.path.expanduser(value)
            content = read_yaml(path) if os.path.isfile(path) else None
            section = content.get("data") if isinstance(content, dict) else None
            generation = section.get("generation") if isinstance(section, dict) else None
            given = generation.get("operator") if isinstance(generation, dict) else None
        else:
            given = yaml.safe_load(value) if option == _OPERATOR else None
        if isinstance(given, dict):
            yield f"{_OPERATOR}=convolutional"
        yield argument
