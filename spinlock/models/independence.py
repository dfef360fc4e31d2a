"""Terms of a loss that make latents and codes independent of the initial condition's variant.

Each is 0 where the variants' latents have one distribution and positive where they differ.

References:
    1. Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, Journal of Mathematical
       Imaging and Vision 51 (2015), 22–45.
    2. Cover & Thomas, Elements of Information Theory, 2nd ed. (2006), chapter 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinlock.errors import ConfigurationError


@dataclass(frozen=True)
class IndependenceConfig:
    """Weights of the terms; 0 leaves a term out.

    Args:
        sliced_wasserstein: Of `sliced_wasserstein`, on the latents.
        mutual_information: Of `CodeInformation`, on the tokens.
        code_entropy: Of `entropy_deficit`: even use of the codes.
        projections: Random directions of the sliced distance, drawn anew in each step.
        memory: Decay of `CodeInformation`'s counts, a step: they reach back 1 / (1 - memory) steps.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    sliced_wasserstein: float = 1.0
    mutual_information: float = 0.3
    code_entropy: float = 0.2
    projections: int = 32
    memory: float = 0.99

    def __post_init__(self) -> None:
        for weight in fields(self)[:3]:
            value = getattr(self, weight.name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"independence.{weight.name}: must be finite and at least 0, got {value}"
                )
        if self.projections < 1:
            raise ConfigurationError(
                f"independence.projections: must be at least 1, got {self.projections}"
            )
        if not 0 <= self.memory < 1:
            raise ConfigurationError(f"independence.memory: must be in [0, 1), got {self.memory}")


def sliced_wasserstein(latent: Tensor, variant: Tensor, directions: Tensor) -> Tensor:
    """Squared sliced 2-Wasserstein distance of each variant's latents to the pooled ones [1].

    On a line, the optimal transport plan pairs quantiles: the i-th of the n ordered values of a
    variant is compared with the pooled quantile at (i - 1/2) / n, interpolated linearly. The pooled
    latents are detached, so that variants move towards them and not the other way round.

    Args:
        latent: ``[B, D]``.
        variant: ``[B]`` int64.
        directions: ``[D, P]``, unit columns.

    Returns:
        Scalar, the mean over samples and directions of the squared distance to the quantile.
    """
    projected = latent @ directions
    ordered, order = projected.sort(dim=0)
    pooled = ordered.detach()
    # Sorted by value, then stably by variant: each variant's run of rows is in ascending order.
    by_variant = variant[order].argsort(dim=0, stable=True)
    values = ordered.gather(0, by_variant)
    count = torch.bincount(variant)
    run = torch.repeat_interleave(count)
    rank = torch.arange(len(run), device=run.device) - (count.cumsum(0) - count)[run]
    total = len(latent)
    position = ((rank + 0.5) / count[run] * total - 0.5).clamp(0, total - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=total - 1)
    quantile = torch.lerp(pooled[low], pooled[high], (position - low)[:, None].to(pooled.dtype))
    return (values - quantile).square().mean()


def random_directions(dim: int, count: int, like: Tensor) -> Tensor:
    """Unit vectors ``[dim, count]``, uniform on the sphere, from torch's global generator."""
    directions = torch.randn(dim, count, dtype=like.dtype, device=like.device)
    return functional.normalize(directions, dim=0)


class CodeInformation(nn.Module):
    """Mutual information of soft code and variant, against counts that outlast a batch.

    A batch has far fewer samples than the table of codes and variants has cells, so the information
    in it is mostly chance. Soft counts n(k, v) are therefore kept over many steps, and the term is
    the mean over the batch of

        Σ_k a_k ln( p(k | v) / p(k) ),

    a_k being the soft assignment of a sample of variant v, with p from the counts (one pseudo-count
    for each code, spread like p(k), for each variant). With the current probabilities this is
    I(k; v) [2], and its gradient by a is that of I.

    Args:
        num_variants: V.
        codebook_size: K.
        memory: Decay of the counts, a step.
    """

    counts: Tensor

    def __init__(self, num_variants: int, codebook_size: int, *, memory: float = 0.99) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("counts", torch.zeros(num_variants, codebook_size))

    def forward(self, assignment: Tensor, variant: Tensor) -> Tensor:
        """Count the batch and give the term.

        Args:
            assignment: ``[B, K]`` probabilities of each sample's codes.
            variant: ``[B]`` int64, each in [0, V).

        Returns:
            Scalar, nats.
        """
        self.counts.mul_(self.memory)
        self.counts.index_add_(0, variant, assignment.detach().to(self.counts.dtype))
        return (assignment * self.log_ratio()[variant]).sum(1).mean()

    def log_ratio(self) -> Tensor:
        """ln( p(k | v) / p(k) ), ``[V, K]``."""
        counts = self.counts
        code = counts.sum(0) / counts.sum()
        pseudo = counts.shape[1] * code
        given = (counts + pseudo) / (counts.sum(1, keepdim=True) + counts.shape[1])
        # A code without any count has ratio 1.
        return torch.where(code > 0, given / code.clamp(min=1e-12), 1.0).clamp(min=1e-12).log()


def entropy_deficit(assignment: Tensor) -> Tensor:
    """Entropy that the batch's mean assignment lacks of ln K: 0 where all codes are used evenly.

    Args:
        assignment: ``[B, K]`` probabilities of each sample's codes.

    Returns:
        Scalar, nats, in [0, ln K].
    """
    mean = assignment.mean(0)
    # Bounded below: the gradient of p ln p is infinite at 0.
    return math.log(assignment.shape[1]) + (mean * mean.clamp(min=1e-12).log()).sum()


class IndependenceTerms(nn.Module):
    """The weighted sum of the terms of a configuration.

    Args:
        config: Weights.
        num_variants: V.
        codebook_size: K, of each codebook.
        num_codebooks: Q.
    """

    def __init__(
        self,
        config: IndependenceConfig,
        *,
        num_variants: int,
        codebook_size: int,
        num_codebooks: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        self.information = nn.ModuleList(
            CodeInformation(num_variants, codebook_size, memory=config.memory)
            for _ in range(num_codebooks)
        )

    @property
    def need_assignments(self) -> bool:
        """Whether `forward` uses assignments."""
        return self.config.mutual_information > 0 or self.config.code_entropy > 0

    def forward(
        self, latent: Tensor, variant: Tensor, assignments: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The terms that have a weight, times their weights.

        Args:
            latent: ``[B, D]``.
            variant: ``[B]`` int64.
            assignments: Of each codebook ``[B, K]``; none while there is no codebook yet.
        """
        config, terms = self.config, {}
        if config.sliced_wasserstein:
            directions = random_directions(latent.shape[1], config.projections, latent)
            distance = sliced_wasserstein(latent, variant, directions)
            terms["sliced_wasserstein"] = config.sliced_wasserstein * distance
        if config.mutual_information and assignments:
            each = [
                term(assignment, variant)
                for term, assignment in zip(self.information, assignments, strict=True)
            ]
            terms["mutual_information"] = config.mutual_information * torch.stack(each).mean()
        if config.code_entropy and assignments:
            each = [entropy_deficit(assignment) for assignment in assignments]
            terms["code_entropy"] = config.code_entropy * torch.stack(each).mean()
        return terms
