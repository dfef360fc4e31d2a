"""Dynamics of operators: closed forms, tangent-linear oracles, transport, and cost."""

import pytest

# Only modules of tests are rewritten by default.
pytest.register_assert_rewrite("tests.dynamics.measuring")
