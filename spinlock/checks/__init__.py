"""Checks: every claim about a dataset, measured on its file."""

from spinlock.checks.check_results import CheckReport, CheckRow
from spinlock.checks.dataset_check import check_dataset

__all__ = ["CheckReport", "CheckRow", "check_dataset"]
