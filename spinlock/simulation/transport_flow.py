"""Moves, smooths and scales fields by the exact solution of a linear transport equation.

One step solves du/dt = D ∇²u − v·∇u + g u over a unit of time: the semigroup
S = exp(−D |k|² − i k·v + g) acts on the Fourier modes of wavevector k (radians per pixel) of a
periodic grid [1]_. Distances are in pixels; x is the last axis and y the one before it.

.. [1] L. C. Evans, "Partial Differential Equations", 2nd ed., sections 2.1, 2.3 and 4.3.1.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

#: Column of the dynamics of a transport operator -> the axis that holds its true value.
TRUE_DYNAMICS = {
    "true_diffusion": "diffusion",
    "true_growth": "growth",
    "true_shift_x": "velocity_x",
    "true_shift_y": "velocity_y",
}


class TransportFlow:
    """Exact linear map S of fields: advection, diffusion and growth.

    On an even grid a mode at the Nyquist frequency π cannot be shifted by a fraction of a pixel and
    stay real, so exp(−iπv) is replaced by its real part cos(πv), as in trigonometric interpolation.
    Whole pixels are therefore shifted exactly, and S(a) S(b) = S(a + b) for all other modes.

    Args:
        diffusion: Diffusion coefficient D in pixels² per step, at least 0; transport operators use
            0 to 1.
        velocity_x: Velocity along the last axis in pixels per step; transport operators use −3
            to 3.
        velocity_y: Velocity along the axis before it, in pixels per step, with the same range.
        growth: Growth rate g per step: a uniform field is multiplied by exp(g). Transport
            operators use −0.1 to 0.1.
        grid_size: Side of the grid, H = W, in pixels.
        device: Device of the fields; default: the CPU.

    Raises:
        ValueError: If the diffusion is negative, a number is not finite or the grid is empty.

    Example:
        >>> import torch
        >>> from spinlock.simulation.transport_flow import TransportFlow
        >>> flow = TransportFlow(0.0, 2.0, -1.0, 0.0, grid_size=8)
        >>> fields = torch.randn(4, 3, 8, 8)
        >>> torch.allclose(flow(fields), fields.roll((2, -1), dims=(-1, -2)), atol=1e-5)
        True
    """

    def __init__(
        self,
        diffusion: float,
        velocity_x: float,
        velocity_y: float,
        growth: float,
        grid_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(diffusion, velocity_x, velocity_y, growth, grid_size)
        self._size = grid_size
        rows, columns = _axes(diffusion, velocity_x, velocity_y, grid_size)
        # Rounding to float32 comes last and only once.
        multiplier = math.exp(growth) * rows[:, None] * columns
        self._multiplier = multiplier.to(torch.complex64).to(device)

    def __call__(self, fields: Tensor) -> Tensor:
        """Apply one step of transport to each field.

        Args:
            fields: Fields, float32 [n, C, H, W].

        Returns:
            Fields after the step, float32 [n, C, H, W]; the argument does not change.

        Raises:
            ValueError: If the fields have another grid.
        """
        return _moved(fields, self._multiplier, self._size)


class TransportFlows:
    """Exact linear maps of several operators, one of each, applied together.

    Equal to `TransportFlow` of each operator, up to rounding. What depends on the design alone is a
    table that is made on the host.

    Args:
        diffusion: Diffusion coefficients D in pixels² per step, [o].
        velocity_x: Velocities along the last axis in pixels per step, [o].
        velocity_y: Velocities along the axis before it, [o].
        growth: Growth rates g per step, [o].
        grid_size: Side of the grid, H = W, in pixels.

    Attributes:
        tables: Arrays by name: the factors ``rows`` of the multipliers along the axis before the
            last, which include the growth, complex128 [o, 1, 1, H, 1], and ``columns`` along the
            last axis, complex128 [o, 1, 1, 1, W // 2 + 1].

    Raises:
        ValueError: If a diffusion is negative, a number is not finite or the grid is empty.

    Example:
        >>> import torch
        >>> flows = TransportFlows([0.0, 0.0], [2.0, 1.0], [0.0, 0.0], [0.0, 0.0], grid_size=8)
        >>> flow = flows.with_tables({k: torch.from_numpy(v) for k, v in flows.tables.items()})
        >>> fields = torch.randn(2, 4, 3, 8, 8)  # operators, fields, channels, height, width
        >>> torch.allclose(flow(fields)[1], fields[1].roll(1, dims=-1), atol=1e-5)
        True
    """

    def __init__(
        self,
        diffusion: ArrayLike,
        velocity_x: ArrayLike,
        velocity_y: ArrayLike,
        growth: ArrayLike,
        *,
        grid_size: int,
    ) -> None:
        self._size = grid_size
        numbers = np.array([diffusion, velocity_x, velocity_y, growth], dtype=np.float64)
        for d, x, y, g in numbers.T.tolist():
            _check(d, x, y, g, grid_size)
        d, x, y = torch.from_numpy(numbers[:3, :, None])
        rows, columns = (factors.numpy() for factors in _axes(d, x, y, grid_size))
        grown = np.exp(numbers[3])[:, None] * rows
        self.tables: dict[str, NDArray[np.complex128]] = {
            "rows": grown[:, None, None, :, None],
            "columns": columns[:, None, None, None, :],
        }

    def with_tables(self, tables: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
        """Return one step of transport as a function of fields.

        Args:
            tables: The attribute `tables` as tensors on the device of the fields.

        Returns:
            Function that maps fields [o, n, C, H, W] float32 to fields of that shape.
        """
        multiplier = (tables["rows"] * tables["columns"]).to(torch.complex64)
        return lambda fields: _moved(fields, multiplier, self._size)


def _check(
    diffusion: float, velocity_x: float, velocity_y: float, growth: float, grid_size: int
) -> None:
    """Check the numbers of one operator."""
    numbers = (diffusion, velocity_x, velocity_y, growth)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(
            "diffusion, velocity_x, velocity_y and growth must be finite numbers, got "
            + ", ".join(f"{number:g}" for number in numbers)
        )
    if diffusion < 0:
        raise ValueError(
            f"diffusion must be at least 0 pixels² per step, got {diffusion:g}; a negative "
            "one amplifies rounding errors without bound"
        )
    if grid_size < 1:
        raise ValueError(f"grid_size must be at least 1 pixel, got {grid_size}")


def _moved(fields: Tensor, multiplier: Tensor, grid_size: int) -> Tensor:
    """Multiply the Fourier modes of fields."""
    size = (grid_size, grid_size)
    if fields.shape[-2:] != size:
        raise ValueError(
            f"fields of shape {tuple(fields.shape)}: this transport acts on a grid of "
            f"{size[0]}×{size[1]}; construct it with the grid_size of the fields"
        )
    moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(fields) * multiplier, s=size)
    return moved


_Number = TypeVar("_Number", float, Tensor)


def _axes(
    diffusion: _Number, velocity_x: _Number, velocity_y: _Number, grid_size: int
) -> tuple[Tensor, Tensor]:
    """Compute the factors of the multiplier, but not the growth, along both axes of a grid."""
    rows = torch.fft.fftfreq(grid_size, dtype=torch.float64, device="cpu")
    columns = torch.fft.rfftfreq(grid_size, dtype=torch.float64, device="cpu")
    return _factors(rows, diffusion, velocity_y), _factors(columns, diffusion, velocity_x)


def _factors(frequency: Tensor, diffusion: _Number, velocity: _Number) -> Tensor:
    """Compute exp(−D k² − i k v) of the modes of one axis.

    Args:
        frequency: Frequencies in cycles per pixel, float64 [n].
        diffusion: Diffusion coefficient D in pixels² per step; that of o operators has the shape
            [o, 1] and is float64.
        velocity: Velocity v along the axis in pixels per step, likewise.

    Returns:
        Factors, complex128 [n] or [o, n]; real at the Nyquist frequency.
    """
    k = 2 * math.pi * frequency
    phase = k * velocity
    sine = torch.where(frequency.abs() == 0.5, 0.0, -phase.sin())
    return torch.complex(phase.cos(), sine) * (-diffusion * k.square()).exp()
