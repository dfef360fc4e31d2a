"""Threads, processes, arithmetic, timing and output files, which do not depend on datasets."""
