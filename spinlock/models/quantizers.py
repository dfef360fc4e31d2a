"""Codebooks of every kind.

References: those of :mod:`spinlock.models.codebook`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spinlock.errors import ConfigurationError
from spinlock.models.codebook import (
    Quantizer,
    QuantizerConfig,
    library,
    soft_nearest,
    squared_distances,
)


class LearnedCodebooks(Quantizer):
    """Codebooks that are moving averages of the latents they take [1].

    Args:
        latent_dim: D.
        codebook_size: Number of codes of each codebook.
        config: ``vector``, ``residual`` or ``grouped``.
        synchronize: Whether processes average their codes together.
    """

    def __init__(
        self,
        latent_dim: int,
        codebook_size: int,
        config: QuantizerConfig,
        *,
        synchronize: bool = False,
    ) -> None:
        super().__init__(codebook_size, config.num_codebooks)
        self.kind = config.kind
        package = library()
        # The model adds the commitment term itself, so that it is in the validation loss too; the
        # rotation trick would replace the straight-through gradient.
        options = {
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
            self.layers = package.VectorQuantize(dim=latent_dim, **options)
            self._books = [self.layers]
        elif config.kind == "residual":
            self.layers = package.ResidualVQ(dim=latent_dim, num_quantizers=count, **options)
            self._books = list(self.layers.layers)
        else:
            if latent_dim % count:
                raise ConfigurationError(
                    f"quantizer.num_codebooks: groups must divide latent_dim={latent_dim}, got "
                    f"{count}"
                )
            self.layers = package.GroupedResidualVQ(
                dim=latent_dim, groups=count, num_quantizers=1, **options
            )
            self._books = [group.layers[0] for group in self.layers.rvqs]

    @property
    def codebooks(self) -> list[Tensor]:
        """The codes of each codebook, ``[codebook_size, D]``, of ``grouped`` ``[..., D / Q]``."""
        return [book.codebook for book in self._books]

    @property
    def is_initialized(self) -> bool:
        """Whether k-means has run."""
        return all(bool(book._codebook.initted) for book in self._books)

    def initialize(self, latents: Tensor, batch_size: int) -> None:
        """Place the codes by k-means [2]; does nothing where they are placed already."""
        if self.is_initialized:
            return
        training = self.training
        self.train()
        with torch.no_grad():
            # The library runs k-means on the first latents that it meets.
            self._quantize(latents.detach())
        self.train(training)
        for book in self._books:
            # Else codes would weigh as many batches as there were latents, and hardly move.
            book._codebook.cluster_size.mul_(batch_size / len(latents))
            book._codebook.embed_avg.mul_(batch_size / len(latents))

    def codes(self, tokens: Tensor) -> Tensor:
        """See `Quantizer.codes`."""
        columns = tokens.view(len(tokens), -1).unbind(dim=1)
        parts = [book[column] for book, column in zip(self.codebooks, columns, strict=True)]
        return torch.cat(parts, dim=-1) if self.kind == "grouped" else torch.stack(parts).sum(0)

    def soft_assignments(self, latent: Tensor) -> list[Tensor]:
        """See `Quantizer.soft_assignments`."""
        assignments = []
        groups = latent.chunk(self.num_codebooks, dim=-1) if self.kind == "grouped" else [latent]
        rest = groups[0]
        for number, codebook in enumerate(self.codebooks):
            rest = groups[number] if self.kind == "grouped" else rest
            distance = squared_distances(rest, codebook)
            assignments.append(soft_nearest(distance))
            rest = rest - codebook[distance.argmin(dim=1)]
        return assignments

    def _quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        code, tokens, _ = self.layers(latent)
        if self.kind == "grouped":
            tokens = tokens[..., 0].T
        if self.training:
            # The library's sum of residual codes would have Q times the latent's gradient.
            code = latent + (code - latent).detach()
        return code, tokens.reshape(len(latent)) if self.num_codebooks == 1 else tokens


class FiniteScalarQuantizer(Quantizer):
    """A fixed grid: a learned linear map to a few bounded columns, each rounded [4].

    Args:
        latent_dim: D.
        levels: Grid points of each column.
    """

    def __init__(self, latent_dim: int, levels: Sequence[int]) -> None:
        super().__init__(math.prod(levels), 1)
        self.layers = library().FSQ(levels=list(levels), dim=latent_dim)

    @property
    def is_initialized(self) -> bool:
        """A grid needs no initialization."""
        return True

    def initialize(self, latents: Tensor, batch_size: int) -> None:
        """Nothing to do."""

    def codes(self, tokens: Tensor) -> Tensor:
        """See `Quantizer.codes`."""
        codes: Tensor = self.layers.indices_to_codes(tokens)
        return codes

    def soft_assignments(self, latent: Tensor) -> list[Tensor]:
        """See `Quantizer.soft_assignments`; distances are those of the mapped, bounded columns."""
        layers = self.layers
        levels = layers._levels.to(latent.dtype)
        # As the library bounds them, without the rounding.
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        bounded = (layers.project_in(latent) + (offset / half).atanh()).tanh() * half - offset
        distance = squared_distances(bounded / (levels // 2), layers.implicit_codebook)
        return [soft_nearest(distance)]

    def _quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        # The library takes sequences, [B, 1, D].
        code, tokens = self.layers(latent[:, None])
        return code[:, 0], tokens[:, 0]


def make_quantizer(
    latent_dim: int, codebook_size: int, config: QuantizerConfig, *, synchronize: bool = False
) -> Quantizer:
    """The quantizer of a configuration.

    Raises:
        ConfigurationError: If the codebook size is not the product of ``finite_scalar``'s levels,
            or groups do not divide the latent.
        ImportError: vector-quantize-pytorch is not installed.
    """
    if config.kind != "finite_scalar":
        return LearnedCodebooks(latent_dim, codebook_size, config, synchronize=synchronize)
    if math.prod(config.levels) != codebook_size:
        raise ConfigurationError(
            f"quantizer.levels: the product of {list(config.levels)} is "
            f"{math.prod(config.levels)}, but codebook_size is {codebook_size}; make them agree"
        )
    return FiniteScalarQuantizer(latent_dim, config.levels)
