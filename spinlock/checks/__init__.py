"""Checks: every claim about a dataset, measured on its file."""

from spinlock.checks.dataset import check_dataset
from spinlock.checks.report import CheckReport, CheckRow

__all__ = ["CheckReport", "CheckRow", "check_dataset"]
