"""Quantizers: they map latents to the nearest codes of a codebook and to tokens.

References:
    1. van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, NeurIPS 2017:
       the straight-through gradient, and (appendix A.1) codes as moving averages.
    2. Zeghidour et al., SoundStream, IEEE/ACM TASLP 30 (2022), section III-C: residual codebooks,
       k-means initialization and the revival of unused codes.
    3. Yang et al., HiFi-Codec, arXiv:2305.02765: residual codebooks for groups of columns.
    4. Mentzer et al., Finite scalar quantization, ICLR 2024.
"""

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from spinlock.configuration.validation import check_types
from spinlock.errors import ConfigurationError


@dataclass(frozen=True)
class QuantizerConfig:
    """Kind of quantizer, and how its codes are learned.

    Args:
        kind: ``vector``: one codebook [1]. ``residual``: a sequence of codebooks, each of which
            quantizes the residual of the previous ones [2]. ``grouped``: one codebook for each
            group of latent columns [3]. ``finite_scalar``: a fixed grid in a few learned columns
            [4].
        num_codebooks: Number Q of codebooks of ``residual`` and ``grouped``; 1 for other kinds.
        levels: Number of grid points of each column of ``finite_scalar``; their product is the
            codebook size.
        decay: Decay of the codes' moving averages for each step; unused by ``finite_scalar``.
        dead_code_threshold: Number of samples in a batch, well below batch size / codebook size.
            A code that takes fewer, in moving average, moves to a random latent; 0 moves none.
        kmeans_iterations: Number of iterations of k-means, which initializes the codes.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> from spinlock.models import QuantizerConfig
        >>> QuantizerConfig("finite_scalar", levels=[8, 8, 4]).levels
        (8, 8, 4)
    """

    kind: Literal["vector", "residual", "grouped", "finite_scalar"] = "vector"
    num_codebooks: int = 1
    levels: Sequence[int] = ()
    decay: float = 0.95
    dead_code_threshold: float = 0.05
    kmeans_iterations: int = 20

    def __post_init__(self) -> None:
        check_types(self, "quantizer.")
        object.__setattr__(self, "levels", tuple(self.levels))
        single = self.kind in ("vector", "finite_scalar")
        if self.num_codebooks < 1 or (single and self.num_codebooks > 1):
            allowed = "1 unless kind is residual or grouped" if single else "at least 1"
            raise ConfigurationError(
                f"quantizer.num_codebooks: must be {allowed}; got {self.num_codebooks}"
            )
        if bool(self.levels) != (self.kind == "finite_scalar"):
            raise ConfigurationError(
                "quantizer.levels: required by finite_scalar, for example [8, 8, 4], and allowed "
                f"for no other kind; got {list(self.levels)} for {self.kind}"
            )


class Quantizer(nn.Module, ABC):
    """Maps latents ``[B, D]`` to codes ``[B, D]`` and tokens.

    Tokens are int64 ``[B]``, or ``[B, Q]`` for Q > 1 codebooks, in [0, `codebook_size`).

    Args:
        codebook_size: Number of codes of each codebook.
        num_codebooks: Number Q of codebooks.
    """

    def __init__(self, codebook_size: int, num_codebooks: int = 1) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks

    @property
    def is_initialized(self) -> bool:
        """Whether the codes exist. `forward` in training mode requires them."""
        return True

    def initialize(self, latents: Tensor, batch_size: int) -> None:
        """Place the codes by k-means [2] of latents ``[N, D]``, unless the codes exist.

        In the codes' moving averages, the latents count as one batch of `batch_size` samples.
        """

    @abstractmethod
    def codes(self, tokens: Tensor) -> Tensor:
        """Return the codes ``[B, D]`` of tokens."""

    @abstractmethod
    def soft_assignments(self, latent: Tensor) -> list[Tensor]:
        """Return differentiable probabilities ``[B, codebook_size]`` for each codebook.

        They are the softmax of the negative squared distances to the codes (for a residual
        codebook: of the residual) over half the batch's mean squared distance to the nearest code.
        """

    @abstractmethod
    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest codes ``[B, D]``, with straight-through gradient [1], and tokens.

        Training updates the codes. In evaluation before the codes exist, all results are 0.
        """


class LearnedCodebooks(Quantizer):
    """Codebooks whose codes are moving averages of the latents assigned to them [1].

    Args:
        latent_dim: Number D of latent columns.
        codebook_size: Number of codes of each codebook.
        config: Configuration of kind ``vector``, ``residual`` or ``grouped``.
        synchronize: Whether distributed processes share the averages.
    """

    def __init__(
        self, latent_dim: int, codebook_size: int, config: QuantizerConfig, *, synchronize: bool
    ) -> None:
        super().__init__(codebook_size, config.num_codebooks)
        self.is_grouped = config.kind == "grouped"
        # The model adds the commitment term, so that the validation loss has it too. The rotation
        # trick would replace the straight-through gradient.
        options = {
            "dim": latent_dim,
            "codebook_size": codebook_size,
            "decay": config.decay,
            "kmeans_init": True,
            "kmeans_iters": config.kmeans_iterations,
            "threshold_ema_dead_code": config.dead_code_threshold,
            "commitment_weight": 0.0,
            "rotation_trick": False,
            "sync_codebook": synchronize,
        }
        count = config.num_codebooks
        if config.kind == "vector":
            self.layers = _library().VectorQuantize(**options)
            books = [self.layers]
        elif config.kind == "residual":
            self.layers = _library().ResidualVQ(num_quantizers=count, **options)
            books = self.layers.layers
        else:
            if latent_dim % count:
                raise ConfigurationError(
                    f"quantizer.num_codebooks: must divide latent_dim={latent_dim} for kind "
                    f"grouped; got {count}"
                )
            self.layers = _library().GroupedResidualVQ(groups=count, num_quantizers=1, **options)
            books = [group.layers[0] for group in self.layers.rvqs]
        self._books = list(books)
        # Averages of weights need numbers. Booleans cannot be averaged.
        for book in self._books:
            book._codebook.initted = book._codebook.initted.float()

    @property
    def codebooks(self) -> list[Tensor]:
        """Codes of each codebook, ``[codebook_size, D]``, or ``[..., D / Q]`` if grouped."""
        return [book.codebook for book in self._books]

    @property
    def is_initialized(self) -> bool:
        """Whether k-means has run."""
        return all(bool(book._codebook.initted) for book in self._books)

    def initialize(self, latents: Tensor, batch_size: int) -> None:
        """See `Quantizer.initialize`."""
        if self.is_initialized:
            return
        training = self.training
        self.train()
        with torch.no_grad():
            # The library runs k-means on the first latents.
            self(latents.detach())
        self.train(training)
        for book in self._books:
            # With the weight of all latents, the codes would hardly move in the next batches.
            book._codebook.cluster_size.mul_(batch_size / len(latents))
            book._codebook.embed_avg.mul_(batch_size / len(latents))

    def codes(self, tokens: Tensor) -> Tensor:
        """See `Quantizer.codes`."""
        columns = tokens.view(len(tokens), -1).unbind(dim=1)
        parts = [book[column] for book, column in zip(self.codebooks, columns, strict=True)]
        return torch.cat(parts, dim=-1) if self.is_grouped else torch.stack(parts).sum(0)

    def soft_assignments(self, latent: Tensor) -> list[Tensor]:
        """See `Quantizer.soft_assignments`."""
        assignments = []
        rest, groups = latent, latent.chunk(self.num_codebooks, dim=-1)
        for number, codebook in enumerate(self.codebooks):
            if self.is_grouped:
                rest = groups[number]
            distance = _squared_distances(rest, codebook)
            assignments.append(_soft_nearest(distance))
            rest = rest - codebook[distance.argmin(dim=1)]
        return assignments

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """See `Quantizer.forward`."""
        if not (self.is_initialized or self.training):
            code = torch.zeros_like(latent)
            tokens = code.new_zeros(len(latent), self.num_codebooks, dtype=torch.int64)
        else:
            code, tokens, _ = self.layers(latent)
            if self.is_grouped:
                tokens = tokens[..., 0].T
        if self.training:
            # The library's sum of residual codes would have Q times the latent's gradient.
            code = latent + (code - latent).detach()
        return code, tokens.reshape(len(latent), self.num_codebooks).squeeze(1).long()


class FiniteScalarQuantizer(Quantizer):
    """A fixed grid: a learned linear map to a few bounded columns, each of which is rounded [4].

    Args:
        latent_dim: Number D of latent columns.
        levels: Number of grid points of each column.
    """

    def __init__(self, latent_dim: int, levels: Sequence[int]) -> None:
        super().__init__(math.prod(levels))
        self.layers = _library().FSQ(levels=list(levels), dim=latent_dim)

    def codes(self, tokens: Tensor) -> Tensor:
        """See `Quantizer.codes`."""
        codes: Tensor = self.layers.indices_to_codes(tokens)
        return codes

    def soft_assignments(self, latent: Tensor) -> list[Tensor]:
        """See `Quantizer.soft_assignments`; distances are those of the bounded columns."""
        layers, levels = self.layers, self.layers._levels.to(latent.dtype)
        # The library's bounds, without the rounding.
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        bounded = (layers.project_in(latent) + (offset / half).atanh()).tanh() * half - offset
        distance = _squared_distances(bounded / (levels // 2), layers.implicit_codebook)
        return [_soft_nearest(distance)]

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """See `Quantizer.forward`."""
        code, tokens = self.layers(latent[:, None])  # The library takes sequences [B, 1, D].
        return code[:, 0], tokens[:, 0].long()


def make_quantizer(
    latent_dim: int, codebook_size: int, config: QuantizerConfig, *, synchronize: bool = False
) -> Quantizer:
    """Make the quantizer of a configuration.

    Raises:
        ConfigurationError: The sizes do not fit together. Names those that have to change.
        ImportError: vector-quantize-pytorch is not installed.
    """
    if config.kind != "finite_scalar":
        return LearnedCodebooks(latent_dim, codebook_size, config, synchronize=synchronize)
    if math.prod(config.levels) != codebook_size:
        raise ConfigurationError(
            f"quantizer.levels: the product of {list(config.levels)} must be codebook_size="
            f"{codebook_size}; got {math.prod(config.levels)}"
        )
    return FiniteScalarQuantizer(latent_dim, config.levels)


def _squared_distances(points: Tensor, codes: Tensor) -> Tensor:
    """Squared Euclidean distances ``[B, K]``. Unlike `cdist`, differentiable at distance 0."""
    squares = points.square().sum(1, keepdim=True) + codes.square().sum(1)
    return (squares - 2 * points @ codes.T).clamp(min=0)


def _soft_nearest(distance: Tensor) -> Tensor:
    """Soft assignments of squared distances ``[B, K]``; see `Quantizer.soft_assignments`."""
    mean = distance.min(dim=1).values.mean().detach().clamp(min=1e-12)
    return (-distance / (mean / 2)).softmax(dim=-1)


def _library() -> ModuleType:
    """Import vector-quantize-pytorch, which is optional, when a quantizer is made."""
    try:
        return importlib.import_module("vector_quantize_pytorch")
    except ImportError as error:
        raise ImportError(
            "the models need vector-quantize-pytorch: pip install -e '.[vqvae]'"
        ) from error
