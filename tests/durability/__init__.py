"""Nothing is lost: kills, damaged shards, full disks, many processes, lost workers."""

from tests.helpers import small_config

CONFIG = small_config(36, num_realizations=2)
