"""Measures the dynamics of an operator, which do not depend on an initial condition.

The noise-free map of one timestep, Φ(u) = S(a u + b F(u)), is evaluated at reference states that
are the same for all operators of a dataset. F is applied to three batches. The first consists of
the states, the field 2 R1, and a perturbed state for each direction: 9 fields for up to three
channels. It includes the first step of three trajectories, which start from R1, R2 and R1
perturbed. The other two batches are their second and their third step.
`spinlock.simulation.dynamics_columns` defines the columns.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Exported here, too, because the names belong to the result of `DynamicsMeter.measure`.
from spinlock.simulation.dynamics_columns import DYNAMICS_NAMES as DYNAMICS_NAMES
from spinlock.simulation.jacobian_kernel import kernel_columns
from spinlock.simulation.reference_states import NUM_STATES, reference_states

#: Size of perturbations relative to the rms of the state.
PERTURBATION = 1e-2
#: Number of timesteps of the trajectories.
STEPS = 3
#: Largest side in pixels of the grid on which operators of the built-in families are measured.
MEASURING_SIDE = 16
#: Noise below which the column `noise` does not distinguish operators.
SMALLEST_NOISE = 1e-6

# Floors of powers and of growth factors, far below what float32 fields resolve.
_POWER_FLOOR = 1e-20
_RELATIVE_FLOOR = 1e-6
# Bound of the fields of trajectories, which keeps unstable maps finite.
_FIELD_BOUND = 1e6


def measuring_side(grid_size: int, *, built_in: bool) -> int:
    """Return the side of the grid on which an operator is measured.

    Built-in operators act alike on every grid, so a small one is enough. A user's operator may
    depend on the grid, so it is measured on that of the dataset.

    Args:
        grid_size: Side of the dataset's grid in pixels.
        built_in: Whether the operator belongs to a built-in family.

    Example:
        >>> measuring_side(128, built_in=True), measuring_side(128, built_in=False)
        (16, 128)
    """
    return min(grid_size, MEASURING_SIDE) if built_in else grid_size


class DynamicsMeter:
    """Measures the dynamics of operators at the reference states of a dataset.

    Args:
        seed: Seed of the dataset.
        channels: Number of channels C of a field.
        side: Side of the grid in pixels, from `measuring_side`.
        device: Device of the operators; default: ``cpu``.

    Example:
        >>> meter = DynamicsMeter(seed=42, channels=3, side=16)
        >>> row = meter.measure(lambda u: u / 2, keep=0.0, gain=1.0)
        >>> round(dict(zip(DYNAMICS_NAMES, row.tolist()))["lyapunov"], 4)  # ln(1/2)
        -0.6931
    """

    def __init__(
        self, seed: int, channels: int, side: int, device: torch.device | str = "cpu"
    ) -> None:
        self._reference = reference_states(seed, channels, side, torch.device(device))
        states, directions = self._reference.states, self._reference.directions
        repeats = len(directions) // NUM_STATES
        perturbed = states.repeat(repeats, 1, 1, 1) + PERTURBATION * directions
        self._fields = torch.cat((states, 2 * states[:1], perturbed))

    @torch.inference_mode()
    def measure(
        self,
        operator: Callable[[Tensor], Tensor],
        *,
        keep: float,
        gain: float,
        flow: Callable[[Tensor], Tensor] | None = None,
        noise_scale: float = 0.0,
        noise_length: float = 0.0,
    ) -> Tensor:
        """Measure the dynamics of the map Φ(u) = flow(keep u + gain F(u)).

        Args:
            operator: Operator F, which maps fields (n, C, side, side) to fields of that shape, each
                field independently.
            keep: Weight of the field u, from `spinlock.simulation.rollout.update_weights`.
            gain: Weight of F(u).
            flow: Linear map S of fields (n, C, side, side), on the measuring grid; default: the
                identity.
            noise_scale: Standard deviation of the forcing.
            noise_length: Correlation length of the forcing as a fraction of the grid.

        Returns:
            Values in the order of `DYNAMICS_NAMES`, (D,) float32.
        """

        def update(fields: Tensor) -> Tensor:
            mixed = keep * fields + gain * operator(fields)
            return mixed if flow is None else flow(mixed)

        fields = self._fields
        images = update(fields)
        states, doubled = images[:NUM_STATES], images[NUM_STATES]
        perturbed = images[NUM_STATES + 1 :]
        repeats = len(perturbed) // NUM_STATES
        difference = perturbed - states.repeat(repeats, 1, 1, 1)
        # The first step of the trajectories from R1, R2 and R1 perturbed.
        start, first = (torch.cat((x[:2], x[NUM_STATES + 1, None])) for x in (fields, images))
        values = {
            **kernel_columns(difference / PERTURBATION, self._reference),
            **_amplitude_columns(fields[:NUM_STATES], states, doubled),
            **_trajectory_columns(start, first, update),
            # A fill, unlike a copy from the host, does not wait for the device.
            "noise": fields.new_full((), math.log10(max(gain * noise_scale, SMALLEST_NOISE))),
            "noise_length": fields.new_full((), noise_length),
        }
        return torch.stack([values[name].float() for name in DYNAMICS_NAMES])


def _power(fields: Tensor) -> Tensor:
    """Compute the mean square over all elements, float64."""
    return fields.double().square().mean()


def _amplitude_columns(states: Tensor, images: Tensor, doubled: Tensor) -> dict[str, Tensor]:
    """Compute the columns that compare Φ(u) with u, Φ(−u) and Φ(2u).

    Args:
        states: R1, R2, -R1 and -R2.
        images: Images Φ(R) of the states.
        doubled: Image Φ(2 R1).
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


def _trajectory_columns(
    start: Tensor, first: Tensor, update: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Compute the columns that need several timesteps.

    Args:
        start: R1, R2 and R1 perturbed, (3, C, side, side).
        first: Images of these fields, of the same shape.
        update: Map Φ.
    """
    growth: list[Tensor] = []
    before, after = start, first
    for step in range(STEPS):
        if step:
            # Scale the perturbation to its nominal size; a perturbation of 0 stays 0.
            rms = _power(after[0]).sqrt().clamp(min=_RELATIVE_FLOOR)
            difference, distance = _distances(after[::2])
            scale = PERTURBATION * rms / distance.clamp(min=_POWER_FLOOR)
            moved = after[0] + difference * scale.float()
            before = torch.stack((after[0], after[1], moved))
            after = update(before)
        after = after.clamp(-_FIELD_BOUND, _FIELD_BOUND)
        _, old = _distances(before[::2])
        _, new = _distances(after[::2])
        growth.append((new / old.clamp(min=_POWER_FLOOR)).clamp(min=_RELATIVE_FLOOR).log())
    late, energy = after[:2], _power(after[:2])
    return {
        "lyapunov": torch.stack(growth).mean(),
        "memory": (_power(late[0] - late[1]) / energy.clamp(min=_POWER_FLOOR)).sqrt(),
        "late_rms": 0.5 * energy.clamp(min=_POWER_FLOOR).log10(),
        "late_persistence": _correlation(before[:2], late),
    }


def _correlation(old: Tensor, new: Tensor) -> Tensor:
    """Compute the correlation of two batches of fields without the means of channels; 0 if flat."""
    u, w = (x.double() - x.double().mean(dim=(-2, -1), keepdim=True) for x in (old, new))
    scale = (u.square().mean() * w.square().mean()).sqrt()
    return ((u * w).mean() / scale.clamp(min=_POWER_FLOOR)).clamp(-1, 1)
