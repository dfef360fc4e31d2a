"""Killed runs, full disks and read-only folders lose nothing."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from spinlock.errors import DatasetError
from spinlock.generation.build import generate, shard_folder
from spinlock.storage import read_info
from spinlock.storage.shard_files import list_shards
from tests.durability import CONFIG
from tests.forks import Fork
from tests.helpers import dataset_contents, small_config

pytestmark = pytest.mark.slow


def build(path):
    generate(CONFIG, path, progress=False)


def test_killed_runs_go_on(tmp_path, undisturbed):
    """SPINLOCK_KILLS=20 python -m pytest -k killed_runs: the full count."""
    kills = int(os.environ.get("SPINLOCK_KILLS", "5"))
    moments = random.Random(0)
    path = tmp_path / "a.h5"
    start = time.monotonic()
    Fork(build, tmp_path / "timed.h5").result()
    duration = time.monotonic() - start
    for leftover in tmp_path.iterdir():
        leftover.unlink()
    interrupted = attempts = 0
    while interrupted < kills:
        attempts += 1
        assert attempts <= 10 * kills, "runs end before they can be killed"
        process = Fork(build, path)
        time.sleep(moments.uniform(0, duration / 2))
        interrupted += process.kill() == -signal.SIGKILL
        if path.exists():
            # Finished between two kills: whole, then started anew.
            assert dataset_contents(path) == undisturbed
            path.unlink()
    Fork(build, path).result()
    assert dataset_contents(path) == undisturbed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "a.h5.lock"]


@pytest.mark.repeated
def test_extending_20_to_50_equals_50_at_once(tmp_path):
    config = small_config(50, grid_size=24, channels=1, num_realizations=1, base_channels=(2, 3))
    generate(dataclasses.replace(config, num_samples=20), tmp_path / "grown.h5", progress=False)
    generate(config, tmp_path / "grown.h5", progress=False)
    generate(config, tmp_path / "whole.h5", progress=False)
    assert dataset_contents(tmp_path / "grown.h5") == dataset_contents(tmp_path / "whole.h5")
    assert read_info(tmp_path / "grown.h5").digest == read_info(tmp_path / "whole.h5").digest


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system of limited size cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_gives_one_error_and_no_file(small_disk, undisturbed):
    path = small_disk / "a.h5"
    with pytest.raises(
        DatasetError, match=r"cannot write .*a\.h5: No space left on device\. .* finished shards"
    ):
        generate(CONFIG, path, progress=False)
    assert not path.exists()
    assert not list(small_disk.rglob("*.tmp"))
    shards = list_shards(shard_folder(CONFIG, path))
    assert 0 < len(shards) < 5
    # With more space, the run resumes.
    remount = ["mount", "-o", "remount,size=64m", str(small_disk)]
    subprocess.run(remount, check=True)
    generate(CONFIG, path, progress=False)
    assert dataset_contents(path) == undisturbed


def test_a_read_only_folder(small_disk, tmp_path):
    config = small_config(4, num_realizations=1)
    generate(config, small_disk / "complete.h5", progress=False)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    # A complete file needs no writing, not even of a lock.
    generate(config, small_disk / "complete.h5", progress=False)
    for path in (small_disk / "a.h5", small_disk / "new" / "a.h5"):
        with pytest.raises(DatasetError, match=r"cannot write .*[Rr]ead-only"):
            generate(config, path, progress=False)


def test_the_summary_is_printed_and_stored(tmp_path, capsys):
    config = small_config(8, num_realizations=1)
    generate(config, tmp_path / "a.h5")
    summary = read_info(tmp_path / "a.h5").run_summary
    assert summary["computed_samples"] == 8
    assert set(summary["stage_seconds"]) == {
        "initial conditions",
        "weights",
        "calibration",
        "convolutions",
        "forcing",
        "features",
        "responses",
        "compression",
        "writing",
    }
    assert 0 < summary["compression_ratio"] < 1
    assert summary["peak_host_bytes"] > 1e8
    printed = capsys.readouterr().err
    assert "8 of 8 samples computed" in printed
    assert "peak memory" in printed
    assert "design: centered L2 discrepancy" in printed
    assert np.isfinite(summary["samples_per_second"])
