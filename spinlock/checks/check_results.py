"""What a check finds: one row for each claim, and the report that they add up to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CheckRow:
    """One claim about a dataset, with what was measured.

    Attributes:
        group: What the claim is about: integrity, distribution, amplitude, spectrum, design,
            liveness, features or replay.
        name: Name of the row, unique within its group.
        claim: The claim in words.
        target: What the measured value must be, as text.
        measured: The measured value, as text.
        value: The measured value as a number, where it is one.
        passed: Whether the claim was measured and found true.
        measurable: Whether the file holds what the claim is about. If not, the row neither passes
            nor fails, and ``measured`` says what is missing.
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
        """``pass``, ``FAIL`` or ``not measurable``."""
        if not self.measurable:
            return "not measurable"
        return "pass" if self.passed else "FAIL"


@dataclass(frozen=True)
class Claim:
    """A claim before it is measured: the first four columns of its row.

    Attributes:
        group: As in `CheckRow`.
        name: As in `CheckRow`.
        text: The claim in words.
        target: As in `CheckRow`.
    """

    group: str
    name: str
    text: str
    target: str

    def result(self, measured: str, value: float | None, passed: bool) -> CheckRow:
        """The row, measured."""
        return CheckRow(
            self.group, self.name, self.text, self.target, measured, value, bool(passed)
        )

    def count(self, problems: Sequence[str]) -> CheckRow:
        """The row of a claim that holds when no problem was found; names the first of them."""
        measured = f"{len(problems)}"
        if problems:
            measured += f": {', '.join(problems[:4])}{', ...' if len(problems) > 4 else ''}"
        return self.result(measured, float(len(problems)), not problems)

    def not_measurable(self, reason: str) -> CheckRow:
        """The row of a claim that the file does not allow to measure, and why."""
        return CheckRow(
            self.group,
            self.name,
            self.text,
            self.target,
            f"not measurable: {reason}",
            None,
            passed=False,
            measurable=False,
        )


@dataclass(frozen=True)
class CheckReport:
    """The rows of a check.

    Attributes:
        rows: One row for each claim.
        path: The file.
        full: Whether every stored byte was read.
    """

    rows: tuple[CheckRow, ...]
    path: Path = Path()
    full: bool = False

    @property
    def passed(self) -> bool:
        """Whether no claim that could be measured was found false."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckRow, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.measurable and not row.passed)

    @property
    def not_measurable(self) -> tuple[CheckRow, ...]:
        """The rows that could not be measured."""
        return tuple(row for row in self.rows if not row.measurable)

    def row(self, group: str, name: str) -> CheckRow:
        """The row of a name.

        Raises:
            KeyError: If there is none, naming those there are in the group.
        """
        for row in self.rows:
            if (row.group, row.name) == (group, name):
                return row
        names = [row.name for row in self.rows if row.group == group]
        raise KeyError(f"no row {name!r} in {group!r}; there are {names}")

    def table(self) -> str:
        """The rows as a text table, group by group, and a last line that sums them up."""
        head = ("status", "claim", "target", "measured")
        cells = [(row.status, row.claim, row.target, row.measured) for row in self.rows]
        widths = [max(len(line[column]) for line in (head, *cells)) for column in range(3)]
        lines, group = [_line(head, widths)], None
        for row, line in zip(self.rows, cells, strict=True):
            if row.group != group:
                group = row.group
                lines.append(f"{group}:")
            lines.append(_line(line, widths))
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """One line: how many rows passed, failed and could not be measured."""
        passed = sum(row.passed for row in self.rows)
        return (
            f"{'PASSED' if self.passed else 'FAILED'}: {passed} of {len(self.rows)} claims hold, "
            f"{len(self.failures)} do not, {len(self.not_measurable)} are not measurable in this "
            f"file{'' if self.full else '; --full reads every byte'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, as ``spinlock check --json`` prints them."""
        return {
            "path": str(self.path),
            "passed": self.passed,
            "full": self.full,
            "rows": [asdict(row) | {"status": row.status} for row in self.rows],
        }


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells[:3], widths, strict=True))
    return "  ".join(["", *padded, cells[3]]).rstrip()
