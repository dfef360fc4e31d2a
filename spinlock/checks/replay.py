"""Replay: samples computed again from the stored configuration, compared with what is stored."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spinlock.checks.check_results import CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.simulation.provenance import provenance
from spinlock.simulation.simulator import Samples, Simulator
from spinlock.storage import schema
from spinlock.storage.layout import text_attribute

GROUP = "replay"
RTOL, ATOL = 1e-3, 1e-4
# Features amplify rounding where a field is nearly flat or a spectrum nearly empty.
FEATURE_RTOL = FEATURE_ATOL = 1e-2
# Positions of a maximum and counts, which rounding may move by a whole step.
_DISCONTINUOUS = ("dominant_freq_x", "dominant_freq_y", "spectral_rolloff")


@dataclass
class _Comparison:
    """What comparing one part of the samples found."""

    compared: int = 0
    identical: int = 0
    largest: float = 0.0
    differing: list[str] = field(default_factory=list)

    def add(self, sample: int, stored: NDArray[Any], expected: NDArray[Any], close: bool) -> None:
        """Count a sample whose two versions agree within the tolerance or not."""
        same = (stored == expected) | (np.isnan(stored) & np.isnan(expected))
        self.compared += 1
        self.identical += bool(same.all())
        with np.errstate(invalid="ignore"):
            deviation = np.abs(stored.astype(np.float64) - expected)[~same]
        if deviation.size:
            self.largest = float(np.maximum(self.largest, deviation.max()))
        if not close:
            self.differing.append(f"sample {sample}")


def replay_rows(
    source: CheckSource, count: int, device: torch.device, on_samples: Callable[[int], None]
) -> Iterator[CheckRow]:
    """One row each for initial conditions, fields and features of samples computed again.

    Args:
        source: The file.
        count: How many samples.
        device: Where to compute them.
        on_samples: Called with the number of samples just computed.
    """
    parts = {
        "initial conditions": (schema.INPUTS,),
        "fields": (schema.OUTPUTS,),
        "features": tuple(n for n in source.specs if n.startswith("features/")),
    }
    try:
        replay = _Replay(source, Simulator(source.config, device))
    except ConfigurationError as error:
        # Features of the user's own that cannot be imported here.
        for part in parts:
            yield Claim(GROUP, part, f"{part} computed again are those stored", "").not_measurable(
                str(error)
            )
        return
    yield from replay.rows(parts, count, on_samples)


class _Replay:
    """Computes samples of a file again."""

    def __init__(self, source: CheckSource, simulator: Simulator) -> None:
        self._source, self._simulator = source, simulator
        self.exact = _same_origin(source, simulator.device)

    def rows(
        self, parts: dict[str, tuple[str, ...]], count: int, on_samples: Callable[[int], None]
    ) -> Iterator[CheckRow]:
        """The rows of parts of a sample, each some datasets."""
        found = {part: _Comparison() for part in parts}
        reasons = {part: self._reason(part, names) for part, names in parts.items()}
        for index in self._source.choose(count).tolist():
            (samples,) = self._simulator.samples(index, index + 1)
            for part, names in parts.items():
                if not reasons[part]:
                    self._compare(found[part], index, names, samples)
            on_samples(1)
        for part in parts:
            claim = Claim(
                GROUP, part, f"{part} computed again are those stored", self._target(part)
            )
            if reasons[part]:
                yield claim.not_measurable(reasons[part])
            else:
                yield _result(claim, found[part])

    def _target(self, part: str) -> str:
        if self.exact:
            return "bitwise (same device model and packages)"
        rtol, atol = (FEATURE_RTOL, FEATURE_ATOL) if part == "features" else (RTOL, ATOL)
        return f"rtol {rtol:g}, atol {atol:g} (another device or packages)"

    def _reason(self, part: str, names: tuple[str, ...]) -> str:
        if reason := self._source.lacks(*names):
            return reason
        steps = self._source.config.stored_steps
        if part == "fields" and not self.exact and steps[0] > 1:
            return "on another device only the first timestep is comparable, and it is not stored"
        return ""

    def _compare(
        self, found: _Comparison, index: int, names: tuple[str, ...], samples: Samples
    ) -> None:
        expected = _arrays(samples)
        pairs = []
        for name in names:
            try:
                stored = self._stored(name, index)
            except Exception as error:
                # Damaged bytes; see integrity.
                found.differing.append(f"sample {index} ({type(error).__name__})")
                return
            pairs.append((name, stored, expected[name].reshape(stored.shape)))
        if not self.exact:
            pairs = [(name, *self._comparable(name, s, e)) for name, s, e in pairs]
        arrays = [(s, e) for _, s, e in pairs]
        close = all(self._close(name, s, e) for name, s, e in pairs)
        one, two = (np.concatenate([pair[i].ravel() for pair in arrays]) for i in (0, 1))
        found.add(index, one, two, close)

    def _stored(self, name: str, index: int) -> NDArray[Any]:
        if self._source.specs[name].chunk is not None:
            return self._source.entry(name, index).values
        values: NDArray[Any] = self._source.file[name][index]
        return values

    def _comparable(
        self, name: str, stored: NDArray[Any], expected: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """What rounding leaves comparable: initial conditions and the first timestep."""
        spec = self._source.specs[name]
        if "stored timestep" in spec.dims:
            return stored[:, 0], expected[:, 0]
        if "timestep" in spec.dims:
            stored, expected = stored[0], expected[0]
        elif self._source.config.num_timesteps > 1 and "initial" not in name:
            return (stored, expected) if name == schema.INPUTS else (stored[:0], expected[:0])
        if spec.names:
            keep = [i for i, column in enumerate(spec.names) if column not in _DISCONTINUOUS]
            return stored[..., keep], expected[..., keep]
        return stored, expected

    def _close(self, name: str, stored: NDArray[Any], expected: NDArray[Any]) -> bool:
        if self.exact:
            return bool(np.array_equal(stored, expected, equal_nan=True))
        features = name.startswith("features/")
        rtol, atol = (FEATURE_RTOL, FEATURE_ATOL) if features else (RTOL, ATOL)
        return bool(np.allclose(stored, expected, rtol=rtol, atol=atol, equal_nan=True))


def _same_origin(source: CheckSource, device: torch.device) -> bool:
    """Whether one device of this model, with these packages, computed the whole file."""
    here = provenance(source.config, device)
    try:
        return all(
            json.loads(text_attribute(source.file, name)) == json.loads(here[name])
            for name in ("device", "package_versions")
        )
    except (DatasetError, ValueError, RecursionError):
        return False


def _arrays(samples: Samples) -> dict[str, NDArray[Any]]:
    """Dataset -> the values that the file should hold of one sample."""
    tensors = {
        schema.INPUTS: samples.initial,
        schema.OUTPUTS: samples.fields,
        schema.PER_TIMESTEP: samples.features.per_timestep,
        schema.PER_TRAJECTORY: samples.features.per_trajectory,
        schema.AGGREGATED: samples.features.aggregated,
        schema.INITIAL_FEATURES: samples.initial_features,
        **{schema.custom_features(array): values for array, values in samples.custom.items()},
    }
    return {name: tensor[0].numpy() for name, tensor in tensors.items()}


def _result(claim: Claim, found: _Comparison) -> CheckRow:
    measured = (
        f"{found.identical} of {found.compared} samples bitwise equal, largest difference "
        f"{found.largest:.2g}"
    )
    if found.differing:
        measured += f"; not within the target: {', '.join(found.differing[:4])}"
    return claim.result(measured, found.largest, not found.differing)
