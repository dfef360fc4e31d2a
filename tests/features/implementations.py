"""The oracle and the package behind one interface, with the tolerances of each."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from . import oracle
from .helpers import as_fields, package_extract


@dataclass
class Implementation:
    """One of the two implementations: the oracle (``device`` None) or the package."""

    device: torch.device | None

    @property
    def is_oracle(self):
        return self.device is None

    def field_features(self, fields):
        """Per-timestep features [N, T, 46] as a dict of arrays [N, T]."""
        fields = np.asarray(fields, dtype=np.float64)
        if self.is_oracle:
            rows = oracle.oracle_extract(fields)["per_timestep"]
        else:
            rows = package_extract(fields, self.device)["per_timestep"]
        return dict(zip(oracle.PER_TIMESTEP, np.moveaxis(rows, -1, 0), strict=True))

    def one_field(self, u):
        """The 46 features of a single field (H, W), as numbers."""
        return {name: v[0, 0] for name, v in self.field_features(as_fields(u)).items()}

    def trajectories(self, u):
        """The 13 features of trajectories (R, T, H, W), as a dict of arrays [R]."""
        u = np.asarray(u, dtype=np.float64)
        if self.is_oracle:
            rows = [oracle.temporal_features(one) for one in u]
            return {name: np.array([r[name] for r in rows]) for name in oracle.PER_TRAJECTORY}
        rows = package_extract(u[None, :, :, None], self.device)["per_trajectory"][0]
        return dict(zip(oracle.PER_TRAJECTORY, rows.T, strict=True))

    def one_trajectory(self, u):
        """The 13 features of a single trajectory (T, H, W), as numbers."""
        return {name: v[0] for name, v in self.trajectories(np.asarray(u)[None]).items()}

    def check(self, actual, expected, *, shift=0.0, scale=1.0):
        """Compare numbers by name; ``shift`` and ``scale`` are |μ| and s (or σ) of the input."""
        lines = []
        for name, value in expected.items():
            exponent = oracle.EXPONENT[name]
            if self.is_oracle:
                allowed = 1e-9 * (abs(value) + scale**exponent)
            else:
                size = {0: 10.0, 1: shift + scale, 2: scale**2}[exponent]
                allowed = 1e-3 * abs(value) + 1e-5 * size
            if not abs(actual[name] - value) <= allowed:
                lines.append(f"{name}: got {actual[name]:.9g}, expected {value:.9g} ±{allowed:.2g}")
        assert not lines, "\n" + "\n".join(lines)


def approximately(actual, expected, rel):
    """The entries marked ≈ in section 6: exact up to how the grid samples the phase."""
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=rel), name


def band_bins(H, W):
    """Number of bins in each of the five bands."""
    fx, fy = oracle.frequencies(H, W)
    f2 = (fx**2 + fy**2).ravel()[1:]
    edges = [e**2 for e in oracle.BAND_EDGES]
    return [int(np.sum((f2 >= a) & (f2 < b))) for a, b in itertools.pairwise(edges)]
