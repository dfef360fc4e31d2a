"""Runs the search: ``python -m benchmarks.faults [--seed 0] [--only KINDS] [--short]``."""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.faults.checkpoints import try_checkpoints
from benchmarks.faults.configurations import try_configurations
from benchmarks.faults.disk import try_small_disks
from benchmarks.faults.files import try_files, try_paths
from benchmarks.faults.kills import try_kills
from benchmarks.faults.numerics import try_numerics
from benchmarks.faults.random_numbers import try_random_numbers
from benchmarks.faults.verdicts import Tally

# What children need; imported once, before they are forked.
_IMPORTS = ("lightning", "matplotlib.pyplot", "spinlock.datamodules", "spinlock.callbacks")
_IMPORTS += ("spinlock.models", "spinlock.commands.trainer_cli", "spinlock.commands.generate")
_IMPORTS += tuple(
    f"spinlock.commands.{name}" for name in ("info", "check", "report", "plot", "export")
)
_IMPORTS += ("spinlock.commands.extract_features", "spinlock.commands.default_run")
# It handles signals; before it is imported, Python does.
_IMPORTS += ("spinlock.__main__",)

#: Kind -> the function that tries it in a folder, with a seed and a share of the trials.
KINDS: dict[str, Callable[[Path, int, float], Tally]] = {
    "files": try_files,
    "paths": lambda folder, seed, share: try_paths(folder),
    "checkpoints": try_checkpoints,
    "configurations": try_configurations,
    "kills": try_kills,
    "disk": try_small_disks,
    "numbers": try_random_numbers,
    "numerics": try_numerics,
}
# What runs if no kind is named; the others are slow, and concern no input.
_DEFAULT = tuple(kind for kind in KINDS if kind not in ("numbers", "numerics"))
#: Share of the trials in the short form.
SHORT = 0.02


def search(kinds: Sequence[str], seed: int, share: float) -> list[Tally]:
    """Run some kinds of trials, and print what they find."""
    for module in _IMPORTS:
        importlib.import_module(module)
    tallies = []
    for kind in kinds:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = KINDS[kind](Path(folder).resolve(), seed, share)
        print(f"{tally}; {time.monotonic() - start:.0f} s in all", flush=True)
        tallies.append(tally)
    return tallies


def main(args: Sequence[str] | None = None) -> None:
    """Search for faults, and exit with status 1 if there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of all choices (default: 0)")
    parser.add_argument(
        "--only",
        default=",".join(_DEFAULT),
        help=f"kinds, of {','.join(KINDS)} (default: all but numbers and numerics)",
    )
    parser.add_argument("--short", action="store_true", help="a small share of the trials")
    parser.add_argument("--share", type=float, default=1.0, help="share of the trials")
    given = parser.parse_args(args)
    kinds = given.only.split(",")
    if unknown := sorted(set(kinds) - KINDS.keys()):
        parser.error(f"unknown kinds {', '.join(unknown)}; allowed are {', '.join(KINDS)}")
    tallies = search(kinds, given.seed, SHORT if given.short else given.share)
    sys.exit(1 if any(tally.faults for tally in tallies) else 0)


if __name__ == "__main__":
    main()
