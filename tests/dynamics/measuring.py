"""Columns of one operator by name, and the reference states that were used."""

import math

import torch

from spinlock.simulation.dynamics import DynamicsMeter
from spinlock.simulation.dynamics_columns import DYNAMICS_NAMES
from spinlock.simulation.reference_states import reference_states

SEED = 42
CPU = torch.device("cpu")


def measure(operator, channels=3, side=16, keep=0.0, gain=1.0, seed=SEED, **options):
    """Columns by name."""
    probe = DynamicsMeter(seed, channels, side)
    row = probe.measure(operator, keep=keep, gain=gain, **options)
    assert row.dtype == torch.float32
    return dict(zip(DYNAMICS_NAMES, row.tolist(), strict=True))


def states(channels=3, side=16, seed=SEED):
    return reference_states(seed, channels, side, CPU).states.double().numpy()


def lg(x):
    return math.log10(x)
