"""Makes the fields at which the dynamics of every operator of a dataset are measured.

They depend only on the seed of the dataset, the number of channels and the grid. All operators are
therefore measured at the same fields and can be compared with each other.

- **States** are R1 (white noise), R2 (power spectrum f^-2), -R1 and -R2. Each has unit variance and
  no channel means.
- **Directions** are fields in which the states are perturbed. Channel c of direction p is
  s_pc U_p V_c: signs s from a Hadamard matrix, a random all-pass phase U_p of the direction and one
  V_c of the channel. All Fourier coefficients have the same modulus. The signs separate the
  channels exactly [1]_. The phases turn everything that does not act like a convolution into noise
  that is spread evenly over positions and independent between directions.

.. [1] K. J. Horadam, "Hadamard matrices and their applications", Princeton 2007, section 3.1
   (weighing designs).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.simulation.calibration import shaped_fields
from spinlock.simulation.randomness import Stream, normal

#: Number of states; each is perturbed in the same number of directions.
NUM_STATES = 4
#: Largest number of directions P; P directions separate up to P - 1 channels.
MAX_DIRECTIONS = 16

# Substreams of the random numbers; the index counts fields.
_STATES, _CHANNEL_PHASES, _DIRECTION_PHASES, _SIGNS = range(4)


@dataclass(frozen=True)
class ReferenceStates:
    """Fields that operators are measured with.

    Attributes:
        states: States R1, R2, -R1, -R2, float32 [4, C, H, W].
        directions: Perturbations of unit variance, float32 [P, C, H, W]. Direction p perturbs state
            p mod 4.
        spectra: Conjugated Fourier transforms of the directions, of unit modulus,
            complex128 [P, C, H, W // 2 + 1].
        separable: Whether the signs separate the channels, which needs P > C. If not, the signs are
            random, and the channels appear as noise of each other.
    """

    states: Tensor
    directions: Tensor
    spectra: Tensor
    separable: bool


def num_directions(channels: int) -> int:
    """Return the number of directions P: the smallest of 4, 8 and 16 above the number of channels.

    With P > C directions, the residuals of a convolution have P - C degrees of freedom, from which
    the state-dependent part of the Jacobian is estimated. With 16 or more channels, P is 16.

    Args:
        channels: Number of channels C of a field.

    Example:
        >>> [num_directions(channels) for channels in (1, 3, 4, 8, 40)]
        [4, 4, 8, 16, 16]
    """
    count = NUM_STATES
    while count <= channels and count < MAX_DIRECTIONS:
        count *= 2
    return count


def hadamard(order: int) -> Tensor:
    """Return Sylvester's Hadamard matrix, whose rows and columns of signs are orthogonal.

    Args:
        order: Number of rows and columns, a power of two.

    Returns:
        Signs, float64 [order, order].

    Example:
        >>> hadamard(2)
        tensor([[ 1.,  1.],
                [ 1., -1.]], dtype=torch.float64)
    """
    signs = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    while len(signs) < order:
        signs = torch.cat((torch.cat((signs, signs), 1), torch.cat((signs, -signs), 1)))
    return signs


@lru_cache(maxsize=8)
def reference_states(seed: int, channels: int, side: int, device: torch.device) -> ReferenceStates:
    """Return the states and directions of a dataset; repeated calls share them.

    Args:
        seed: Seed of the dataset.
        channels: Number of channels C of a field.
        side: Side of the grid in pixels.
        device: Device of the result.

    Example:
        >>> import torch
        >>> reference = reference_states(42, 3, 16, torch.device("cpu"))
        >>> reference.states.shape, reference.directions.shape
        (torch.Size([4, 3, 16, 16]), torch.Size([4, 3, 16, 16]))
    """
    # All of this is computed once on the CPU, so every device has the same fields.
    white = _white(seed, _STATES, 2, channels, side)
    slope = torch.tensor([0.0, 2.0], dtype=torch.float64, device="cpu")
    states = shaped_fields(white, slope)
    count = num_directions(channels)
    of_channel = _phases(_white(seed, _CHANNEL_PHASES, 1, channels, side))
    of_direction = _phases(_white(seed, _DIRECTION_PHASES, count, 1, side))
    separable = channels < count
    if separable:
        signs = hadamard(count)[:, :channels]
    else:
        drawn = normal(seed, Stream.REFERENCE, 0, count * channels, substream=_SIGNS)
        signs = drawn.view(count, channels).sign().double()
    size = (side, side)
    spectra = signs[:, :, None, None] * of_channel * of_direction
    directions = torch.fft.irfft2(spectra, s=size, norm="ortho").float()
    exact = torch.fft.rfft2(directions.double(), norm="ortho").conj().resolve_conj()
    return ReferenceStates(
        torch.cat((states, -states)).to(device),
        directions.to(device),
        exact.to(device),
        separable,
    )


def _white(seed: int, substream: int, count: int, channels: int, side: int) -> Tensor:
    index = torch.arange(count, device="cpu")
    drawn = normal(seed, Stream.REFERENCE, index, channels * side**2, substream=substream)
    return drawn.view(count, channels, side, side)


def _phases(white: Tensor) -> Tensor:
    """Return the phase factors of the Fourier coefficients of real fields."""
    spectrum: Tensor = torch.fft.rfft2(white.double())
    return spectrum / spectrum.abs()
