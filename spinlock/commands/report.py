"""``spinlock report`` writes one self-contained page about a dataset."""

from pathlib import Path

from spinlock.commands.file_parser import file_parser, path_argument


def run(arguments: list[str]) -> None:
    """Write the page and print a summary."""
    parser = file_parser(
        "report",
        "Write one self-contained HTML page about a dataset file: checks of its "
        "claims, a gallery, distributions, spectra, design, features, trajectories, time and size.",
        trust=True,
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        default=Path("report.html"),
        help="the page to write (default: report.html)",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier report")
    given = parser.parse_args(arguments)
    # Imported here because other commands do not need matplotlib.
    from spinlock.report import write_report

    checks = write_report(given.file, given.out, trust=given.trust, force=given.force)
    print(f"{given.out} ({given.out.stat().st_size / 1e6:.1f} MB)\n{checks.summary()}")
