"""Scripts that measure speed and memory; run each with `python -m benchmarks.<name>`."""
