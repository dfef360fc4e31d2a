"""``spinlock report`` writes one self-contained page about a dataset."""

from argparse import ArgumentParser
from pathlib import Path

from spinlock.commands.trust import add_trust


def run(arguments: list[str]) -> None:
    """Write the page and print a summary."""
    parser = ArgumentParser(
        prog="spinlock report",
        allow_abbrev=False,
        description="Write one self-contained HTML page about a dataset file: checks of its "
        "claims, a gallery, distributions, spectra, design, features, trajectories, time and size.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write")
    parser.add_argument("--force", action="store_true", help="replace an earlier report")
    add_trust(parser)
    given = parser.parse_args(arguments)
    # Imported here because other commands do not need matplotlib.
    from spinlock.report import write_report

    checks = write_report(given.file, given.out, trust=given.trust, force=given.force)
    print(f"{given.out} ({given.out.stat().st_size / 1e6:.1f} MB)\n{checks.summary()}")
