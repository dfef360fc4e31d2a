"""Results of a check: one row per claim, and the report that collects them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spinlock.runtime.progress import printable


@dataclass(frozen=True)
class CheckRow:
    """One claim about a dataset and its measured value.

    Attributes:
        group: Group of the claim: integrity, distribution, amplitude, spectrum, design, liveness,
            features, dynamics, trajectories, variance or replay.
        name: Name of the row, unique within its group.
        claim: Statement of the claim.
        target: Required value, as text.
        measured: Measured value, as text.
        value: Measured value as a number, or None if it is not a number.
        passed: Whether the claim was measured and holds.
        measurable: Whether the claim can be measured on this file. If not, the row neither passes
            nor fails, and ``measured`` gives the reason.

    Example:
        >>> row = CheckRow("design", "points", "a claim", "<= 1", "0.5", 0.5, passed=True)
        >>> row.status
        'pass'
    """

    group: str
    name: str
    claim: str
    target: str
    measured: str
    value: float | None
    passed: bool
    measurable: bool = True

    @property
    def status(self) -> str:
        """Status of the row: ``pass``, ``FAIL`` or ``not measurable``."""
        if not self.measurable:
            return "not measurable"
        return "pass" if self.passed else "FAIL"


@dataclass(frozen=True)
class CheckReport:
    """Result of checking a dataset file.

    Attributes:
        rows: One row per claim.
        path: Path of the file.
        full: Whether every stored byte was read.

    Example:
        >>> row = CheckRow("design", "points", "a claim", "<= 1", "0.5", 0.5, passed=True)
        >>> report = CheckReport((row,), full=True)
        >>> report.passed, report.row("design", "points").value
        (True, 0.5)
        >>> report.summary()
        'PASSED: 1 of 1 claims hold, 0 fail, 0 are not measurable in this file'
    """

    rows: tuple[CheckRow, ...]
    path: Path = Path()
    full: bool = False

    @property
    def passed(self) -> bool:
        """Whether no claim failed. Claims that are not measurable do not count."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckRow, ...]:
        """Rows that failed."""
        return tuple(row for row in self.rows if row.measurable and not row.passed)

    @property
    def not_measurable(self) -> tuple[CheckRow, ...]:
        """Rows that could not be measured."""
        return tuple(row for row in self.rows if not row.measurable)

    def row(self, group: str, name: str) -> CheckRow:
        """Return the row with a name.

        Args:
            group: Group of the row.
            name: Name of the row.

        Raises:
            KeyError: If there is no such row; the message lists the rows of the group.
        """
        for row in self.rows:
            if (row.group, row.name) == (group, name):
                return row
        names = [row.name for row in self.rows if row.group == group]
        raise KeyError(f"no row {name!r} in group {group!r}; its rows are {names}")

    def table(self) -> str:
        """Return the rows as a text table, by group, followed by the summary."""
        head = ("status", "claim", "target", "measured")
        cells = [(row.status, row.claim, row.target, printable(row.measured)) for row in self.rows]
        widths = [max(len(line[column]) for line in (head, *cells)) for column in range(3)]
        lines, group = [_line(head, widths)], None
        for row, line in zip(self.rows, cells, strict=True):
            if row.group != group:
                group = row.group
                lines.append(f"{group}:")
            lines.append(_line(line, widths))
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """Return one line with the number of rows that passed, failed or are not measurable."""
        passed = sum(row.passed for row in self.rows)
        return (
            f"{'PASSED' if self.passed else 'FAILED'}: {passed} of {len(self.rows)} claims hold, "
            f"{len(self.failures)} fail, {len(self.not_measurable)} are not measurable in this "
            f"file{'' if self.full else ' (--full reads every byte)'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the plain values that ``spinlock check --json`` prints."""
        return {
            "path": str(self.path),
            "passed": self.passed,
            "full": self.full,
            "rows": [asdict(row) | {"status": row.status} for row in self.rows],
        }


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells[:3], widths, strict=True))
    return "  ".join(["", *padded, cells[3]]).rstrip()
