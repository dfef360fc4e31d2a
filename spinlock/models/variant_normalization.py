"""Batch normalization with statistics of their own for each initial-condition variant."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# A variance of fewer samples says too little to divide by.
MIN_SAMPLES = 4


class VariantNormalization(nn.Module):
    """Gives the latents of each variant zero mean and unit variance in every column.

    While training, a variant with `MIN_SAMPLES` or more samples in the batch is normalized by their
    mean and (biased) variance, which enter running means of mean and unbiased variance; a rarer one
    by its running statistics. In evaluation each variant is normalized by its running statistics,
    and one that never occurred in training by the average statistics of those that did.

    No scale and shift are learned: the codebook follows any.

    Args:
        num_variants: V.
        dim: D, columns.
        momentum: Weight of a batch in the running statistics; the first batches of a variant are
            averaged evenly.
        eps: Added to variances.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(
        self, num_variants: int, dim: int, *, momentum: float = 0.02, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("mean", torch.zeros(num_variants, dim))
        self.register_buffer("variance", torch.ones(num_variants, dim))
        #: Batches in the running statistics of each variant.
        self.register_buffer("batches", torch.zeros(num_variants))

    def forward(self, latent: Tensor, variant: Tensor) -> Tensor:
        """Normalized latents.

        Args:
            latent: ``[B, D]``.
            variant: ``[B]`` int64, each in [0, V).
        """
        if self.training:
            mean, variance = self._batch_statistics(latent, variant)
        else:
            mean, variance = self._running_statistics()
        centred = latent - mean[variant]
        normalized: Tensor = centred / (variance[variant] + self.eps).sqrt()
        return normalized

    def _batch_statistics(self, latent: Tensor, variant: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's statistics ``[V, D]``; running ones where a variant is too rare."""
        member = functional.one_hot(variant, len(self.batches)).to(latent.dtype)
        count = member.sum(0)
        share = member / count.clamp(min=1)
        mean = share.T @ latent
        variance = share.T @ (latent - mean[variant]).square()
        enough = count >= MIN_SAMPLES
        with torch.no_grad():
            self._remember(mean, variance * (count / (count - 1).clamp(min=1))[:, None], enough)
        running_mean, running_variance = self._running_statistics()
        return (
            torch.where(enough[:, None], mean, running_mean),
            torch.where(enough[:, None], variance, running_variance),
        )

    def _remember(self, mean: Tensor, variance: Tensor, enough: Tensor) -> None:
        self.batches += enough
        weight = (1 / self.batches.clamp(min=1)).clamp(min=self.momentum) * enough
        self.mean += weight[:, None] * (mean - self.mean)
        self.variance += weight[:, None] * (variance - self.variance)

    def _running_statistics(self) -> tuple[Tensor, Tensor]:
        """Running statistics ``[V, D]``; of variants that never occurred the average of others."""
        seen = (self.batches > 0).to(self.mean.dtype)[:, None]
        count = seen.sum().clamp(min=1)
        average_mean = (seen * self.mean).sum(0) / count
        # Without any batch yet, the identity.
        average_variance = torch.where(seen.any(), (seen * self.variance).sum(0) / count, 1.0)
        # Cloned: the buffers change in place before gradients are taken.
        return (
            torch.where(seen > 0, self.mean, average_mean).clone(),
            torch.where(seen > 0, self.variance, average_variance).clone(),
        )
