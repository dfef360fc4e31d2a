"""``spinlock check`` measures every claim about a dataset file."""

import json
import sys

from spinlock.checks import check_dataset
from spinlock.commands.file_parser import file_parser


def run(arguments: list[str]) -> None:
    """Print the results, and exit with status 1 if a claim fails."""
    parser = file_parser(
        "check",
        "Measure every claim about a dataset on its file. The exit status is 1 if a "
        "claim fails. Claims about data that the file does not store are not measurable.",
        trust=True,
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="read all outputs, verify every digest and decompose the variance of the features",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--replay", type=int, default=4, metavar="K", help="samples to compute again (default: 4)"
    )
    parser.add_argument("--device", help="device that computes them (default: a GPU if available)")
    given = parser.parse_args(arguments)
    report = check_dataset(
        given.file, full=given.full, replay=given.replay, trust=given.trust, device=given.device
    )
    print(json.dumps(report.to_dict(), indent=1) if given.json else report.table())
    if not report.passed:
        sys.exit(1)
