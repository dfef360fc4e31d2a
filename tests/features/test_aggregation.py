"""Standard deviations and coefficients of variation over realizations of known features."""

import math

import numpy as np
import pytest

from . import oracle
from .helpers import one_field, package_extract


def test_aggregation_over_realizations(implementation):
    """Population std and capped cv of a feature whose three values are known: rates 0, r, 2r.

    The cv of the acceleration (a mean that is 0 up to rounding) is not looked at.
    """
    r, T = 0.2, 5
    v = one_field(18)
    u = np.stack([np.exp(k * r * np.arange(T))[:, None, None] * v for k in range(3)])
    fields = u[None, :, :, None]
    if implementation.is_oracle:
        row = oracle.oracle_extract(fields)["aggregated"][0]
    else:
        row = package_extract(fields, implementation.device)["aggregated"][0]
    actual = dict(zip(oracle.AGGREGATED, row, strict=True))
    assert actual["energy_growth_rate_mean"] == pytest.approx(2 * r, rel=1e-4)
    assert actual["energy_growth_rate_std"] == pytest.approx(2 * r * math.sqrt(2 / 3), rel=1e-4)
    assert actual["energy_growth_rate_cv"] == pytest.approx(math.sqrt(2 / 3), rel=1e-4)


def test_cv_is_capped_and_zero_where_nothing_varies(implementation):
    """Rates +r and −r (mean ~0) reach the cap of 100; one realization has std = cv = 0."""
    v = one_field(19)
    t = np.arange(4)[:, None, None]
    u = np.stack([np.exp(0.3 * t) * v, np.exp(-0.3 * t) * v])[None, :, :, None]
    for fields, cv in ((u, 100.0), (u[:, :1], 0.0)):
        if implementation.is_oracle:
            row = oracle.oracle_extract(fields)["aggregated"][0]
        else:
            row = package_extract(fields, implementation.device)["aggregated"][0]
        actual = dict(zip(oracle.AGGREGATED, row, strict=True))
        assert actual["energy_growth_rate_cv"] == cv
        if cv == 0.0:
            for name in oracle.PER_TRAJECTORY:
                assert actual[f"{name}_std"] == 0.0, name
                assert actual[f"{name}_cv"] == 0.0, name
