"""Processes end soon after a signal: with one line of output, and without orphans."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from spinlock.commands.command_line import main
from spinlock.generation import generate
from spinlock.storage import read_info
from tests.helpers import small_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# Sizes at which one unit of work takes minutes, so that no run ends because its work is done.
LARGE = {
    "num_samples": 32,
    "num_timesteps": 50,
    "num_realizations": 2,
    "block_size": 4,
    "parameter_space": {"grid_size": [128], "base_channels": {"low": 32, "high": 32}},
    "storage": {"fields": "none", "shard_size": 4},
}
SMALL = small_config(40, num_realizations=1)
# One worker, since each takes seconds to import everything; PROGRAM has several.
LOCAL = {"class_path": "spinlock.generation.LocalProcesses", "init_args": {"num_workers": 1}}
TERMINATED = "spinlock: terminated; run the same command again: what is finished is kept"
SAID = {signal.SIGTERM: TERMINATED, signal.SIGINT: "spinlock: interrupted"}
# A program without signal handlers.
PROGRAM = """
import sys
from spinlock import GenerationConfig, generate
from spinlock.generation.executors import LocalProcesses
if __name__ == "__main__":
    config = GenerationConfig.from_json(sys.argv[1])
    generate(config, sys.argv[2], executor=LocalProcesses(num_workers=2), progress=False)
"""


class Run:
    """A program in a separate process, with the processes that it starts."""

    def __init__(self, arguments):
        # All descendants inherit the mark in their environment, also if their parents have ended.
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | {"SPINLOCK_TEST_RUN": self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def alive(self):
        """Processes of the run that have not ended."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state != "Z":
                found.append(int(folder.name))
        return found

    def wait_for(self, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"nothing came; the run is {self.process.poll()}"
            time.sleep(0.01)

    def end(self, signum):
        """Send a signal; returns the exit status and what was printed."""
        self.process.send_signal(signum)
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, printed

    def assert_nothing_is_left(self):
        self.wait_for(lambda: not self.alive(), seconds=20)

    def clean(self):
        for process in self.alive():
            os.kill(process, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def run():
    runs = []

    def start(*arguments):
        runs.append(Run(arguments))
        return runs[-1]

    yield start
    for each in runs:
        each.clean()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def half_written(path):
    return list(path.parent.rglob("*.tmp"))


def wait_until(moment, run, path, workers=1):
    if moment == "starting":
        # The tracker of resources comes first, then the workers.
        run.wait_for(lambda: len(run.alive()) > 2)
    elif moment == "computing":
        run.wait_for(lambda: len(half_written(path)) >= workers)
    else:
        run.wait_for(lambda: list(path.parent.rglob("shard-*.h5")))


def settings_file(path, generation, executor=None, **sections):
    data = {"path": str(path), "progress": False, "generation": generation, "executor": executor}
    file = path.with_suffix(".yaml")
    file.write_text(json.dumps({"data": data, **sections}))
    return f"--config={file}"


@pytest.mark.parametrize(
    ("signum", "moment"),
    [
        (signal.SIGKILL, "starting"),
        (signal.SIGKILL, "computing"),
        # As fatal to a program without handlers.
        pytest.param(signal.SIGTERM, "computing", marks=pytest.mark.repeated),
    ],
)
def test_workers_end_with_the_process_that_started_them(signum, moment, run, path):
    program = run("-c", PROGRAM, json.dumps(LARGE), str(path))
    wait_until(moment, program, path, workers=2)
    status, _ = program.end(signum)
    assert status == -signum
    program.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("signum", "moment"),
    [
        pytest.param(signal.SIGTERM, "starting", marks=pytest.mark.repeated),
        (signal.SIGTERM, "computing"),
        # Without workers, this is the signal of the next test.
        pytest.param(signal.SIGINT, "computing", marks=pytest.mark.repeated),
    ],
)
def test_a_signal_ends_generation(signum, moment, run, path):
    config = settings_file(path, LARGE, LOCAL)
    program = run("-m", "spinlock", "generate", config)
    wait_until(moment, program, path)
    status, printed = program.end(signum)
    assert status == 128 + signum, printed
    assert printed.splitlines()[-1] == SAID[signum]
    assert "Traceback" not in printed
    program.assert_nothing_is_left()


@pytest.mark.repeated
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_generation_in_the_process_itself(signum, run, path):
    program = run("-m", "spinlock", "generate", settings_file(path, LARGE))
    program.wait_for(lambda: half_written(path))
    status, printed = program.end(signum)
    assert (status, printed.splitlines()[-1]) == (128 + signum, SAID[signum])
    assert "Traceback" not in printed


@pytest.mark.repeated
@pytest.mark.parametrize("executor", [None, LOCAL])
def test_what_was_terminated_is_resumed(executor, run, path, tmp_path):
    """Unfinished shards that workers have left behind are removed, too."""
    whole = tmp_path / "whole" / "a.h5"
    generate(SMALL, whole, progress=False)
    config = settings_file(path, json.loads(SMALL.to_json()), executor)
    program = run("-m", "spinlock", "generate", config)
    program.wait_for(lambda: list(path.parent.glob("a.h5.parts/*/shard-*.h5")))
    status, printed = program.end(signal.SIGTERM)
    assert (status, printed.splitlines()[-1]) == (143, TERMINATED)
    assert list(path.parent.glob("a.h5.parts/*/shard-*.h5"))
    main(["generate", config])
    assert read_info(path).digest == read_info(whole).digest
    assert not half_written(path)


def test_a_signal_ends_fit_while_the_file_is_built(run, path):
    model = {"class_path": "spinlock.models.FeatureVQVAE", "init_args": {"codebook_size": 8}}
    trainer = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    config = settings_file(path, LARGE, LOCAL, model=model, trainer=trainer)
    program = run("-m", "spinlock", "fit", config)
    wait_until("computing", program, path)
    status, printed = program.end(signal.SIGTERM)
    assert (status, printed.splitlines()[-1]) == (143, TERMINATED)
    assert "Traceback" not in printed
    program.assert_nothing_is_left()


# The command, stopped in the middle of what it does.
STOPPED = """
import sys, time
import {module} as module
def stop(*args, **kwargs):
    print("ready", flush=True)
    time.sleep(100)
module.{name} = stop
sys.argv[1:] = {arguments!r}
from spinlock.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "name", "command_name"),
    [
        ("spinlock.commands.check", "check_dataset", "check"),
        ("spinlock.runtime.ordered_map", "settle_vector_math", "extract-features"),
    ],
)
def test_a_signal_ends_other_commands(module, name, command_name, run, path):
    generate(small_config(4, num_realizations=1), path, progress=False)
    before = path.read_bytes()
    arguments = [command_name, str(path)]
    program = run("-c", STOPPED.format(module=module, name=name, arguments=arguments))
    assert program.process.stdout.readline() == "ready\n"
    status, printed = program.end(signal.SIGTERM)
    assert (status, printed.splitlines()[-1]) == (143, TERMINATED)
    assert "Traceback" not in printed
    assert path.read_bytes() == before
