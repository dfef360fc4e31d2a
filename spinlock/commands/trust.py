"""Option ``--trust`` of commands that compute samples or features from a stored configuration."""

from argparse import ArgumentParser


def add_trust(parser: ArgumentParser) -> None:
    """Add the option ``--trust MODULE``, which may be repeated."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that may be imported, which runs its code, if the file names classes in it; "
        "may be repeated (default: only this package)",
    )
