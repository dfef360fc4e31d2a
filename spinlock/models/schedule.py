"""Schedule of a training run: continuous warm-up, ramp of the loss terms, learning rate."""

import math
from dataclasses import dataclass
from typing import Literal

from lightning import Trainer

from spinlock.configuration.validation import check_types
from spinlock.errors import ConfigurationError

# Number of steps over which the learning rate rises: Adam's first estimates use few gradients.
_RISE = 50
# Final learning rate of the cosine, relative to the maximum.
_FINAL = 0.01
# Module of the schedulers that Lightning's learning rate finder puts in place of those of a model.
_FINDER = "lightning.pytorch.tuner.lr_finder"


@dataclass(frozen=True)
class ScheduleConfig:
    """Phases of a training run.

    Args:
        warmup: Fraction of the steps in which the decoder receives latents without quantization.
            K-means of the latents of these steps then initializes the codebook.
        ramp: Fraction of the steps in which the weights of the independence terms rise from 0.
        decay: Decay of the learning rate: ``cosine``, to a hundredth of the maximum, or
            ``constant``.

    Raises:
        ConfigurationError: An argument is out of range.

    Example:
        >>> from spinlock.models import ScheduleConfig
        >>> ScheduleConfig(warmup=0.1)
        ScheduleConfig(warmup=0.1, ramp=0.2, decay='cosine')
    """

    warmup: float = 0.2
    ramp: float = 0.2
    decay: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        check_types(self, "schedule.")
        for name in ("warmup", "ramp"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigurationError(f"schedule.{name}: must be in [0, 1), got {value}")


class Schedule:
    """A configuration applied to a run of known length.

    Args:
        config: Phases of the run.
        num_steps: Number of optimizer steps of the run; infinite if it is not known.

    Raises:
        ConfigurationError: A phase is a fraction of an infinite run.
    """

    def __init__(self, config: ScheduleConfig, num_steps: float) -> None:
        if math.isinf(num_steps) and (config.warmup or config.ramp or config.decay != "constant"):
            raise ConfigurationError(
                "schedule: its phases are fractions of the run, whose length is not known; set "
                "trainer.max_epochs or trainer.max_steps, or use schedule: {warmup: 0, ramp: 0, "
                "decay: constant}"
            )
        self.config = config
        self.num_steps = num_steps

    def in_force(self, trainer: Trainer) -> "Schedule":
        """Return this schedule, or one without phases while the learning rate finder measures.

        The finder compares the losses of different rates, and takes a rise for divergence. So the
        loss has all its terms from its first step on.
        """
        schedulers = (config.scheduler for config in trainer.lr_scheduler_configs)
        if all(type(scheduler).__module__ != _FINDER for scheduler in schedulers):
            return self
        return Schedule(ScheduleConfig(warmup=0.0, ramp=0.0, decay="constant"), math.inf)

    def is_warming_up(self, step: int) -> bool:
        """Return whether latents are not quantized yet."""
        return bool(self.config.warmup) and step < self.config.warmup * self.num_steps

    def ramp(self, step: int) -> float:
        """Return the factor of the independence terms' weights, in [0, 1]."""
        length = self.config.ramp * self.num_steps if self.config.ramp else 0
        return min(1.0, step / length) if length else 1.0

    def learning_rate(self, step: int) -> float:
        """Return the factor of the learning rate, in (0, 1]."""
        rise = min(1.0, (step + 1) / _RISE)
        if self.config.decay == "constant":
            return rise
        cosine = (1 + math.cos(math.pi * min(1.0, step / self.num_steps))) / 2
        return rise * (_FINAL + (1 - _FINAL) * cosine)
