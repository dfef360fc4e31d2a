"""Decides whether a process ended as it should: with success, or with one clear line."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.processes import MEMORY, Outcome

# Texts that a terminal would take for a command.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Longest error in characters.
_LONGEST = 1200
# What a progress bar or a log writes beside the error.
_BESIDE = re.compile(
    r"(?:^|\r)[^\r\n]*(?:\d+%\||it/s|samples?/s|waiting for it|: computing \d+ samples"
    r"|: drawing \d+ plots|[Ss]eed set to \d+|GPU available: |Restoring states from the checkpoint"
    r"|Restored all states)[^\r\n]*",
    re.MULTILINE,
)


@dataclass
class Tally:
    """Counts of trials, and the faults found.

    Args:
        kind: Kind of trial.
        trials: Number of trials.
        runs: Number of processes.
        slowest: Longest time of a process in seconds.
        largest: Largest growth of the memory of a process in bytes.
        faults: Descriptions of faults.
    """

    kind: str
    trials: int = 0
    runs: int = 0
    slowest: float = 0.0
    largest: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, trial: str, outcome: Outcome, problems: Iterable[str]) -> None:
        """Count a process, and record what is wrong with it."""
        self.runs += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.largest = max(self.largest, outcome.grown)
        for problem in problems:
            self.fault(f"{trial}: {problem}")

    def fault(self, text: str) -> None:
        """Record a fault, and print it at once."""
        self.faults.append(text)
        print(f"FAULT {self.kind}: {text}", flush=True)

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.trials} trials, {self.runs} processes, slowest "
            f"{self.slowest:.1f} s, largest growth {self.largest / 2**20:.0f} MiB, "
            f"{len(self.faults)} faults"
        )


def problems_of(outcome: Outcome, *, report: bool = False) -> list[str]:
    """Return what is wrong with the end of a process.

    Args:
        outcome: How it ended.
        report: Whether a failure may be a report on the standard output; default: False.
    """
    if outcome.hung:
        return [f"hangs (more than {outcome.seconds:.0f} s); {_tail(outcome.err)}"]
    if outcome.status < 0:
        return [f"ended by signal {-outcome.status}; {_tail(outcome.err)}"]
    found = []
    if outcome.grown > MEMORY:
        found.append(f"uses {outcome.grown / 2**30:.1f} GiB")
    if "Traceback (most recent call last)" in outcome.err:
        return [*found, f"traceback; {_tail(outcome.err)}"]
    if match := _CONTROL.search(outcome.out + outcome.err.replace("\x1b[A", "")):
        found.append(f"prints the control character {match[0]!r}")
    if outcome.status:
        lines = [line for line in _BESIDE.sub("", outcome.err).splitlines() if line.strip()]
        if len(lines) != 1 and not (report and not lines and outcome.out.strip()):
            found.append(f"{len(lines)} lines instead of 1; {_tail(outcome.err)}")
        elif lines and not re.match(r"spinlock[\w -]*: ", lines[0]):
            found.append(f"no error of this package; {_tail(outcome.err)}")
        elif lines and len(lines[0]) > _LONGEST:
            found.append(f"an error of {len(lines[0])} characters; {lines[0][:200]}")
    return found


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " / ".join(line.strip()[:300] for line in lines[-3:]) or "no message"


def snapshot(folder: Path) -> dict[str, str]:
    """Return what a folder holds: the digest of each file, the target of each link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return how a folder changed, as problems."""
    found = [f"leaves {name}" for name in after.keys() - before.keys()]
    found += [f"removes {name}" for name in before.keys() - after.keys()]
    common = before.keys() & after.keys()
    return sorted(found + [f"changes {name}" for name in common if before[name] != after[name]])
