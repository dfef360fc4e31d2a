"""Stages of a device are timed by its events, without waiting for it."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch

from spinlock.runtime.stage_clock import DeviceClock, StageClock, device_clock
from spinlock.simulation.simulator import Simulator
from tests.helpers import small_config


class Stream:
    """A queue of work: the host is ahead of the device until it synchronizes."""

    def __init__(self):
        self.queued = self.reached = 0.0
        self.waits = 0

    def compute(self, seconds):
        self.queued += seconds

    def catch_up(self):
        self.waits += 1
        self.reached = self.queued


@dataclasses.dataclass
class Event:
    stream: Stream
    enable_timing: bool = False
    at: float = -1.0

    def record(self, stream):
        self.at = stream.queued

    def query(self):
        return self.at <= self.stream.reached

    def elapsed_time(self, end):
        timed = self.enable_timing and end.enable_timing
        assert timed, "torch raises an error for events that were made without it"
        assert end.query(), "torch raises an error for events that the device has not reached"
        return 1000 * (end.at - self.at)

    def synchronize(self):
        self.stream.catch_up()


@pytest.fixture
def stream(monkeypatch):
    queue = Stream()
    monkeypatch.setattr(torch.cuda, "Event", lambda **options: Event(queue, **options))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: queue)
    return queue


def test_times_are_those_of_the_device_and_are_read_when_it_is_done(stream):
    total = StageClock()
    clock = device_clock(total, torch.device("cuda"))
    for seconds in (1.0, 2.0):
        with clock.stage("convolutions"):
            stream.compute(seconds)
    stream.compute(5.0)  # no stage
    stream.catch_up()
    with clock.stage("features"):
        stream.compute(4.0)
    clock.settle()
    assert total.seconds == {"convolutions": 3.0}, "features are computed later"
    stream.catch_up()
    clock.settle()
    clock.settle()
    assert clock.seconds == total.seconds == {"convolutions": 3.0, "features": 4.0}
    assert stream.waits == 2, "the clock does not wait"


def test_two_threads_read_each_stage_once(stream, monkeypatch):
    total = StageClock()
    clock = device_clock(total, torch.device("cuda"))
    for _ in range(3):
        with clock.stage("convolutions"):
            stream.compute(1.0)
    stream.catch_up()
    together, original = threading.Barrier(2), Event.query

    def query(event):
        with suppress(threading.BrokenBarrierError):
            together.wait(0.05)  # the other thread asks at the same time, if it can
        return original(event)

    monkeypatch.setattr(Event, "query", query)
    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(clock.settle) for _ in range(2)]:
            task.result(10)
    assert total.seconds == {"convolutions": 3.0}


def test_a_cpu_has_the_clock_of_its_threads():
    clock = StageClock()
    assert device_clock(clock, torch.device("cpu")) is clock


def test_a_simulator_times_its_device_without_waiting_more_often(stream, monkeypatch):
    """One wait for each block, which is the one for its copy."""
    monkeypatch.setattr(
        "spinlock.simulation.simulator.device_clock",
        lambda clock, device: DeviceClock(clock, torch.device("cuda")),
    )
    simulator = Simulator(small_config(12, num_realizations=1, num_timesteps=2), "cpu")
    runner = simulator._one_by_one._runner
    original = runner.roll_out

    def roll_out(*args):
        original(*args)
        with simulator._stages.stage("convolutions"):
            stream.compute(0.5)

    monkeypatch.setattr(runner, "roll_out", roll_out)
    monkeypatch.setattr(simulator, "_on_threads", simulator._on_device)
    parts = list(simulator.samples(0, 12))
    assert sum(map(len, parts)) == 12
    assert stream.waits == len(parts)
    assert simulator.clock.seconds["convolutions"] == 6.0
    assert {"initial conditions", "forcing", "features"} <= set(simulator.clock.seconds)
