"""The command line's commands that need no trainer, one module each."""
