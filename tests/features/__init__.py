"""Features against closed forms, an independent oracle and their invariances."""

import pytest

# Only modules of tests are rewritten by default.
pytest.register_assert_rewrite("tests.features.implementations")
