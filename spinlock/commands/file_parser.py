"""Makes the argument parsers of the commands, which report wrong arguments in one line."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from spinlock.errors import ConfigurationError
from spinlock.runtime.local_paths import local_path
from spinlock.runtime.progress import printable


def usage_error(program: str, message: str, listed_by: str = "") -> NoReturn:
    """Print one line about a wrong argument, and exit with status 2.

    Args:
        program: Command as it is typed, such as ``spinlock info``.
        message: Description of what is wrong; line breaks become spaces.
        listed_by: Command whose help lists the options; default: ``program``.
    """
    line = printable(" ".join(message.split()).rstrip("."))
    help_command = f"{listed_by or program} --help"
    sys.stderr.write(f"{program}: error: {line}. `{help_command}` lists the options\n")
    sys.exit(2)


class CommandParser(ArgumentParser):
    """Parser of a command that reports an error in one line, without the usage.

    Args:
        command: Name of the command.
        description: Description of the command, which its help shows.

    Example:
        >>> parser = CommandParser("info", "Describe a file.")
        >>> parser.prog
        'spinlock info'
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"spinlock {command}", allow_abbrev=False, description=description)

    def error(self, message: str) -> NoReturn:
        """Print the error in one line, and exit with status 2."""
        usage_error(self.prog, message)


class _FileParser(CommandParser):
    """Parser of the argument ``file``, which may also be given as ``--dataset FILE``."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(command, description)
        self.add_argument("file", type=path_argument, nargs="?", help="dataset file")
        self.add_argument("--dataset", type=path_argument, help="the same, as an option")

    def parse_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401 (argparse's)
    ) -> Namespace:
        """Parse arguments that name one file."""
        given: Namespace = super().parse_args(args, namespace)
        if (given.file is None) == (given.dataset is None):
            self.error("name one dataset file, as FILE or as --dataset FILE")
        given.file = given.file or given.dataset
        return given


def file_parser(command: str, description: str, *, trust: bool = False) -> ArgumentParser:
    """Return a parser of one dataset file: ``FILE`` or ``--dataset FILE``.

    Args:
        command: Name of the command.
        description: Description of the command, which its help shows.
        trust: Whether to add the option ``--trust MODULE``, for commands that compute samples or
            features from the stored configuration; default: False.

    Example:
        >>> file_parser("check", "Check a file.", trust=True).parse_args(["a.h5"]).trust
        []
        >>> file_parser("info", "Describe a file.").parse_args(["--dataset", "a.h5"]).file.name
        'a.h5'
    """
    parser = _FileParser(command, description)
    if trust:
        add_trust(parser)
    return parser


def path_argument(text: str) -> Path:
    """Return the path that an argument names; see `local_path`.

    Raises:
        ArgumentTypeError: If it is not a path of this machine.

    Example:
        >>> path_argument("data/a.h5").name
        'a.h5'
    """
    try:
        return local_path(text)
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from error


def add_trust(parser: ArgumentParser) -> None:
    """Add the option ``--trust MODULE`` to a parser.

    Example:
        >>> parser = ArgumentParser()
        >>> add_trust(parser)
        >>> parser.parse_args(["--trust", "my_extensions"]).trust
        ['my_extensions']
    """
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that may be imported, which runs its code, if the file names classes in "
        "it; may be repeated (default: only this package)",
    )
