"""Reads the data of the report's plots from a dataset file, in bounded memory."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.variance_checks import ColumnShares, column_shares
from spinlock.errors import DatasetError
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.reader import as_text

# Largest numbers of samples per variant, of operators and of samples that the plots show.
_SPECTRUM_SAMPLES, _POINTS, _FEATURE_ROWS = 24, 2_000, 5_000
# Near this noise_scale, realizations of a sample differ visibly.
_VISIBLE_NOISE = 0.3


class ReportSource(DatasetFile):
    """An open dataset file with the data of the report's plots."""

    @cached_property
    def variants(self) -> NDArray[np.str_]:
        """(N,) variant of each sample."""
        return as_text(self.column(schema.IC_TYPES), self.path, schema.IC_TYPES)

    @cached_property
    def families(self) -> NDArray[np.str_]:
        """(N,) family of each sample."""
        return as_text(self.column(schema.IC_FAMILIES), self.path, schema.IC_FAMILIES)

    @property
    def present(self) -> tuple[str, ...]:
        """Variants that have samples, in the order of the mixture."""
        return tuple(name for name in self.config.mixture.names if (self.variants == name).any())

    def example(self, variant: str, *, update_policy: str | None = None) -> int:
        """Return the index of a sample with visible noise.

        Args:
            variant: Variant of the sample.
            update_policy: Update policy of the sample, if the variant has samples with it.
        """
        values = self.parameter_values()
        rows = np.flatnonzero(self.variants == variant)
        distance = np.abs(np.log(values["noise_scale"][rows] / _VISIBLE_NOISE))
        if update_policy is not None:
            distance += 100.0 * (values["update_policy"][rows] != update_policy.encode())
        return int(rows[distance.argmin()])

    def describe(self, row: int) -> str:
        """Return a short description of a sample's operator."""
        values = self.parameter_values(range(row, row + 1))[0]
        update_policy, scale = values["update_policy"].decode(), values["noise_scale"]
        return f"sample {row}, {update_policy}, noise_scale {scale:.2g}"

    def spectrum_samples(self) -> dict[str, NDArray[np.float32]]:
        """Return the first (n, C, H, W) initial conditions of each variant."""
        chosen = {n: np.flatnonzero(self.variants == n)[:_SPECTRUM_SAMPLES] for n in self.present}
        return {
            name: np.stack([self.initial(row) for row in rows.tolist()])
            for name, rows in chosen.items()
        }

    def points(self) -> tuple[NDArray[np.float32], Sequence[str]]:
        """Return the first (n, 15) operators in the unit cube, and the families of their probes."""
        step = self.config.probes_per_operator
        stop = step * _POINTS
        return self.stored_column(schema.PARAMS)[:stop:step], self.families[:stop:step].tolist()

    def features(self, name: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Return (n, F) columns of the first rows at the last timestep, and their names.

        Args:
            name: Name of a dataset of features, whose rows are samples, or of the dynamics, whose
                rows are operators.
        """
        values = self.stored_column(name)[:_FEATURE_ROWS]
        return (values[:, -1] if values.ndim == 3 else values), self.specs[name].names

    def variance(self) -> dict[str, ColumnShares]:
        """Return the shares of variance of the file's arrays of features, by title.

        There are none with one probe per operator, or if the samples do not allow a decomposition.
        """
        steps = self.config.num_timesteps
        titles = {
            schema.PER_TIMESTEP: f"Features of u_{steps}",
            schema.RESPONSES: f"Response of u_{steps}",
            schema.TRANSPORT_RESPONSES: f"Transport to u_{steps}",
            schema.NOISE_RESPONSES: "Noise group",
        }
        found = {}
        for name, title in titles.items():
            if name in self.specs:
                with suppress(DatasetError):
                    found[title] = column_shares(self, name)
        return found
