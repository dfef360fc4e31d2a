"""Threads, arithmetic, timing, progress and output files, which do not depend on datasets."""
