"""Compares the operators of a token with all operators, column by column."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

Values = NDArray[np.float64]

#: Quantiles between which a bar extends, and its mark.
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9


@dataclass(frozen=True, eq=False)
class Population:
    """Values of all operators and their ranks.

    Args:
        values: Values, (O, D).
        ranks: Their ranks in each column, (O, D), uniform in (0, 1).

    Example:
        >>> population = Population.of(np.array([[3.0], [1.0], [1.0], [9.0]]))
        >>> population.ranks[:, 0].tolist()
        [0.625, 0.25, 0.25, 0.875]
    """

    values: Values
    ranks: Values

    @classmethod
    def of(cls, values: Values) -> "Population":
        """Rank the values of each column; equal values share their mean rank."""
        if not values.size:
            return cls(values, values)
        return cls(values, (rankdata(values, axis=0) - 0.5) / len(values))

    @property
    def scores(self) -> Values:
        """Normal quantiles of the ranks, (O, D)."""
        return np.asarray(ndtri(self.ranks))


def quantiles(values: Values) -> Values:
    """Return the 10 %, 50 % and 90 % quantiles of columns, (3, D)."""
    return np.quantile(values, (LOW, MIDDLE, HIGH), axis=0)


def entropy(shares: Values) -> float:
    """Return the entropy of shares, in nats.

    Example:
        >>> round(float(np.exp(entropy(np.array([0.5, 0.5, 0.0])))), 6)
        2.0
    """
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())


def explained_share(properties: Sequence[Values], tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the variance of properties between tokens, adjusted for their number.

    This is 1 − (S/(n − K)) / (V/(n − 1)), where S is the sum of squares about the means of the K
    tokens and V about the overall mean: 0 on average if the tokens are random, 1 if they determine
    the property. A choice is a property of several columns, which are 1 for one value and else 0.

    Args:
        properties: Properties of n operators, (n, k) each.
        tokens: Tokens, (n,) int64.

    Returns:
        Share for each property; NaN if there are not more operators than tokens, or the property
        is constant.

    Example:
        >>> values = np.array([[1.0], [1.0], [5.0], [5.0]])
        >>> explained_share([values], np.array([0, 0, 3, 3]))
        array([1.])
    """
    _, place, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    count, groups = len(tokens), len(counts)
    shares = []
    for values in properties:
        sums = np.zeros((groups, values.shape[1]))
        np.add.at(sums, place, values)
        within = ((values - (sums / counts[:, None])[place]) ** 2).sum()
        total = ((values - values.mean(axis=0)) ** 2).sum()
        known = count > groups and total > 0
        shares.append(1 - (within / (count - groups)) / (total / (count - 1)) if known else np.nan)
    return np.array(shares, dtype=np.float64)
