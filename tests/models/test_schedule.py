"""Warm-up, ramp and learning rate of a run."""

import math

import pytest

from spinlock.errors import ConfigurationError
from spinlock.models.schedule import Schedule, ScheduleConfig


def test_parts_are_fractions_of_the_run():
    schedule = Schedule(ScheduleConfig(warmup=0.25, ramp=0.5), 1000)
    assert [schedule.is_warming_up(step) for step in (0, 249, 250, 999)] == [1, 1, 0, 0]
    assert [schedule.ramp(step) for step in (0, 100, 500, 999)] == [0.0, 0.2, 1.0, 1.0]


def test_no_warm_up_and_no_ramp():
    schedule = Schedule(ScheduleConfig(warmup=0, ramp=0, decay="constant"), math.inf)
    assert not schedule.is_warming_up(0)
    assert schedule.ramp(0) == 1
    assert schedule.learning_rate(0) == pytest.approx(1 / 50)
    assert schedule.learning_rate(10**6) == 1


def test_the_learning_rate_is_a_cosine():
    schedule = Schedule(ScheduleConfig(), 1000)
    assert schedule.learning_rate(500) == pytest.approx(0.505)
    assert schedule.learning_rate(250) == pytest.approx(0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)
    assert schedule.learning_rate(1000) == schedule.learning_rate(1100) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "options", [{"warmup": 0.1, "ramp": 0}, {"warmup": 0, "ramp": 0.1}, {"warmup": 0, "ramp": 0}]
)
def test_fractions_of_an_endless_run_are_rejected(options):
    with pytest.raises(ConfigurationError, match="length is not known"):
        Schedule(ScheduleConfig(**options), math.inf)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 1.0}, r"schedule.warmup: must be in \[0, 1\), got 1.0"),
        ({"ramp": -0.1}, r"schedule.ramp: must be in \[0, 1\), got -0.1"),
        ({"decay": "linear"}, "schedule.decay: must be one of 'cosine', 'constant', got 'linear'"),
    ],
)
def test_bad_configurations_are_rejected(options, message):
    with pytest.raises(ConfigurationError, match=message):
        ScheduleConfig(**options)
