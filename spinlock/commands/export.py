"""``spinlock export``: a dataset file in another layout."""

from argparse import ArgumentParser
from pathlib import Path

from spinlock.export.the_well import export_well


def run(arguments: list[str]) -> None:
    """Write the other layout."""
    parser = ArgumentParser(
        prog="spinlock export",
        allow_abbrev=False,
        description="Write the trajectories of a dataset file in the layout that other tools read. "
        "well: that of The Well's WellDataset, split by operator.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", choices=["well"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; must be new")
    given = parser.parse_args(arguments)
    for path in export_well(given.file, given.out):
        print(path)
