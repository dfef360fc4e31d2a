"""Services that every other package uses: threads, arithmetic, timing, progress and output files.

Nothing here knows what a dataset is.
"""
