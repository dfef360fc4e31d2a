"""What the report's figures show, read from a dataset file: some samples, in bounded memory."""

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.storage import schema
from spinlock.storage.attributes import read_attribute
from spinlock.storage.reader import as_text

# Samples that a figure shows or averages over.
_SPECTRUM_SAMPLES, _POINTS, _FEATURE_ROWS = 24, 2_000, 5_000
# Realizations of a sample differ visibly near this.
_VISIBLE_NOISE = 0.3


class ReportSource:
    """A dataset file, open for reading.

    Args:
        file: The file.
        config: Its configuration.
    """

    def __init__(self, file: h5py.File, config: GenerationConfig) -> None:
        self._file, self.config = file, config
        self.mixture = Mixture(config.initial_conditions)
        self.variants, self.families = (
            as_text(file[name][:], file.filename, name)
            for name in (schema.IC_TYPES, schema.IC_FAMILIES)
        )
        self.has_fields = bool(config.stored_steps)

    @property
    def present(self) -> tuple[str, ...]:
        """Variants that have samples, in the order of the mixture."""
        return tuple(name for name in self.mixture.names if (self.variants == name).any())

    def example(self, variant: str, *, policy: str | None = None) -> int:
        """A sample of a variant (and, if there is one, of an update policy) with visible noise."""
        values = self._file[schema.VALUES]
        rows = np.flatnonzero(self.variants == variant)
        distance = np.abs(np.log(values["noise_scale"][rows] / _VISIBLE_NOISE))
        if policy is not None:
            distance += 100.0 * (values["update_policy"][rows] != policy.encode())
        return int(rows[distance.argmin()])

    def initial(self, row: int) -> NDArray[np.float32]:
        """Initial condition [C, H, W] of a sample."""
        values: NDArray[np.float32] = self._file[schema.INPUTS][row]
        return values

    def trajectory(self, row: int) -> NDArray[np.float32]:
        """Fields [M, T', C, H, W] of a sample at the stored timesteps."""
        values = self._file[schema.OUTPUTS][row]
        return np.asarray(values if values.ndim == 5 else values[:, None])

    def describe(self, row: int) -> str:
        """A sample's operator in a few words."""
        values = self._file[schema.VALUES][row]
        return (
            f"sample {row}, {values['update_policy'].decode()}, noise_scale "
            f"{values['noise_scale']:.2g}"
        )

    def spectrum_samples(self) -> dict[str, NDArray[np.float32]]:
        """Variant -> [n, C, H, W] of its first initial conditions."""
        chosen = {n: np.flatnonzero(self.variants == n)[:_SPECTRUM_SAMPLES] for n in self.present}
        return {name: self._file[schema.INPUTS][rows] for name, rows in chosen.items()}

    def points(self) -> tuple[NDArray[np.float32], Sequence[str]]:
        """The first operators [n, 15] in the unit cube, and the families that probe them first."""
        step = self.config.probes_per_operator
        stop = step * _POINTS
        return self._file[schema.PARAMS][:stop:step], self.families[:stop:step].tolist()

    def features(self, name: str) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """Features [n, F] of the first samples (of the last timestep), and their names."""
        data = self._file[name]
        held: Any = read_attribute(data, "names")
        names = tuple(str(column) for column in np.atleast_1d(held))
        values = data[:_FEATURE_ROWS]
        return (values[:, -1] if values.ndim == 3 else values), names
