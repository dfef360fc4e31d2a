"""Makes the argument parsers of the commands that read one dataset file."""

from argparse import ArgumentParser
from pathlib import Path


def file_parser(command: str, description: str, *, trust: bool = False) -> ArgumentParser:
    """Return a parser of the argument ``file``.

    Args:
        command: Name of the command.
        description: Description of the command, which its help shows.
        trust: Whether to add the option ``--trust MODULE``, for commands that compute samples or
            features from the stored configuration; default: False.

    Example:
        >>> file_parser("check", "Check a file.", trust=True).parse_args(["a.h5"]).trust
        []
    """
    parser = ArgumentParser(prog=f"spinlock {command}", allow_abbrev=False, description=description)
    parser.add_argument("file", type=Path)
    if trust:
        add_trust(parser)
    return parser


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
