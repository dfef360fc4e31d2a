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
from typing import Any

import torch
from torch import Tensor

# Exported here, too, because the names belong to the result of `DynamicsMeter.measure`.
from spinlock.simulation.dynamics_columns import DYNAMICS_NAMES as DYNAMICS_NAMES
from spinlock.simulation.jacobian_kernel import kernel_columns
from spinlock.simulation.reference_states import NUM_STATES, reference_states
from spinlock.simulation.timestep_columns import (
    PERTURBATION,
    Each,
    amplitude_columns,
    trajectory_columns,
    trajectory_fields,
)

#: Largest side in pixels of the grid on which operators of the built-in families are measured.
MEASURING_SIDE = 16
#: Noise below which the column `noise` does not distinguish operators.
SMALLEST_NOISE = 1e-6


def _each_operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `torch.vmap` of a function."""
    # In torch 2.6, this imports torch's compiler, which fails where interception is disabled, as
    # `spinlock.runtime.arithmetic` does.
    with torch._C._EnableTorchFunction():
        return torch.vmap(function)


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

    Attributes:
        side: Side of the grid in pixels.

    Example:
        >>> meter = DynamicsMeter(seed=42, channels=3, side=16)
        >>> row = meter.measure(lambda u: u / 2, keep=0.0, gain=1.0)
        >>> round(dict(zip(DYNAMICS_NAMES, row.tolist()))["lyapunov"], 4)  # ln(1/2)
        -0.6931
    """

    def __init__(
        self, seed: int, channels: int, side: int, device: torch.device | str = "cpu"
    ) -> None:
        self.side = side
        self._reference = reference_states(seed, channels, side, torch.device(device))
        states, directions = self._reference.states, self._reference.directions
        repeats = len(directions) // NUM_STATES
        perturbed = states.repeat(repeats, 1, 1, 1) + PERTURBATION * directions
        self._fields = torch.cat((states, 2 * states[:1], perturbed))

    @property
    def batches(self) -> tuple[int, int]:
        """Numbers of fields that the operator is applied to at a time."""
        return len(self._fields), len(trajectory_fields(self._fields))

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
        columns = self._columns(fields, update, lambda function: function)
        # A fill, unlike a copy from the host, does not wait for the device.
        noise = fields.new_full((), math.log10(max(gain * noise_scale, SMALLEST_NOISE)))
        return _row(columns, noise, fields.new_full((), noise_length))

    @torch.inference_mode()
    def measure_together(
        self,
        operators: Callable[[Tensor], Tensor],
        *,
        keep: Tensor,
        gain: Tensor,
        noise_scale: Tensor,
        noise_length: Tensor,
        flow: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Measure the dynamics of several operators in as many operations as those of one.

        Each row equals the result of `measure` up to rounding. Nothing waits for the device.

        Args:
            operators: Map of fields (o, n, C, side, side) to fields of that shape, which applies
                operator i to the fields i.
            keep: Weights of the field u, (o,) float32, on the device of the meter.
            gain: Weights of F(u), (o,) float32.
            noise_scale: Standard deviations of the forcing, (o,) float32.
            noise_length: Correlation lengths of the forcing as fractions of the grid, (o,) float32.
            flow: Linear maps of fields (o, n, C, side, side), on the measuring grid; default: the
                identity.

        Returns:
            Values in the order of `DYNAMICS_NAMES`, (o, D) float32.

        Example:
            >>> factors = torch.tensor([0.5, 2.0])
            >>> zero, one = torch.zeros(2), torch.ones(2)
            >>> rows = DynamicsMeter(seed=42, channels=3, side=16).measure_together(
            ...     lambda u: factors[:, None, None, None, None] * u,
            ...     keep=zero, gain=one, noise_scale=zero, noise_length=zero,
            ... )
            >>> rows[:, DYNAMICS_NAMES.index("lyapunov")]
            tensor([-0.6931,  0.6931])
        """
        kept, gained = (weights[:, None, None, None, None] for weights in (keep, gain))

        def update(fields: Tensor) -> Tensor:
            mixed = kept * fields + gained * operators(fields)
            return mixed if flow is None else flow(mixed)

        fields = self._fields.expand(len(keep), -1, -1, -1, -1)
        columns = self._columns(fields, update, _each_operator)
        noise = (gain * noise_scale).clamp(min=SMALLEST_NOISE).log10()
        return _row(columns, noise, noise_length)

    def _columns(
        self, fields: Tensor, update: Callable[[Tensor], Tensor], each: Each
    ) -> dict[str, Tensor]:
        """Compute all columns except those of the noise.

        Args:
            fields: Fields of this meter, (n, C, side, side), or expanded to (o, n, C, side, side).
            update: Map Φ, of one operator or of o operators.
            each: `_each_operator` if ``update`` maps the fields of o operators, else the identity.
        """
        images = update(fields)
        start, first = (each(trajectory_fields)(x) for x in (fields, images))
        return {
            **each(self._first_columns)(images),
            **trajectory_columns(start, first, update, each),
        }

    def _first_columns(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the columns that follow from the images of the fields."""
        states, doubled = images[:NUM_STATES], images[NUM_STATES]
        perturbed = images[NUM_STATES + 1 :]
        repeats = len(perturbed) // NUM_STATES
        difference = perturbed - states.repeat(repeats, 1, 1, 1)
        return {
            **kernel_columns(difference / PERTURBATION, self._reference),
            **amplitude_columns(self._fields[:NUM_STATES], states, doubled),
        }


def _row(columns: dict[str, Tensor], noise: Tensor, noise_length: Tensor) -> Tensor:
    """Put columns (...) in the order of `DYNAMICS_NAMES`, (..., D) float32."""
    values = {**columns, "noise": noise, "noise_length": noise_length}
    return torch.stack([values[name] for name in DYNAMICS_NAMES], dim=-1).float()
