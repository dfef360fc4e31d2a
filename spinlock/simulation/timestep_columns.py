"""Computes the columns of the dynamics that compare fields before and after timesteps.

`spinlock.simulation.dynamics_columns` defines the columns, `spinlock.simulation.dynamics` measures
them. The functions are pure, so `torch.vmap` applies them to several operators.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spinlock.simulation.reference_states import NUM_STATES

#: Size of perturbations relative to the rms of the state.
PERTURBATION = 1e-2
#: Number of timesteps of the trajectories.
STEPS = 3

# Floors of powers and of growth factors, far below what float32 fields resolve.
_POWER_FLOOR = 1e-20
_RELATIVE_FLOOR = 1e-6
# Bound of the fields of trajectories, which keeps unstable maps finite.
_FIELD_BOUND = 1e6

#: Makes a function of the fields of one operator act on those of one or of several operators: the
#: identity, or `torch.vmap`.
Each = Callable[[Callable[..., Any]], Callable[..., Any]]


def _power(fields: Tensor) -> Tensor:
    """Compute the mean square over all elements, float64."""
    return fields.double().square().mean()


def amplitude_columns(states: Tensor, images: Tensor, doubled: Tensor) -> dict[str, Tensor]:
    """Compute the columns that compare Φ(u) with u, Φ(−u) and Φ(2u).

    Args:
        states: R1, R2, -R1 and -R2.
        images: Images Φ(R) of the states.
        doubled: Image Φ(2 R1).

    Returns:
        Scalars ``evenness``, ``superposition``, ``amplitude_exponent`` and ``increment``.
    """
    plus, minus = images.chunk(2)
    even, odd = _power(plus + minus), _power(plus - minus)
    once, twice = _power(images[0]), _power(doubled)
    misfit = _power(doubled - 2 * images[0])
    increment = _power(images - states) / _power(states)
    bounded = twice.maximum(misfit * _RELATIVE_FLOOR).clamp(min=_POWER_FLOOR)
    ratio = twice.clamp(min=_POWER_FLOOR) / once.clamp(min=_POWER_FLOOR)
    return {
        "evenness": even / (even + odd).clamp(min=_POWER_FLOOR),
        "superposition": (misfit / bounded).sqrt(),
        "amplitude_exponent": 0.5 * ratio.log2(),
        "increment": 0.5 * increment.clamp(min=_RELATIVE_FLOOR**2).log10(),
    }


def _distances(pair: Tensor) -> tuple[Tensor, Tensor]:
    """Return the difference of two fields and its rms."""
    difference = pair[1] - pair[0]
    return difference, _power(difference).sqrt()


def trajectory_fields(fields: Tensor) -> Tensor:
    """Select the fields of the trajectories: R1, R2 and R1 perturbed, or their images."""
    return torch.cat((fields[:2], fields[NUM_STATES + 1, None]))


def trajectory_columns(
    start: Tensor, first: Tensor, update: Callable[[Tensor], Tensor], each: Each
) -> dict[str, Tensor]:
    """Compute the columns that need several timesteps.

    Args:
        start: R1, R2 and R1 perturbed, (..., 3, C, side, side).
        first: Images of these fields, of the same shape.
        update: Map Φ.
        each: `torch.vmap` if ``update`` maps the fields of several operators, else the identity.

    Returns:
        Columns ``lyapunov``, ``memory``, ``late_rms`` and ``late_persistence``, (...).
    """
    growth: list[Tensor] = []
    before, after = start, first
    for step in range(STEPS):
        if step:
            before = each(_rescaled)(after)
            after = update(before)
        after = after.clamp(-_FIELD_BOUND, _FIELD_BOUND)
        growth.append(each(_log_growth)(before, after))
    return {"lyapunov": torch.stack(growth).mean(dim=0), **each(_late_columns)(before, after)}


def _rescaled(fields: Tensor) -> Tensor:
    """Scale the perturbation to its nominal size; a perturbation of 0 stays 0."""
    rms = _power(fields[0]).sqrt().clamp(min=_RELATIVE_FLOOR)
    difference, distance = _distances(fields[::2])
    scale = PERTURBATION * rms / distance.clamp(min=_POWER_FLOOR)
    moved = fields[0] + difference * scale.float()
    return torch.stack((fields[0], fields[1], moved))


def _log_growth(before: Tensor, after: Tensor) -> Tensor:
    """Compute the logarithm of the factor by which the perturbation grows in a step."""
    _, old = _distances(before[::2])
    _, new = _distances(after[::2])
    return (new / old.clamp(min=_POWER_FLOOR)).clamp(min=_RELATIVE_FLOOR).log()


def _late_columns(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Compute the columns of the last step, from the fields before and after it."""
    late, energy = after[:2], _power(after[:2])
    return {
        "memory": (_power(late[0] - late[1]) / energy.clamp(min=_POWER_FLOOR)).sqrt(),
        "late_rms": 0.5 * energy.clamp(min=_POWER_FLOOR).log10(),
        "late_persistence": _correlation(before[:2], late),
    }


def _correlation(old: Tensor, new: Tensor) -> Tensor:
    """Compute the correlation of two batches of fields without the means of channels; 0 if flat."""
    u, w = (x.double() - x.double().mean(dim=(-2, -1), keepdim=True) for x in (old, new))
    scale = (u.square().mean() * w.square().mean()).sqrt()
    return ((u * w).mean() / scale.clamp(min=_POWER_FLOOR)).clamp(-1, 1)
