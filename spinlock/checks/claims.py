"""A claim about a dataset file: what it states, which datasets it needs, how it is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.check_results import CheckRow
from spinlock.checks.checked_file import CheckSource
from spinlock.errors import in_a_line


class NotMeasurableError(Exception):
    """Raised by a measurement that the file does not allow. The message gives the reason."""


class Measurement(NamedTuple):
    """Outcome of measuring a claim: the last columns of its row.

    Attributes:
        text: Measured value as text.
        value: Measured value as a number, or None if it is not a number.
        passed: Whether the claim holds.
    """

    text: str
    value: float | None
    passed: bool


@dataclass(frozen=True)
class Claim:
    """One claim about a dataset file.

    A claim is *not measurable* if the file lacks a dataset in ``needs``, or if ``measure`` raises
    `NotMeasurableError`. It fails if ``measure`` raises any other exception.

    Attributes:
        name: Name of the claim, unique within its group.
        text: Statement of the claim.
        measure: Function that measures the claim.
        needs: Datasets that ``measure`` reads.
        target: Required value, as text; default: that of `count`.
    """

    name: str
    text: str
    measure: Callable[[], Measurement]
    needs: tuple[str, ...] = ()
    target: str = "0 problems"

    def row(self, group: str, source: CheckSource) -> CheckRow:
        """Measure the claim and return its row.

        Args:
            group: Group of the claim.
            source: File under check.
        """
        measurable = True
        try:
            if reason := source.lacks(*self.needs):
                raise NotMeasurableError(reason)
            # Claims report what is not finite; the caller's settings may turn warnings into errors.
            with np.errstate(all="ignore"):
                found = self.measure()
        except NotMeasurableError as error:
            measurable = False
            found = Measurement(f"not measurable: {error}", None, False)
        except Exception as error:
            # A damaged file can make a measurement fail in any way.
            found = Measurement(f"{type(error).__name__}: {in_a_line(error)}", None, False)
        return CheckRow(group, self.name, self.text, self.target, *found, measurable)


def count(problems: Sequence[str]) -> Measurement:
    """Return the measurement of a claim that holds if there are no problems."""
    text = f"{len(problems)}"
    if problems:
        text += f": {', '.join(problems[:4])}{', ...' if len(problems) > 4 else ''}"
    return Measurement(text, float(len(problems)), not problems)


def count_samples(wrong: NDArray[np.bool_]) -> Measurement:
    """Return the measurement of a claim that holds if it is wrong for no sample.

    Args:
        wrong: (N,) mask of the samples for which the claim is wrong.
    """
    return count([f"sample {index}" for index in np.flatnonzero(wrong)])
