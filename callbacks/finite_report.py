"""Builds the message of `FiniteCheck`: which values are not finite, and in which samples."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from spinlock import contract


@dataclass(frozen=True)
class FiniteReport:
    """Findings of one process.

    Args:
        text: One line for each tensor that is not finite.
        columns: Number of bad values by column.
        variants: Number of bad samples by variant.
    """

    text: str = ""
    columns: dict[str, int] = field(default_factory=dict)
    variants: dict[str, int] = field(default_factory=dict)


def floating_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the floating tensors of nested containers, named as in code: ``batch['features']``."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from floating_tensors(item, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from floating_tensors(item, f"{name}[{position}]")


def make_report(tensors: Mapping[str, Tensor], batch: object, trainer: Trainer) -> FiniteReport:
    """Describe the values that are not finite.

    Args:
        tensors: Tensors by name.
        batch: Batch that they belong to; its ``index`` and ``variant`` identify the samples.
        trainer: Trainer, whose data module names columns and variants.
    """
    samples = _Samples(batch, contract.known_property(trainer, "variant_names") or ())
    feature_names = contract.known_property(trainer, "feature_names") or ()
    initial_names = contract.known_property(trainer, "initial_feature_names") or feature_names
    lines, counts = [], Counter[str]()
    rows: set[int] = set()
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        if not bad.any():
            continue
        is_feature = any(name.endswith(f"[{key!r}]") for key in contract.FEATURE_COLUMNS)
        names = initial_names if "initial_features" in name else feature_names
        columns = _columns(tensor, names if is_feature else (), is_feature)
        keyed = {f"{name}:{column}": values for column, values in columns.items()}
        counts.update({key: _count(values) for key, values in (keyed or {name: tensor}).items()})
        listed = [f"{column} ({_kinds(values)})" for column, values in columns.items()]
        rows |= set(samples.rows(bad))
        parts = [_kinds(tensor), "columns " + _listed(listed) if listed else "", samples.text(bad)]
        lines.append(f"\n  {name}: " + "; ".join(part for part in parts if part))
    if rows and samples.indices and contract.known_property(trainer, "generation") is not None:
        first = samples.indices[min(rows)]
        simulator = "spinlock.simulation.simulator.Simulator(datamodule.generation)"
        again = f"{simulator}.samples({first}, {first + 1})"
        lines.append(f"\n  to compute sample {first} again: {again}")
    return FiniteReport("".join(lines), dict(counts), samples.by_variant(rows))


class _Samples:
    """Indices and variants of the samples of a batch, where these are known."""

    def __init__(self, batch: object, names: Sequence[str]) -> None:
        entries = batch if isinstance(batch, Mapping) else {}
        self.indices, numbers = (
            # A row of several probes is named by the first one.
            entries[key].reshape(len(entries[key]), -1)[:, 0].tolist()
            if isinstance(entries.get(key), Tensor)
            else []
            for key in ("index", "variant")
        )
        named = bool(names) and all(0 <= number < len(names) for number in numbers)
        self.variants = [names[number] for number in numbers] if named else []
        self.labels = [str(index) for index in self.indices]
        if named:
            pairs = zip(self.labels, self.variants, strict=False)
            self.labels = [f"{index} ({variant})" for index, variant in pairs]

    def rows(self, bad: Tensor) -> list[int]:
        """Rows that are marked; empty if the tensor does not have one row for each sample."""
        if bad.ndim == 0 or len(bad) != max(len(self.indices), len(self.variants)):
            return []
        rows: list[int] = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
        return rows

    def text(self, bad: Tensor) -> str:
        """The marked samples, or all samples if the tensor does not have one row for each."""
        rows = self.rows(bad)
        if not self.labels:
            return ""
        shown = [self.labels[row] for row in rows] or self.labels
        counted = [f"{name} ({n})" for name, n in self.by_variant(set(rows)).items()]
        where = "samples " if rows else "in the batch of samples "
        return where + _listed(shown) + ("; variants " + _listed(counted) if counted else "")

    def by_variant(self, rows: set[int]) -> dict[str, int]:
        """Number of these rows by variant."""
        return dict(Counter(self.variants[row] for row in sorted(rows))) if self.variants else {}


def _columns(tensor: Tensor, names: Sequence[str], is_feature: bool) -> dict[str, Tensor]:
    """The columns that are not finite, for tables and for feature sequences ``[B, T, F]``."""
    if tensor.ndim != 2 and not (is_feature and tensor.ndim == 3):
        return {}
    table = tensor.flatten(0, -2)
    bad = (~torch.isfinite(table)).any(0).nonzero().flatten().tolist()
    return {(names[n] if n < len(names) else f"column {n}"): table[:, n] for n in bad}


def _count(values: Tensor) -> int:
    return int((~torch.isfinite(values)).sum())


def _kinds(tensor: Tensor) -> str:
    counts = {"NaN": int(tensor.isnan().sum()), "Inf": int(tensor.isinf().sum())}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _listed(items: list[str], most: int = 10) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
