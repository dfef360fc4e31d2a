"""Many processes build one dataset, and the work of lost workers is done again."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import shard_task
from spinlock.generation.build import assemble_parts, generate, generate_part, shard_folder
from spinlock.generation.executors import DaskExecutor, LocalProcesses
from spinlock.storage import read_info
from spinlock.storage.shard_files import list_shards
from tests.durability import CONFIG
from tests.forks import Messages, in_processes
from tests.helpers import dataset_contents, small_config

pytestmark = pytest.mark.slow


def prepare(path):
    """Prepare a dataset; returns how many samples are served, and what is logged."""
    with Messages() as logged:
        datamodule = SpinlockDataModule(path, CONFIG, batch_size=8, progress=False)
        datamodule.prepare_data()
        datamodule.setup("fit")
        served = sum(len(batch["index"]) for batch in datamodule.predict_dataloader())
    return served, logged


def test_four_processes_prepare_one_dataset(tmp_path, undisturbed):
    path = tmp_path / "a.h5"
    results = in_processes(4, prepare, path)
    assert [served for served, _ in results] == [36] * 4
    assert sum("computing 36 samples" in text for _, log in results for text in log) == 1
    assert dataset_contents(path) == undisturbed


def test_parts_join_to_the_same_dataset(tmp_path, undisturbed):
    path = tmp_path / "a.h5"
    generate_part(CONFIG, path, 3, 3, progress=False)
    generate_part(CONFIG, path, 1, 3, progress=False)
    with pytest.raises(DatasetError, match=r"samples 8\.\.15, 32\.\.35 are missing"):
        assemble_parts(CONFIG, path)
    generate_part(CONFIG, path, 2, 3, progress=False)
    assemble_parts(CONFIG, path)
    assert dataset_contents(path) == undisturbed
    assemble_parts(CONFIG, path)
    with pytest.raises(ConfigurationError, match=r"part: must lie in 1\.\.3, got 0"):
        generate_part(CONFIG, path, 0, 3)


def test_parts_on_the_command_line(tmp_path):
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
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


@pytest.mark.repeated
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
    executor = DaskExecutor(num_workers=1)

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


def test_shards_of_lost_workers_are_computed_on_the_device_asked_for(tmp_path, monkeypatch):
    devices = []

    def recorded(task, simulator=None, on_samples=None):
        devices.append((task.device, simulator))
        return real(task, simulator)

    real = shard_task.compute_shard
    monkeypatch.setattr(shard_task, "compute_shard", recorded)
    config = small_config(8, num_realizations=1)
    executor = Broken(num_workers=1)
    generate(config, tmp_path / "a.h5", executor=executor, device="cpu", progress=False)
    # The simulator that checked the configuration need not be on that device.
    assert devices == [("cpu", None)]


def test_errors_in_workers_reach_the_caller(tmp_path):
    config = small_config(8, num_realizations=1)
    executor = LocalProcesses(num_workers=1)
    with pytest.raises(Exception, match="nonsense"):
        generate(config, tmp_path / "a.h5", executor=executor, device="nonsense", progress=False)
    executor.shutdown()
    assert not (tmp_path / "a.h5").exists()
