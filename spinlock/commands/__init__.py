"""The command line, with one module for each command that does not need a trainer."""
