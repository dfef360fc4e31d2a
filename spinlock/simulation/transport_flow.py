"""Moves, smooths and scales fields by the exact solution of a linear transport equation.

One step solves du/dt = D ∇²u − v·∇u + g u over a unit of time: the semigroup
S = exp(−D |k|² − i k·v + g) acts on the Fourier modes of wavevector k (radians per pixel) of a
periodic grid [1]_. Distances are in pixels; x is the last axis and y the one before it.

.. [1] L. C. Evans, "Partial Differential Equations", 2nd ed., sections 2.1, 2.3 and 4.3.1.
"""

import math

import torch
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
        self._size = grid_size
        rows = _factors(
            torch.fft.fftfreq(grid_size, dtype=torch.float64, device="cpu"), diffusion, velocity_y
        )
        columns = _factors(
            torch.fft.rfftfreq(grid_size, dtype=torch.float64, device="cpu"), diffusion, velocity_x
        )
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
        size = (self._size, self._size)
        if fields.shape[-2:] != size:
            raise ValueError(
                f"fields of shape {tuple(fields.shape)}: this transport acts on a grid of "
                f"{size[0]}×{size[1]}; construct it with the grid_size of the fields"
            )
        moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(fields) * self._multiplier, s=size)
        return moved


def _factors(frequency: Tensor, diffusion: float, velocity: float) -> Tensor:
    """Compute exp(−D k² − i k v) of the modes of one axis.

    Args:
        frequency: Frequencies in cycles per pixel, float64 [n].
        diffusion: Diffusion coefficient D in pixels² per step.
        velocity: Velocity v along the axis in pixels per step.

    Returns:
        Factors, complex128 [n]; real at the Nyquist frequency.
    """
    k = 2 * math.pi * frequency
    phase = k * velocity
    sine = torch.where(frequency.abs() == 0.5, 0.0, -phase.sin())
    return torch.complex(phase.cos(), sine) * (-diffusion * k.square()).exp()
