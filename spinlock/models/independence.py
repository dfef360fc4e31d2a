"""Loss terms that make latents and tokens independent of the initial condition's variant.

The first two terms are zero, up to sampling, if the latents and the codes of all variants have the
same distribution. The third is zero if the codes are used evenly.

References:
    1. Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, Journal of Mathematical
       Imaging and Vision 51 (2015), 22–45.
    2. Cover & Thomas, Elements of Information Theory, 2nd ed. (2006), chapter 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinlock.configuration.validation import check_types
from spinlock.errors import ConfigurationError


@dataclass(frozen=True)
class IndependenceConfig:
    """Weights of the independence terms. A term of weight 0 is not computed.

    Args:
        sliced_wasserstein: Weight of `sliced_wasserstein`, which compares the variants' latents.
        mutual_information: Weight of `CodeInformation`, between token and variant.
        code_entropy: Weight of `entropy_deficit`, which favors even use of the codes.
        projections: Number of random directions of the sliced distance, drawn in each step.
        memory: Factor that multiplies the counts of `CodeInformation` in each training step; they
            reach back about 1 / (1 - memory) steps.

    Raises:
        ConfigurationError: An argument is out of range.

    Example:
        >>> from spinlock.models import IndependenceConfig
        >>> IndependenceConfig(code_entropy=0.0).sliced_wasserstein
        1.0
    """

    sliced_wasserstein: float = 1.0
    mutual_information: float = 0.3
    code_entropy: float = 0.2
    projections: int = 32
    memory: float = 0.99

    def __post_init__(self) -> None:
        check_types(self, "independence.")
        for name in ("sliced_wasserstein", "mutual_information", "code_entropy"):
            if not 0 <= getattr(self, name) < math.inf:
                raise _out_of_range(self, name, "finite and at least 0")
        if self.projections < 1:
            raise _out_of_range(self, "projections", "at least 1")
        if not 0 <= self.memory < 1:
            raise _out_of_range(self, "memory", "in [0, 1)")


def sliced_wasserstein(latent: Tensor, variant: Tensor, directions: Tensor) -> Tensor:
    """Return the squared sliced 2-Wasserstein distance of variants to the pooled latents [1].

    In one dimension, the optimal transport plan pairs quantiles: the i-th of the n ordered values
    of a variant is compared with the pooled quantile at (i - 1/2) / n, interpolated linearly. The
    pooled latents are detached, so that the variants move toward the pool and not the reverse.

    Args:
        latent: Latents ``[B, D]``.
        variant: Variants ``[B]``, int64.
        directions: Unit vectors ``[D, P]`` in columns.

    Returns:
        Scalar, mean over samples and directions of the squared distance to the quantile.
    """
    projected = latent @ directions
    ordered, order = projected.sort(dim=0)
    pooled = ordered.detach()
    # A stable sort by variant keeps the values of each variant in ascending order.
    by_variant = variant[order].argsort(dim=0, stable=True)
    values = ordered.gather(0, by_variant)
    count = torch.bincount(variant)
    variant_of_row = torch.repeat_interleave(count)
    row = torch.arange(len(variant), device=variant.device)
    rank = row - (count.cumsum(0) - count)[variant_of_row]
    total = len(latent)
    position = ((rank + 0.5) / count[variant_of_row] * total - 0.5).clamp(0, total - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=total - 1)
    quantile = torch.lerp(pooled[low], pooled[high], (position - low)[:, None].to(pooled.dtype))
    return (values - quantile).square().mean()


def random_directions(dim: int, count: int, like: Tensor) -> Tensor:
    """Draw unit vectors ``[dim, count]``, uniform on the sphere, from torch's global generator."""
    directions = torch.randn(dim, count, dtype=like.dtype, device=like.device)
    return functional.normalize(directions, dim=0)


class CodeInformation(nn.Module):
    """Mutual information of code and variant, from soft assignments counted over many batches.

    A batch has far fewer samples than the table of codes and variants has cells, so the information
    within one batch is mostly chance. Soft counts n(k, v) therefore accumulate over many steps. The
    term is the mean over the batch of

        Σ_k a_k ln( p(k | v) / p(k) ),

    where a_k is the soft assignment of a sample of variant v. The probabilities p are normalized
    counts; K pseudo-counts, distributed as p(k), are added to the counts of each variant. If the
    counts are those of the current batch, the term is I(k; v) [2], and its gradient with respect to
    a is the gradient of I.

    Args:
        num_variants: Number V of variants.
        codebook_size: Number K of codes.
        memory: Factor that multiplies the counts in each step.
    """

    counts: Tensor

    def __init__(self, num_variants: int, codebook_size: int, *, memory: float = 0.99) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("counts", torch.zeros(num_variants, codebook_size))

    def forward(self, assignment: Tensor, variant: Tensor) -> Tensor:
        """Add the batch to the counts and return the term.

        Args:
            assignment: Probabilities ``[B, K]`` of each sample's codes.
            variant: Variants ``[B]``, int64, in [0, V).

        Returns:
            Scalar, in nats.
        """
        self.counts.mul_(self.memory)
        self.counts.index_add_(0, variant, assignment.detach().to(self.counts.dtype))
        return (assignment * self.log_ratio()[variant]).sum(1).mean()

    def log_ratio(self) -> Tensor:
        """Return ln( p(k | v) / p(k) ), ``[V, K]``."""
        counts = self.counts
        p_code = counts.sum(0) / counts.sum()
        pseudo = counts.shape[1] * p_code
        p_code_given_variant = (counts + pseudo) / (counts.sum(1, keepdim=True) + counts.shape[1])
        # The ratio of a code without counts is 1.
        ratio = p_code_given_variant / p_code.clamp(min=1e-12)
        return torch.where(p_code > 0, ratio, 1.0).clamp(min=1e-12).log()


def entropy_deficit(assignment: Tensor) -> Tensor:
    """Return ln K minus the entropy of the batch's mean assignment: 0 if codes are used evenly.

    Args:
        assignment: Probabilities ``[B, K]`` of each sample's codes.

    Returns:
        Scalar in [0, ln K], in nats.
    """
    mean = assignment.mean(0)
    # Without the lower bound, the gradient of p ln p would be infinite at 0.
    return math.log(assignment.shape[1]) + (mean * mean.clamp(min=1e-12).log()).sum()


class IndependenceTerms(nn.Module):
    """The weighted loss terms that a configuration selects.

    Args:
        config: Weights.
        num_variants: Number V of variants.
        codebook_size: Number K of codes of each codebook.
        num_codebooks: Number Q of codebooks.
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

    def forward(
        self, latent: Tensor, variant: Tensor, assignments: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            latent: Latents ``[B, D]``.
            variant: Variants ``[B]``, int64.
            assignments: Probabilities ``[B, K]`` for each codebook; empty until the
                codebooks are initialized.
        """
        terms, config = {}, self.config
        if config.sliced_wasserstein:
            directions = random_directions(latent.shape[1], config.projections, latent)
            terms["sliced_wasserstein"] = sliced_wasserstein(latent, variant, directions)
        if config.mutual_information and assignments:
            pairs = zip(self.information, assignments, strict=True)
            each = [term(assignment, variant) for term, assignment in pairs]
            terms["mutual_information"] = torch.stack(each).mean()
        if config.code_entropy and assignments:
            each = [entropy_deficit(assignment) for assignment in assignments]
            terms["code_entropy"] = torch.stack(each).mean()
        return {name: getattr(config, name) * term for name, term in terms.items()}


def _out_of_range(config: IndependenceConfig, name: str, allowed: str) -> ConfigurationError:
    value = getattr(config, name)
    return ConfigurationError(f"independence.{name}: must be {allowed}, got {value}")
