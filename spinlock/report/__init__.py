"""Report of a dataset: its checks, plots and scores on one self-contained HTML page."""

from spinlock.report.report_builder import write_report

__all__ = ["write_report"]
