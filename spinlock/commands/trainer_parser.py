"""The parser of the trainer's commands and of `generate`."""

import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from spinlock.commands.file_parser import usage_error
from spinlock.commands.parser_errors import plain_error
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules import SpinlockDataModule


def _path(value: object) -> str:
    """Return a path as text; jsonargparse would write a list or a number as text."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError("a path must be text")
    return os.fspath(value)


register_type(os.PathLike, str, _path, fail_already_registered=False)


class TrainerParser(LightningArgumentParser):
    """Lightning's parser, with errors of one line and an optional configuration of the dataset.

    Args:
        of_file: Whether the configuration of the dataset is read from its file, so that settings of
            it are ignored; default: False. Otherwise it has to be given.
        files: Yaml files that the user named, for errors; default: none, which errors then
            suggest.
        command: Subcommand that errors name; default: the one that reports them.
        options: Arguments of Lightning's parser.

    Example:
        >>> parser = TrainerParser(of_file=True, prog="spinlock fit")
        >>> names = parser.add_lightning_class_args(SpinlockDataModule, "data")
        >>> parser.parse_args(["--data.path=a.h5"]).data.generation is None
        True
    """

    def __init__(
        self,
        *,
        of_file: bool = False,
        files: Sequence[str] = (),
        command: str = "",
        **options: Any,  # noqa: ANN401 (jsonargparse's)
    ) -> None:
        super().__init__(**options)
        self.of_file = of_file
        self.files = files
        self.command = command

    def add_lightning_class_args(
        self,
        lightning_class: Callable[..., Any] | type[Any],
        nested_key: str,
        subclass_mode: bool = False,
        required: bool = True,
    ) -> list[str]:
        """Add the arguments of a class; `SpinlockDataModule` has options for each setting.

        A parser has no options for settings within an optional dataclass, and its errors do not
        name them. So ``generation`` is added as if it were required, or as a value of any kind.
        """
        if lightning_class is not SpinlockDataModule or subclass_mode:
            added: list[str] = super().add_lightning_class_args(
                lightning_class, nested_key, subclass_mode=subclass_mode, required=required
            )
            return added
        key = f"{nested_key}.generation"
        options: dict[str, Any] = {"fail_untyped": False, "sub_configs": True}
        names = self.add_class_arguments(
            SpinlockDataModule, nested_key, skip={"generation"}, **options
        )
        if self.of_file:
            self.add_argument(f"--{key}", type=dict[str, Any] | None)
            return [*names, key]
        return [*names, *self.add_class_arguments(GenerationConfig, key, **options)]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error in one line, and exit with status 2."""
        if not self.exit_on_error:
            # The parser of a class that a setting names; the command's parser names the setting.
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        if "arguments are required" in message:
            message = re.sub(r"\b(fit|validate|test|predict)\.", "", message)
            if not self.files:
                message += "; name a yaml file that has them with --config"
        program = parser.prog.replace(" [options]", "")
        if parser is self and self.command:
            program = f"{program} {self.command}"
        # The help of `generate` has only the options that it does not share with `fit`.
        listed_by = "spinlock fit" if program == "spinlock generate" else program
        plain = plain_error(message, [option[2:] for option in self._options()], self.files)
        usage_error(program, plain + self._suggestion(message), listed_by)

    def _suggestion(self, message: str) -> str:
        """Return an addition to a message on an unrecognized option: those of similar spelling."""
        file = re.search(r"[Uu]nrecognized arguments: (?!-)(\S+\.ya?ml)\b", message)
        if file is not None:
            return f"; a yaml file is given as --config {file[1]}"
        unknown = re.search(r"[Uu]nrecognized arguments: (--[^\s=]+)", message)
        if unknown is None:
            return ""
        similar = get_close_matches(unknown[1], self._options(), n=2, cutoff=0.8)
        return f"; similar: {', '.join(similar)}" if similar else ""

    def _options(self) -> set[str]:
        """Return the options of this parser and of its subcommands."""
        parsers = [self, *getattr(self._subcommands_action, "choices", {}).values()]
        return {option for parser in parsers for option in parser._option_string_actions}
