"""Check by replay: recomputes samples from the stored configuration and compares them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError
from spinlock.checks.replay_tolerances import AMPLIFYING, Tolerance, tolerance
from spinlock.configuration.parameter_space import typed_row
from spinlock.errors import ConfigurationError, SpinlockError
from spinlock.features.response import TRANSPORT_NAMES
from spinlock.runtime.device_record import UNKNOWN
from spinlock.simulation.provenance import provenance
from spinlock.simulation.rollout import update_step
from spinlock.simulation.simulator import Simulator
from spinlock.storage import schema
from spinlock.storage.columns import sample_arrays
from spinlock.storage.origins import ORIGINS, records_of
from spinlock.storage.reader import json_attribute

# Columns that jump: between frequency bins, between displacements that fit equally well, or where
# the Jacobian's kernel disappears in its noise.
_DISCONTINUOUS = (
    *("dominant_freq_x", "dominant_freq_y", "spectral_rolloff"),
    *TRANSPORT_NAMES,
    *("shift_x", "shift_y", "spread"),
)
# Logarithms of small differences of fields, in which rounding shows below this value.
_CANCELLING, _RESOLVED = ("innovation", "nonlinear_share"), -2.5
# Value of noise_rel below which the noise of the fields is hidden by their rounding.
_RESOLVED_NOISE = -4.5
# Datasets without a timestep axis that later timesteps do not affect.
_EARLY = (schema.INPUTS, schema.INITIAL_FEATURES, schema.NOISE_RESPONSES, schema.DYNAMICS)


@dataclass
class _Comparison:
    """Comparison of one part of several samples: initial conditions, fields, features, dynamics."""

    compared: int = 0
    identical: int = 0
    largest: float = 0.0
    differing: list[str] = field(default_factory=list)

    def add(self, stored: NDArray[Any], expected: NDArray[Any]) -> bool:
        """Record the differences of one array and return whether there are none."""
        same = (stored == expected) | (np.isnan(stored) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            deviation = np.abs(stored.astype(np.float64) - expected)[~same]
        if deviation.size:
            self.largest = float(np.maximum(self.largest, deviation.max()))
        return bool(same.all())

    def result(self) -> Measurement:
        text = (
            f"{self.identical} of {self.compared} samples equal, largest difference "
            f"{self.largest:.2g}"
        )
        if self.differing:
            text += f"; outside the tolerance: {', '.join(self.differing[:4])}"
        return Measurement(text, self.largest, not self.differing)


def replay_claims(
    source: CheckSource, number: int, device: torch.device, on_samples: Callable[[int], None]
) -> Iterator[Claim]:
    """Yield one claim each for initial conditions, fields, features and dynamics.

    The dynamics are those of the samples' operators; there is no claim if the file has none.

    Args:
        source: File under check.
        number: Number of samples to recompute.
        device: Device that computes them.
        on_samples: Function called with the number of samples just computed.
    """
    origin = _Origin(source, device)
    chosen = _chosen(source, number)
    equal = sum(map(origin.is_here, chosen))
    parts = {
        "initial conditions": (schema.INPUTS,),
        "fields": (schema.OUTPUTS,),
        "features": tuple(name for name in source.specs if name.startswith("features/")),
        **({"dynamics": (schema.DYNAMICS,)} if schema.DYNAMICS in source.specs else {}),
    }
    readable = {part: names for part, names in parts.items() if not source.lacks(*names)}
    compare = cache(partial(_compare, source, readable, number, device, origin, on_samples))

    def measure(part: str) -> Measurement:
        if part == "fields" and equal < len(chosen) and source.config.stored_steps[0] > 1:
            raise NotMeasurableError(
                "on another device or with other packages only timestep 1 can be compared, and the "
                "file does not store it"
            )
        return compare()[part].result()

    for part, names in parts.items():
        target = "equal (same device model and packages)"
        if equal < len(chosen):
            same = f"{equal} of {len(chosen)} samples {target}, others " if equal else ""
            others = (index for index in chosen if not origin.is_here(index))
            texts = sorted({origin.tolerance(part, index).text for index in others})
            target = f"{same}{' or '.join(texts)} (another device or other packages)"
        text = f"recomputed {part} match the stored ones"
        yield Claim(part, text, partial(measure, part), names, target)


def _chosen(source: CheckSource, number: int) -> list[int]:
    """Return the samples to recompute; none if a damaged file hides them, which `_compare` says."""
    try:
        return [int(sample) for sample in source.choose(number)]
    except Exception:
        return []


class _Origin:
    """What computed the samples of a file, compared with a device and the packages here."""

    def __init__(self, source: CheckSource, device: torch.device) -> None:
        self._precision = source.config.precision
        self._records: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = []
        self._type = device.type
        try:
            here = provenance(source.config, device)
            self._records = [
                (json_attribute(source, name), json.loads(here[name])) for name in ORIGINS
            ]
        except (SpinlockError, ValueError, RecursionError):
            pass

    def is_here(self, sample: int) -> bool:
        """Return whether this device model, with these packages, computed a sample."""
        same = (records_of(stored, sample) == here for stored, here in self._records)
        # Two unknown drivers need not be the same one.
        known = all(record.get("driver") != UNKNOWN for _, here in self._records for record in here)
        return bool(self._records) and known and all(same)

    def tolerance(self, part: str, sample: int) -> Tolerance:
        """Return the tolerance of a part of a sample that was not computed here."""
        stored = self._records[0][0] if self._records else []
        records = records_of(stored, sample) or stored
        # Without records, any kind of device may have computed it.
        types = {str(record.get("type")) for record in records} or {"cuda"}
        return tolerance(part, self._precision, types | {self._type})


def _compare(
    source: CheckSource,
    parts: dict[str, tuple[str, ...]],
    num_samples: int,
    device: torch.device,
    origin: _Origin,
    on_samples: Callable[[int], None],
) -> dict[str, _Comparison]:
    """Recompute samples and compare parts of them.

    Args:
        source: File under check.
        parts: Mapping of parts to the names of their columns.
        num_samples: Number of samples to recompute.
        device: Device that computes them.
        origin: Origin of the samples. Values that were computed here must be equal, others close.
        on_samples: Function called with the number of samples just computed.
    """
    try:
        simulator = Simulator(source.config, device)
    except ConfigurationError as error:
        # A custom class cannot be imported, or is not trusted.
        raise NotMeasurableError(str(error)) from error
    found = {part: _Comparison() for part in parts}
    for index in source.choose(num_samples).tolist():
        exact = origin.is_here(index)
        expected = _recomputed(simulator, index, "dynamics" in parts)
        for part, names in parts.items():
            try:
                stored = {name: source.values_of(name, index) for name in names}
            except Exception as error:
                # A damaged byte can make HDF5 or the decompressor fail in any way.
                found[part].differing.append(f"sample {index} ({type(error).__name__})")
                continue
            identical = close = True
            for name, values in stored.items():
                pair = values, expected[name].reshape(values.shape)
                if not exact:
                    allowed, unchanged = origin.tolerance(part, index), None
                    pair = _comparable(source, name, *pair, each_value=allowed.norm is None)
                    if allowed.norm is not None and name == schema.OUTPUTS:
                        unchanged = _unchanged(source, simulator, index, expected[schema.INPUTS])
                    close &= allowed.holds(*pair, unchanged)
                identical &= found[part].add(*pair)
            found[part].compared += 1
            found[part].identical += identical
            if not (identical if exact else close):
                found[part].differing.append(f"sample {index}")
        on_samples(1)
    return found


def _unchanged(
    source: CheckSource, simulator: Simulator, index: int, initial: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the first timestep of a sample (C, H, W) if the operator and the noise were 0."""
    values = typed_row(source.design.values[index])
    step = update_step(values, simulator.family.flow(values, device=torch.device("cpu")))
    field = torch.from_numpy(initial)[None]
    return np.asarray(step(field, torch.zeros_like(field))[0])


def _recomputed(simulator: Simulator, index: int, dynamics: bool) -> dict[str, NDArray[Any]]:
    """Compute what a file holds of a sample.

    Args:
        simulator: Simulator of the dataset.
        index: Index of the sample.
        dynamics: Whether the operator's dynamics are wanted, which come with its first sample.
    """
    (samples,) = simulator.samples(index, index + 1)
    found = {name: values[0] for name, values in sample_arrays(samples).items() if len(values)}
    first = index - index % simulator.config.probes_per_operator
    if dynamics and schema.DYNAMICS not in found:
        found[schema.DYNAMICS] = _recomputed(simulator, first, dynamics)[schema.DYNAMICS]
    return found


def _comparable(
    source: CheckSource,
    name: str,
    stored: NDArray[Any],
    expected: NDArray[Any],
    *,
    each_value: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values that can be compared across devices; empty if there are none.

    These are the initial condition, timestep 1 and the dynamics, without columns that jump. Later
    timesteps amplify rounding. Unless each value must be close, some dynamics are left out, too.
    """
    spec = source.specs[name]
    if name == schema.OUTPUTS and "timestep" in spec.dims:
        return stored[:, 0], expected[:, 0]
    if "timestep" in spec.dims:
        stored, expected = stored[0], expected[0]
    elif source.config.num_timesteps > 1 and name not in _EARLY:
        return stored[:0], expected[:0]
    if not spec.names:
        return stored, expected
    if name == schema.NOISE_RESPONSES:
        # Not below the threshold, nor if the noise is NaN.
        resolved = expected[spec.names.index("noise_rel")] >= _RESOLVED_NOISE
        stored, expected = stored[None][: int(resolved)], expected[None][: int(resolved)]
    cancelling = np.isin(spec.names, _CANCELLING)
    rounded = not each_value and name == schema.DYNAMICS
    kept = ~np.isin(spec.names, _DISCONTINUOUS + (AMPLIFYING if rounded else ()))
    one, two = (
        np.where(cancelling, np.maximum(values, _RESOLVED), values)[..., kept]
        for values in (stored, expected)
    )
    return one, two
