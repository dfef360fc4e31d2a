"""The option ``--trust`` of commands that compute what a file's configuration describes."""

from argparse import ArgumentParser


def add_trust(parser: ArgumentParser) -> None:
    """Add ``--trust MODULE``, which may be given several times."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of which the classes that the file names may be imported, which runs its "
        "code; may be given several times (default: this package only)",
    )
