"""Scales feature columns to order one by invertible maps fitted on training samples."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from spinlock.errors import ConfigurationError, in_a_line

Scaling = Literal["standard", "robust", "rank", "none"]

# Fields are of order one, so a column that varies by less than this holds only rounding errors.
_SMALLEST_SPREAD = 1e-6
# Interquartile range, relative to the standard deviation, below which it is as good as zero.
_SMALLEST_SHARE = 1e-6
# Number of points of the empirical distribution of each column that ``rank`` stores.
_NUM_KNOTS = 1001
_TENSORS = ("knee", "center", "spread", "knots", "quantiles")


@dataclass(frozen=True)
class FeatureScaler:
    """Invertible map of each feature column to order one. A constant column becomes zero.

    ==============  ==============================================================================
    ``standard``    (x - mean) / standard deviation
    ``robust``      (x - median) / interquartile range, or / standard deviation if the range is
                    less than a millionth of that
    ``rank``        the normal quantile of the rank of x among the training samples, which makes
                    any column Gaussian; piecewise linear with up to 1,001 knots
    ``none``        x, as in the file
    ==============  ==============================================================================

    With ``signed_log``, x is first mapped to ``sign(x) ln(1 + |x| / m)``, where m is the median of
    ``|x|`` in the column, because spectral powers range over many decades.

    Args:
        scaling: Scaling method.
        signed_log: Whether the logarithm precedes the scaling; ignored for ``none``.
        knee: (F,) float64 median modulus m of each column.
        center: (F,) float64 values to subtract after the logarithm.
        spread: (F,) float64 divisors after the logarithm; 0 if a column is constant.
        knots: (F, K) float64 increasing values after subtraction and division; K = 0 unless
            ``rank``.
        quantiles: (F, K) float64 normal quantiles that the knots are mapped to.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
        >>> scaler = FeatureScaler.fit(features, "standard", signed_log=False)
        >>> scaler.transform(features)
        tensor([[-1.,  0.],
                [ 1.,  0.]])
        >>> torch.equal(scaler.inverse(scaler.transform(features)), features)
        True
    """

    scaling: Scaling
    signed_log: bool
    knee: Tensor
    center: Tensor
    spread: Tensor
    knots: Tensor
    quantiles: Tensor

    @classmethod
    def fit(cls, features: Tensor, scaling: Scaling, *, signed_log: bool = True) -> Self:
        """Fit a scaler on the features of the training samples.

        Args:
            features: (..., F) features of any float type; leading dimensions are samples.
            scaling: Scaling method.
            signed_log: Whether the logarithm precedes the scaling.
        """
        values = features.flatten(0, -2).double()
        knee = values.abs().median(dim=0).values.clamp(min=_SMALLEST_SPREAD)
        mapped = _signed_log(values, knee) if signed_log else values
        varies = values.std(dim=0, correction=0) > _SMALLEST_SPREAD
        center, spread = mapped.mean(dim=0), mapped.std(dim=0, correction=0)
        if scaling == "robust":
            quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device=values.device)
            low, center, high = _quantiles(mapped, quarters)
            # Division by a range of rounding errors would overflow.
            spread = torch.where(high - low > _SMALLEST_SHARE * spread, high - low, spread)
        nothing = values.new_empty(values.shape[1], 0)
        scaler = cls(scaling, signed_log, knee, center, spread * varies, nothing, nothing)
        if scaling != "rank":
            return scaler
        knots, quantiles = _normal_knots(scaler._affine(mapped))
        return replace(scaler, knots=knots, quantiles=quantiles)

    def transform(self, features: Tensor) -> Tensor:
        """Return scaled features (..., F) float32, on the device of the given ones."""
        if self.scaling == "none":
            return features.float()
        of = self._to(features.device)
        values = features.double()
        if self.signed_log:
            values = _signed_log(values, of.knee)
        values = of._affine(values)
        if self.scaling == "rank":
            values = torch.where(of.spread > 0, _interpolate(values, of.knots, of.quantiles), 0.0)
        return values.float()

    def inverse(self, scaled: Tensor) -> Tensor:
        """Return the features that `transform` maps to ``scaled``."""
        if self.scaling == "none":
            return scaled.float()
        of = self._to(scaled.device)
        values = scaled.double()
        if self.scaling == "rank":
            values = _interpolate(values, of.quantiles, of.knots)
        values = values * of.spread + of.center
        if self.signed_log:
            values = values.sign() * torch.expm1(values.abs()) * of.knee
        return values.float()

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as plain data, which a checkpoint can hold."""
        tensors = {name: getattr(self, name).tolist() for name in _TENSORS}
        return {"scaling": self.scaling, "signed_log": self.signed_log} | tensors

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Make a scaler from its `state_dict`.

        Args:
            state: State in a checkpoint. Its author is not trusted.

        Raises:
            ConfigurationError: If an entry has a wrong type or shape, or values are not finite.
        """
        if not isinstance(state, dict):
            raise ConfigurationError(f"scaling: must be a mapping, got {type(state).__name__}")
        scaling, signed_log = state.get("scaling"), state.get("signed_log")
        try:
            tensors = [
                torch.tensor(state[name], dtype=torch.float64, device="cpu") for name in _TENSORS
            ]
        except (KeyError, OverflowError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"scaling: entries must be lists of numbers: {in_a_line(error)}"
            ) from error
        knee, center, spread, knots, quantiles = tensors
        alike = knee.shape == center.shape == spread.shape == knots.shape[:1]
        alike = alike and center.ndim == 1 and knots.ndim == 2 and knots.shape == quantiles.shape
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
        known = scaling in get_args(Scaling) and isinstance(signed_log, bool)
        if not (alike and finite and known):
            raise ConfigurationError(
                f"scaling: expected one of {', '.join(get_args(Scaling))}, True or False, and "
                f"finite numbers of matching shapes; got {scaling!r}, {signed_log!r} and shapes "
                f"{[list(tensor.shape) for tensor in tensors]}"
            )
        return cls(scaling, signed_log, *tensors)  # type: ignore[arg-type]

    def describe(self, names: tuple[str, ...]) -> str:
        """Return a table of the knee, center and spread of each column.

        Args:
            names: Names of the F columns.
        """
        if self.scaling == "none":
            return "none: features as in the file"
        first = "sign(x) ln(1 + |x| / knee), then " if self.signed_log else ""
        then = ", then the normal quantile of the rank" if self.scaling == "rank" else ""
        width = max(map(len, names))
        lines = [f"{first}(x - center) / spread{then}; spread 0: constant, scaled to 0"]
        lines.append(f"{'':<{width}} {'knee':>12} {'center':>12} {'spread':>12}")
        for row, name in enumerate(names):
            knee = f"{self.knee[row]:12.5g}" if self.signed_log else f"{'-':>12}"
            lines.append(
                f"{name:<{width}} {knee} {self.center[row]:12.5g} {self.spread[row]:12.5g}"
            )
        return "\n".join(lines)

    def _affine(self, values: Tensor) -> Tensor:
        scaled = (values - self.center) / self.spread
        return torch.where(self.spread > 0, scaled, 0.0)

    def _to(self, device: torch.device) -> Self:
        if device == self.knee.device:
            return self
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})


def fit_scalers(
    features: dict[str, Tensor], scaling: Scaling, *, signed_log: bool
) -> dict[str, FeatureScaler]:
    """Fit a scaler on each entry of a batch.

    Args:
        features: Mapping of entries to features (..., F) of the training samples.
        scaling: Scaling method.
        signed_log: Whether the logarithm precedes the scaling.
    """
    return {
        key: FeatureScaler.fit(values, scaling, signed_log=signed_log)
        for key, values in features.items()
    }


def _signed_log(values: Tensor, knee: Tensor) -> Tensor:
    return values.sign() * torch.log1p(values.abs() / knee)


def _quantiles(values: Tensor, levels: Tensor) -> tuple[Tensor, ...]:
    """Return quantiles (F,) of the columns of (N, F) at each level, linear between samples."""
    place = levels * (len(values) - 1)
    ordered = values.sort(dim=0).values
    lower, upper = ordered[place.floor().long()], ordered[place.ceil().long()]
    return (lower + (upper - lower) * place.frac()[:, None]).unbind(0)


def _normal_knots(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return increasing values of each column of (N, F) and the normal quantiles of their ranks.

    Equal values share their mean rank. All columns get the same number of knots: columns with fewer
    distinct values are extended along the line of extrapolation, which does not change the map.
    """
    columns = [_knots_of_column(column) for column in values.T]
    count = max(2, *(len(knots) for knots, _ in columns))
    knots, quantiles = (
        torch.stack([_extended(column, count) for column in some])
        for some in zip(*columns, strict=True)
    )
    return knots, quantiles


def _knots_of_column(column: Tensor) -> tuple[Tensor, Tensor]:
    distinct, counts = torch.unique(column, return_counts=True)
    rank = counts.cumsum(0).float() - 0.5 * counts.float()
    quantiles = torch.special.ndtri(rank / len(column))
    size, kind = min(len(distinct), _NUM_KNOTS), torch.float32
    some = torch.linspace(0, len(distinct) - 1, size, dtype=kind, device=distinct.device)
    some = some.round().long()
    return distinct[some], quantiles[some]


def _extended(values: Tensor, count: int) -> Tensor:
    """Append values along the line through the first and the last one, with slope 1 if alone."""
    size = count - len(values)
    steps = torch.arange(1, size + 1, dtype=torch.float64, device=values.device)
    slope = values[-1] - values[0] if len(values) > 1 else 1.0
    return torch.cat([values, values[-1] + steps * slope])


def _interpolate(values: Tensor, from_knots: Tensor, to_knots: Tensor) -> Tensor:
    """Map each column piecewise linearly, with extrapolation along the line through both ends.

    Values beyond the training samples are mapped with the slope of the whole distribution, because
    the slope between the last two samples is arbitrary.

    Args:
        values: (..., F) values.
        from_knots: (F, K) increasing knots.
        to_knots: (F, K) increasing values at the knots.
    """
    columns = values.reshape(-1, values.shape[-1]).T.contiguous()
    last = from_knots.shape[1] - 1
    cell = torch.searchsorted(from_knots, columns).clamp(1, last)
    x0, x1 = from_knots.gather(1, cell - 1), from_knots.gather(1, cell)
    y0, y1 = to_knots.gather(1, cell - 1), to_knots.gather(1, cell)
    inside = y0 + (columns - x0) / (x1 - x0) * (y1 - y0)
    first_x, last_x = from_knots[:, :1], from_knots[:, -1:]
    first_y, last_y = to_knots[:, :1], to_knots[:, -1:]
    slope = (last_y - first_y) / (last_x - first_x)
    below, above = columns < first_x, columns > last_x
    outside = torch.where(
        below, first_y + (columns - first_x) * slope, last_y + (columns - last_x) * slope
    )
    mapped = torch.where(below | above, outside, inside)
    return mapped.T.reshape(values.shape)
