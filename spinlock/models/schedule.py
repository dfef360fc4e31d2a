"""How a training run is laid out: continuous warm-up, ramp of the terms, learning rate."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from spinlock.errors import ConfigurationError

Decay = Literal["cosine", "constant"]

# The learning rate rises over these steps: Adam's first estimates are of few gradients.
_RISE = 50
# Of the peak: where a cosine ends.
_FLOOR = 0.01


@dataclass(frozen=True)
class ScheduleConfig:
    """Parts of a training run.

    Args:
        warmup: Fraction of the steps in which latents pass to the decoder unquantized; the codebook
            is then made by k-means of the latents of these steps.
        ramp: Fraction of the steps over which the weights of the independence terms rise from 0.
        decay: Of the learning rate: ``cosine``, to a hundredth at the end, or ``constant``.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    warmup: float = 0.2
    ramp: float = 0.2
    decay: Decay = "cosine"

    def __post_init__(self) -> None:
        for name in ("warmup", "ramp"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigurationError(f"schedule.{name}: must be in [0, 1), got {value}")
        if self.decay not in get_args(Decay):
            raise ConfigurationError(
                f"schedule.decay: must be one of {', '.join(get_args(Decay))}; got {self.decay!r}"
            )


class Schedule:
    """A configuration applied to a run of so many optimizer steps.

    Args:
        config: The parts.
        num_steps: Steps of the run; infinite where nobody knows.

    Raises:
        ConfigurationError: If a part is a fraction of an infinite run.
    """

    def __init__(self, config: ScheduleConfig, num_steps: float) -> None:
        if math.isinf(num_steps) and (config.warmup or config.ramp or config.decay != "constant"):
            raise ConfigurationError(
                "schedule: is in fractions of the run, whose length is not known; set "
                "trainer.max_epochs or trainer.max_steps, or take schedule: {warmup: 0, ramp: 0, "
                "decay: constant}"
            )
        self.config = config
        self.num_steps = num_steps

    def is_warming_up(self, step: int) -> bool:
        """Whether latents are still continuous."""
        return bool(self.config.warmup) and step < self.config.warmup * self.num_steps

    def ramp(self, step: int) -> float:
        """Factor of the independence terms' weights, in [0, 1]."""
        length = self.config.ramp * self.num_steps if self.config.ramp else 0
        return min(1.0, step / length) if length else 1.0

    def learning_rate(self, step: int) -> float:
        """Factor of the learning rate, in (0, 1]."""
        rise = min(1.0, (step + 1) / _RISE)
        if self.config.decay == "constant":
            return rise
        cosine = (1 + math.cos(math.pi * min(1.0, step / self.num_steps))) / 2
        return rise * (_FLOOR + (1 - _FLOOR) * cosine)
