"""Limits the size of the files that a command may write, as a full disk or ``ulimit -f`` does."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.files import SINGLE, VIRTUAL
from benchmarks.faults.processes import Outcome, command, observe
from benchmarks.faults.settings_file import settings_file
from benchmarks.faults.verdicts import Tally, problems_of, snapshot
from spinlock.generation.build import generate

# Shares of the size that the command writes without a limit, and small sizes in bytes.
_SHARES = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.97)
_SIZES = (0, 100, 1000, 4096, 8192)


def try_small_disks(folder: Path, seed: int, share: float) -> Tally:
    """Generate, extract and export under limits: one line, and nothing but finished shards."""
    tally = Tally("disk")
    source = folder / "source.h5"
    generate(SINGLE, source, progress=False)
    for layout, config in (("single", SINGLE), ("virtual", VIRTUAL)):
        settings = settings_file(folder / f"{layout}.yaml", "a.h5", config)
        _try(tally, folder, f"generate {layout}", command("generate", "--config", settings), share)
        if share > 0.1:
            _try_interpreter(tally, folder, "generate", "--config", settings)
    if share > 0.1:
        _try_interpreter(tally, folder, "export", source, "--format", "well", "--out", "a")
    _try(
        tally,
        folder,
        "export",
        command("export", source, "--format", "well", "--out", "well"),
        share,
    )
    _try(tally, folder, "report", command("report", source, "--out", "a.html"), share)
    _try(tally, folder, "plot", command("plot", source, "--sample", 1, "--out", "a.png"), share)
    return tally


def _try(tally: Tally, folder: Path, name: str, run: Callable[[], object], share: float) -> None:
    whole = folder / f"{name} without a limit"
    whole.mkdir()
    outcome = observe(run, whole)
    tally.note(f"{name}, no limit", outcome, problems_of(outcome))
    if outcome.status:
        tally.fault(f"{name} fails without a limit: {outcome.err[-300:]}")
        return
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    limits = sorted({*_SIZES, *(round(part * largest) for part in _SHARES)})
    for limit in limits[:: max(1, min(4, round(0.5 / share)))]:
        tally.trials += 1
        place = folder / f"{name} {limit}"
        place.mkdir()
        outcome = observe(run, place, file_bytes=limit)
        problems = problems_of(outcome)
        if outcome.status == 0:
            problems.append("succeeds")
        elif outcome.status != 1:
            problems.append(f"exit status {outcome.status}, expected 1; {outcome.err[-200:]}")
        # A lock that is removed could no longer keep a process that waits for it from writing.
        kept = {"a.h5.lock"}
        found_files = snapshot(place).keys() - kept
        left = sorted(found for found in found_files if not _is_shard(place / found))
        problems += [f"leaves {found}" for found in left]
        tally.note(f"{name}, files of at most {limit} bytes", outcome, problems)


def _try_interpreter(tally: Tally, folder: Path, *arguments: object) -> None:
    """Run a command in a new interpreter, whose end is a part of the trial."""
    tally.trials += 1
    place = folder / f"interpreter {tally.trials}"
    place.mkdir()
    limit = (100_000, 100_000)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "spinlock", *map(str, arguments)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        capture_output=True,
        text=True,
        timeout=300,
    )
    seconds = time.monotonic() - start
    outcome = Outcome(done.returncode, done.stdout, done.stderr, seconds, 0, hung=False)
    problems = problems_of(outcome)
    if done.returncode != 1:
        problems.append(f"exit status {done.returncode}, expected 1; {done.stderr[-200:]}")
    tally.note(f"new interpreter, {arguments[0]}", outcome, problems)


def _is_shard(path: Path) -> bool:
    """Whether a path is a finished shard, or a folder that holds one."""
    if path.is_dir():
        return any(path.rglob("shard-*.h5"))
    return path.suffix == ".h5" and path.name.startswith("shard-") and os.path.getsize(path) > 0
