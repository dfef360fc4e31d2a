"""The interface of codebooks, whatever their kind: from latents to tokens and back.

References:
    1. van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, NeurIPS 2017:
       the straight-through gradient, and (appendix A.1) codes as moving averages.
    2. Zeghidour et al., SoundStream, IEEE/ACM TASLP 30 (2022), section III-C: residual codebooks,
       k-means initialization and revival of codes that fall out of use.
    3. Yang et al., HiFi-Codec, arXiv:2305.02765: residual codebooks for groups of columns.
    4. Mentzer et al., Finite scalar quantization, ICLR 2024.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spinlock.errors import ConfigurationError

# Of soft assignments, over the mean squared distance to the nearest code.
_TEMPERATURE = 0.5

Kind = Literal["vector", "residual", "grouped", "finite_scalar"]


@dataclass(frozen=True)
class QuantizerConfig:
    """Which codebook, and how it learns.

    Args:
        kind: ``vector``: one codebook [1]. ``residual``: a sequence of codebooks, each for what the
            ones before it left over [2]. ``grouped``: a codebook for each group of latent columns.
            ``finite_scalar``: a fixed grid in a few learned columns [4].
        num_codebooks: Q, of ``residual`` and ``grouped``.
        levels: Grid points of each column of ``finite_scalar``; their product is the codebook size.
        decay: Of the codes' moving averages, a step; ``finite_scalar`` has none.
        dead_code_threshold: A code that takes fewer samples of a batch than this, in moving
            average, is moved to a random latent of the batch. Even use is batch size / codebook
            size; keep it well below. 0 revives none.
        kmeans_iterations: Of the initialization.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    kind: Kind = "vector"
    num_codebooks: int = 1
    levels: Sequence[int] = ()
    decay: float = 0.95
    dead_code_threshold: float = 0.05
    kmeans_iterations: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if self.kind not in get_args(Kind):
            raise ConfigurationError(
                f"quantizer.kind: must be one of {', '.join(get_args(Kind))}; got {self.kind!r}"
            )
        single = self.kind in ("vector", "finite_scalar")
        if self.num_codebooks < 1 or (single and self.num_codebooks > 1):
            allowed = "1; take residual or grouped for more" if single else "at least 1"
            raise ConfigurationError(
                f"quantizer.num_codebooks: of {self.kind} must be {allowed}; got "
                f"{self.num_codebooks}"
            )
        if bool(self.levels) != (self.kind == "finite_scalar"):
            raise ConfigurationError(
                "quantizer.levels: belong to finite_scalar, which needs them, for example [8, 8, "
                f"4]; got {list(self.levels)} for {self.kind}"
            )


class Quantizer(nn.Module, ABC):
    """Maps latents ``[B, D]`` to codes ``[B, D]`` and their tokens.

    Tokens are int64 ``[B]``, or ``[B, Q]`` where there are Q > 1 codebooks, each in
    [0, `codebook_size`).

    Args:
        codebook_size: Number of codes of each codebook.
        num_codebooks: Q.
    """

    def __init__(self, codebook_size: int, num_codebooks: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks

    @property
    @abstractmethod
    def is_initialized(self) -> bool:
        """Whether there are codes; until then `forward` is not to be called while training."""

    @abstractmethod
    def initialize(self, latents: Tensor, batch_size: int) -> None:
        """Place the codes among latents ``[N, D]``, weighing them like one batch of that size."""

    @abstractmethod
    def codes(self, tokens: Tensor) -> Tensor:
        """The codes ``[B, D]`` of tokens as `forward` gives them."""

    @abstractmethod
    def soft_assignments(self, latent: Tensor) -> list[Tensor]:
        """For each codebook the probabilities ``[B, codebook_size]`` of its codes, differentiable.

        The softmax of minus squared distance over half the batch's mean squared distance to the
        nearest code; distances of a residual codebook are those of what the ones before it left
        over.
        """

    @abstractmethod
    def _quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, with the latents' gradient, and tokens; while training codes learn."""

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codes ``[B, D]``, with the latents' gradient [1], and their tokens.

        Evaluated before there are codes, all tokens and codes are 0.
        """
        if not (self.is_initialized or self.training):
            shape = latent.shape[:1] if self.num_codebooks == 1 else (len(latent), -1)
            tokens = torch.zeros(len(latent) * self.num_codebooks, dtype=torch.int64)
            return torch.zeros_like(latent), tokens.to(latent.device).view(shape)
        code, tokens = self._quantize(latent)
        return code, tokens.long()


def squared_distances(points: Tensor, codes: Tensor) -> Tensor:
    """Squared Euclidean distances ``[B, K]``, differentiable at distance 0, unlike `cdist`."""
    cross = points @ codes.T
    squares = points.square().sum(1, keepdim=True) + codes.square().sum(1)
    return (squares - 2 * cross).clamp(min=0)


def soft_nearest(distance: Tensor) -> Tensor:
    """Soft assignments of squared distances ``[B, K]``; see `Quantizer.soft_assignments`."""
    temperature = _TEMPERATURE * distance.min(dim=1).values.mean().detach().clamp(min=1e-12)
    return (-distance / temperature).softmax(dim=-1)


def library() -> ModuleType:
    """vector-quantize-pytorch, imported when a codebook is made.

    Raises:
        ImportError: It is not installed; says how to install it.
    """
    try:
        return importlib.import_module("vector_quantize_pytorch")
    except ImportError as error:
        message = "the models need vector-quantize-pytorch: pip install 'spinlock[vqvae]'"
        raise ImportError(message) from error
