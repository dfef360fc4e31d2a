"""Attacks by files of strangers: nothing that a file, a shard or a checkpoint names is run or read.

A stranger's configuration names `subprocess.Popen`, a module that leaves a mark when it is
imported, or a file of the user's. Whoever opens it gets the dataset or one clear error, and the
mark, the module and the content of the file stay out of sight.
"""

import pytest

# Only modules of tests are rewritten by default.
pytest.register_assert_rewrite("tests.untrusted.scene", "tests.untrusted.entry_points")
