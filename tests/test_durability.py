"""Nothing is lost: kills, damaged shards, full disks, many processes, lost workers."""

import dataclasses
import errno
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from spinlock.commands.command_line import main
from spinlock.configuration.file_content import StorageConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import shard_task
from spinlock.generation.build import assemble_parts, generate, generate_part, shard_folder
from spinlock.generation.executors import DaskExecutor, LocalProcesses
from spinlock.generation.shard_task import ShardTask, compute_shard
from spinlock.storage import read_info
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.shards import Shard, list_shards
from spinlock.storage.verify import verify_shard
from tests.helpers import dataset_contents, small_config

CONFIG = small_config(60, num_realizations=2)
BUILD = """
import sys
from spinlock import GenerationConfig, generate
config = GenerationConfig.from_json(sys.argv[1])
print("ready", flush=True)
generate(config, sys.argv[2], progress=False)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "a.h5"
    generate(CONFIG, path, progress=False)
    return dataset_contents(path)


def build(path, config=CONFIG):
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, config.to_json(), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def test_killed_runs_go_on(tmp_path, undisturbed):
    """SPINLOCK_KILLS=20 python -m pytest -k killed_runs: the full count."""
    kills = int(os.environ.get("SPINLOCK_KILLS", "5"))
    moments = random.Random(0)
    path = tmp_path / "a.h5"
    process = build(tmp_path / "timed.h5")
    start = time.monotonic()
    process.communicate(timeout=200)
    duration = time.monotonic() - start
    for leftover in tmp_path.iterdir():
        leftover.unlink()
    interrupted = attempts = 0
    while interrupted < kills:
        attempts += 1
        assert attempts <= 10 * kills, "runs end before they can be killed"
        process = build(path)
        time.sleep(moments.uniform(0, duration / 2))
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        process.communicate()
        if path.exists():
            # Finished between two kills: whole, then started anew.
            assert dataset_contents(path) == undisturbed
            path.unlink()
    process = build(path)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert dataset_contents(path) == undisturbed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "a.h5.lock"]


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory):
    """The shards of an interrupted run; copied by tests."""
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    folder = shard_folder(CONFIG, path)
    folder.mkdir(parents=True)
    for start in (8, 24):
        compute_shard(ShardTask(CONFIG, folder, start, start + 8))
    return folder


@pytest.fixture
def unfinished(two_shards, tmp_path):
    """The path of a dataset whose run was interrupted after two shards."""
    path = tmp_path / "a.h5"
    shutil.copytree(two_shards, shard_folder(CONFIG, path))
    return path


def flip_byte(position):
    def damage(data):
        data[position % len(data)] ^= 0x10

    return damage


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_never_gets_into_the_dataset(seed, unfinished, undisturbed):
    folder = shard_folder(CONFIG, unfinished)
    victim = list_shards(folder)[seed % 2].path
    data = bytearray(victim.read_bytes())
    flip_byte(random.Random(seed).randrange(len(data)))(data)
    victim.write_bytes(data)
    generate(CONFIG, unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed


@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_a_truncated_shard_is_computed_again(kept, unfinished, undisturbed, caplog):
    victim = list_shards(shard_folder(CONFIG, unfinished))[0].path
    victim.write_bytes(victim.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING, logger="spinlock"):
        generate(CONFIG, unfinished, progress=False)
    assert "computing samples 8..15 again" in caplog.text
    assert dataset_contents(unfinished) == undisturbed


REFUSED = errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM
REFUSALS = [OSError(number, os.strerror(number)) for number in REFUSED]
REFUSALS.append(MemoryError())


def refuse_to_open(monkeypatch, shard, error):
    opened = h5py.File

    def refuse(name, *args, **options):
        if Path(name) == shard.path:
            raise error
        return opened(name, *args, **options)

    monkeypatch.setattr("h5py.File", refuse)


def refuse_to_read(monkeypatch, shard, error):
    read = DatasetFile.chunk

    def refuse(self, *args):
        if Path(self.file.filename) == shard.path:
            raise error
        return read(self, *args)

    monkeypatch.setattr(DatasetFile, "chunk", refuse)


@pytest.mark.parametrize("refuse", [refuse_to_open, refuse_to_read])
@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_a_shard_that_cannot_be_read_is_not_damaged(unfinished, monkeypatch, refuse, error):
    """The system refuses it, for example to another user or while a disk fails: it is kept."""
    shards = list_shards(shard_folder(CONFIG, unfinished))
    before = [(shard.path, shard.path.read_bytes()) for shard in shards]
    monkeypatch.setattr(shard_task, "compute_shard", lambda *_: pytest.fail("computed again"))
    with monkeypatch.context() as patch:
        refuse(patch, shards[0], error)
        for build_again in (generate, partial(generate_part, part=1, num_parts=1)):
            with pytest.raises(DatasetError, match=re.escape(str(shards[0].path))):
                build_again(CONFIG, unfinished, progress=False)
    assert [(shard.path, shard.path.read_bytes()) for shard in shards] == before


def test_a_damaged_shard_stays_until_another_replaces_it(unfinished, monkeypatch):
    victim = list_shards(shard_folder(CONFIG, unfinished))[0].path
    victim.write_bytes(victim.read_bytes()[:5000])

    def fail(*args):
        assert len(victim.read_bytes()) == 5000
        raise InterruptedError

    monkeypatch.setattr(shard_task, "compute_shard", fail)
    with pytest.raises(DatasetError, match="finished shards are kept"):
        generate(CONFIG, unfinished, progress=False)
    assert len(victim.read_bytes()) == 5000


@pytest.mark.parametrize("size", [4, 12])
def test_a_damaged_shard_of_another_size_is_gone_in_the_end(unfinished, undisturbed, size):
    victim = list_shards(shard_folder(CONFIG, unfinished))[0].path
    victim.write_bytes(victim.read_bytes()[:5000])
    storage = StorageConfig(shard_size=size)
    generate(dataclasses.replace(CONFIG, storage=storage), unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed
    assert not victim.parent.exists()


def test_verification_reads_the_fields(unfinished):
    """A byte in the middle of a field's chunk is found, and named."""
    shard = list_shards(shard_folder(CONFIG, unfinished))[0]
    verify_shard(shard, CONFIG)
    data = bytearray(shard.path.read_bytes())
    data[len(data) // 2] ^= 1
    shard.path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"shard-0000000008-0000000016\.h5 is damaged"):
        verify_shard(shard, CONFIG)


def test_a_shard_of_another_dataset_is_not_used(unfinished, undisturbed):
    folder = shard_folder(CONFIG, unfinished)
    other = dataclasses.replace(CONFIG, seed=1)
    compute_shard(ShardTask(other, folder, 32, 40))
    assert isinstance(list_shards(folder)[-1], Shard)
    generate(CONFIG, unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed


def test_the_shard_size_may_change_between_runs(unfinished, undisturbed):
    storage = StorageConfig(shard_size=12)
    generate(dataclasses.replace(CONFIG, storage=storage), unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed


def test_digests_do_not_depend_on_compression(tmp_path, undisturbed):
    storage = StorageConfig(compression="none", shard_size=8)
    generate(dataclasses.replace(CONFIG, storage=storage), tmp_path / "a.h5", progress=False)
    assert dataset_contents(tmp_path / "a.h5") == undisturbed


def test_extending_100_to_250_equals_250_at_once(tmp_path):
    config = small_config(250, grid_size=24, channels=1, num_realizations=1, base_channels=(2, 3))
    generate(dataclasses.replace(config, num_samples=100), tmp_path / "grown.h5", progress=False)
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
    assert 0 < len(shards) < 8
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


PREPARE = """
import sys
from spinlock import GenerationConfig, SpinlockDataModule
datamodule = SpinlockDataModule(
    sys.argv[2], GenerationConfig.from_json(sys.argv[1]), batch_size=8, progress=False
)
datamodule.prepare_data()
datamodule.setup("fit")
print(sum(len(batch["index"]) for batch in datamodule.predict_dataloader()))
"""


def test_four_processes_prepare_one_dataset(tmp_path, undisturbed):
    path = tmp_path / "a.h5"
    code = "import logging; logging.basicConfig(level=logging.INFO)\n" + PREPARE
    command = [sys.executable, "-c", code, CONFIG.to_json(), str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    results = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    assert [out.strip() for out, _ in results] == ["60"] * 4
    assert sum("computing 60 samples" in log for _, log in results) == 1
    assert dataset_contents(path) == undisturbed


def test_parts_join_to_the_same_dataset(tmp_path, undisturbed):
    path = tmp_path / "a.h5"
    generate_part(CONFIG, path, 3, 3, progress=False)
    generate_part(CONFIG, path, 1, 3, progress=False)
    with pytest.raises(DatasetError, match=r"samples 8\.\.15, 32\.\.39, 56\.\.59 are missing"):
        assemble_parts(CONFIG, path)
    generate_part(CONFIG, path, 2, 3, progress=False)
    assemble_parts(CONFIG, path)
    assert dataset_contents(path) == undisturbed
    assemble_parts(CONFIG, path)
    with pytest.raises(ConfigurationError, match=r"part: must lie in 1\.\.3, got 0"):
        generate_part(CONFIG, path, 0, 3)


def test_parts_on_the_command_line(tmp_path):
    config = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
    common = [
        "generate",
        f"--config={config}",
        f"--data.path={tmp_path / 'a.h5'}",
        "--data.generation.num_samples=32",
        "--data.generation.block_size=4",
        "--data.generation.storage.shard_size=8",
        "--data.generation.num_realizations=1",
        "--data.progress=false",
    ]
    main([*common, "--part", "1/2"])
    assert not (tmp_path / "a.h5").exists()
    main([*common, "--part", "2/2"])
    main([*common, "--assemble"])
    assert read_info(tmp_path / "a.h5").config.num_samples == 32
    with pytest.raises(SystemExit):
        main([*common, "--part", "two"])


def kill_a_worker_when_the_first_shard_is_there(path, pids):
    """In the background: wait for a shard, then SIGKILL one of the worker processes."""
    killed = []

    def watch():
        folder = shard_folder(CONFIG, path)
        while not list_shards(folder):
            time.sleep(0.005)
        victim = pids()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread, killed


def test_a_lost_local_process_is_replaced(tmp_path, undisturbed, caplog):
    path = tmp_path / "a.h5"
    executor = LocalProcesses(num_workers=2)
    thread, killed = kill_a_worker_when_the_first_shard_is_there(
        path, lambda: list(executor._executor._processes)
    )
    with caplog.at_level(logging.WARNING, logger="spinlock"):
        generate(CONFIG, path, executor=executor, progress=False)
    thread.join(timeout=10)
    executor.shutdown()
    assert killed
    assert "was lost" in caplog.text
    assert dataset_contents(path) == undisturbed


def test_a_lost_dask_worker_is_replaced(tmp_path, undisturbed):
    path = tmp_path / "a.h5"
    executor = DaskExecutor(num_workers=2)

    def pids():
        client = executor._owned[0]
        return list(client.run(os.getpid).values())

    thread, killed = kill_a_worker_when_the_first_shard_is_there(path, pids)
    generate(CONFIG, path, executor=executor, progress=False)
    thread.join(timeout=10)
    executor.shutdown()
    assert killed
    assert dataset_contents(path) == undisturbed


class Broken(LocalProcesses):
    """An executor whose workers cannot even start."""

    def _start(self):
        pool = super()._start()
        # As the pool is left by a worker that ended.
        pool._broken = "a process in the process pool was terminated abruptly"
        return pool


def test_what_no_worker_can_compute_is_computed_here(tmp_path, undisturbed):
    path = tmp_path / "a.h5"
    generate(CONFIG, path, executor=Broken(num_workers=1), progress=False)
    assert dataset_contents(path) == undisturbed


def test_errors_in_workers_reach_the_caller(tmp_path):
    config = small_config(8, num_realizations=1)
    executor = LocalProcesses(num_workers=1)
    with pytest.raises(Exception, match="nonsense"):
        generate(config, tmp_path / "a.h5", executor=executor, device="nonsense", progress=False)
    executor.shutdown()
    assert not (tmp_path / "a.h5").exists()


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
