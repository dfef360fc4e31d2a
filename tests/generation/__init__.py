"""Generation: one complete file, readable by anything, never overwritten, extended when asked."""

from tests.helpers import small_config

CONFIG = small_config(20)
