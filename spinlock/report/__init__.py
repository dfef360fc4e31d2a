"""The report: a dataset's claims, pictures and figures on one page that needs nothing else."""

from spinlock.report.report_builder import write_report

__all__ = ["write_report"]
