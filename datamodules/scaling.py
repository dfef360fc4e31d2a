"""Feature scaling, fitted on training samples only."""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

Scaling = Literal["signed_log", "standard", "none"]

# Fields are of order one: a column that varies by less than this holds rounding noise, no signal.
_SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class FeatureScaler:
    """An invertible map of each feature column to zero mean and unit variance.

    ``standard`` shifts and scales. ``signed_log`` first maps x to sign(x) ln(1 + |x| / m) with the
    column's median modulus m, since spectral powers range over many decades. ``none`` is the
    identity. A column that does not vary becomes zero.

    Args:
        scaling: The method.
        knee: (F,) float64, m of each column.
        mean: (F,) float64, mean after the logarithm.
        spread: (F,) float64, standard deviation after the logarithm; 0 where a column is constant.
    """

    scaling: Scaling
    knee: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, features: Tensor, scaling: Scaling) -> Self:
        """Fit on the features (N, F) of the training split."""
        values = features.double()
        knee = values.abs().median(dim=0).values.clamp(min=_SMALLEST_SPREAD)
        mapped = _signed_log(values, knee) if scaling == "signed_log" else values
        varies = values.std(dim=0, correction=0) > _SMALLEST_SPREAD
        spread = mapped.std(dim=0, correction=0) * varies
        return cls(scaling, knee, mapped.mean(dim=0), spread)

    def transform(self, features: Tensor) -> Tensor:
        """Scaled features, float32; any leading shape (..., F)."""
        if self.scaling == "none":
            return features.float()
        values = features.double()
        if self.scaling == "signed_log":
            values = _signed_log(values, self.knee)
        scaled = (values - self.mean) / self.spread
        return torch.where(self.spread > 0, scaled, 0.0).float()

    def inverse(self, scaled: Tensor) -> Tensor:
        """The features that `transform` maps to ``scaled``; a constant column gives its mean."""
        if self.scaling == "none":
            return scaled.float()
        values = scaled.double() * self.spread + self.mean
        if self.scaling == "signed_log":
            values = values.sign() * torch.expm1(values.abs()) * self.knee
        return values.float()


def _signed_log(values: Tensor, knee: Tensor) -> Tensor:
    return values.sign() * torch.log1p(values.abs() / knee)
