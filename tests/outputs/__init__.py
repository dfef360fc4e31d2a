"""Outputs: no command overwrites its input or a file of another kind, nor any without --force."""

import pytest

# Only modules of tests are rewritten by default.
pytest.register_assert_rewrite("tests.outputs.writing")
