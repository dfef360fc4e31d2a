"""Batch normalization with separate statistics for each variant of the initial condition."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# The variance of fewer samples is too inaccurate to divide by.
MIN_SAMPLES = 4
# Weight of a batch in the running statistics.
_MOMENTUM = 0.02
# Number added to variances.
_EPS = 1e-5


class VariantNormalization(nn.Module):
    """Normalizes the latents of each variant to zero mean and unit variance in every column.

    In training, a variant with at least `MIN_SAMPLES` samples in the batch is normalized by their
    mean and (biased) variance. These enter the running mean and the running unbiased variance. A
    rarer variant is normalized by its running statistics. In evaluation, each variant is normalized
    by its running statistics, and a variant that never occurred in training by the average running
    statistics of those that did. The first 50 batches of a variant enter the running statistics
    with equal weights, and each further batch with a weight of 0.02.

    There are no learned scale and shift, since the codebook adapts to any.

    Args:
        num_variants: Number V of variants.
        dim: Number D of columns.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, num_variants: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_variants, dim))
        self.register_buffer("variance", torch.ones(num_variants, dim))
        #: Number of batches in the running statistics of each variant.
        self.register_buffer("batches", torch.zeros(num_variants))

    def forward(self, latent: Tensor, variant: Tensor) -> Tensor:
        """Return normalized latents.

        Args:
            latent: Latents ``[B, D]``.
            variant: Variants ``[B]``, int64, in [0, V).
        """
        statistics = (
            self._batch_statistics(latent, variant) if self.training else self._running_statistics()
        )
        mean, variance = (values[variant] for values in statistics)
        return (latent - mean) / (variance + _EPS).sqrt()

    def _batch_statistics(self, latent: Tensor, variant: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's statistics ``[V, D]``, or running ones for rare variants."""
        member = functional.one_hot(variant, len(self.batches)).to(latent.dtype)
        count = member.sum(0)
        share = member / count.clamp(min=1)
        mean = share.T @ latent
        variance = share.T @ (latent - mean[variant]).square()
        enough = (count >= MIN_SAMPLES)[:, None]
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))[:, None]
            self.batches += enough[:, 0]
            weight = (1 / self.batches.clamp(min=1)).clamp(min=_MOMENTUM)[:, None] * enough
            self.mean += weight * (mean - self.mean)
            self.variance += weight * (unbiased - self.variance)
        running_mean, running_variance = self._running_statistics()
        return (
            torch.where(enough, mean, running_mean),
            torch.where(enough, variance, running_variance),
        )

    def _running_statistics(self) -> tuple[Tensor, Tensor]:
        """Return the running statistics ``[V, D]``; for unseen variants, the average of others."""
        seen = (self.batches > 0).to(self.mean.dtype)[:, None]
        count = seen.sum().clamp(min=1)
        average_mean = (seen * self.mean).sum(0) / count
        # Before the first batch, normalization is the identity.
        average_variance = torch.where(seen.any(), (seen * self.variance).sum(0) / count, 1.0)
        # Copies, since the buffers change in place before gradients are computed.
        return (
            torch.where(seen > 0, self.mean, average_mean).clone(),
            torch.where(seen > 0, self.variance, average_variance).clone(),
        )
