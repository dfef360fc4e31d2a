"""``spinlock export`` writes a dataset file in another layout."""

from spinlock.commands.file_parser import file_parser, path_argument
from spinlock.export.the_well import export_well


def run(arguments: list[str]) -> None:
    """Write the files and print their paths."""
    parser = file_parser(
        "export",
        "Write the trajectories of a dataset file in a layout that other tools read. "
        "well: the layout of The Well's WellDataset, split by operator.",
    )
    parser.add_argument("--format", choices=["well"], required=True)
    parser.add_argument("--out", type=path_argument, required=True, help="new folder to write to")
    given = parser.parse_args(arguments)
    for path in export_well(given.file, given.out):
        print(path)
