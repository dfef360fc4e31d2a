"""Looks for faults: damaged files, bad settings, kills and full disks, all seeded.

``python -m benchmarks.faults --help`` lists the kinds; docs/reliability.md explains them.
"""
