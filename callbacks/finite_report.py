"""What is not finite, where, and in which samples: the message of `FiniteCheck`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from spinlock import contract


@dataclass(frozen=True)
class FiniteReport:
    """What one process found.

    Args:
        text: A line for each tensor that is not finite.
        columns: Bad values by column.
        variants: Bad samples by variant.
    """

    text: str = ""
    columns: dict[str, int] = field(default_factory=dict)
    variants: dict[str, int] = field(default_factory=dict)


def floating_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating tensors in nested containers, named as in code: ``batch['features']``."""
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
    """Describe what is not finite.

    Args:
        tensors: Name -> tensor.
        batch: The batch they belong to; its ``index`` and ``variant`` name the samples.
        trainer: Its data module names columns and variants.
    """
    samples = _Samples(batch, contract.known_names(trainer, "variant_names"))
    features = contract.known_names(trainer, "feature_names")
    lines, counts = [], Counter[str]()
    rows: set[int] = set()
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        if not bad.any():
            continue
        is_feature = any(name.endswith(f"[{key!r}]") for key in contract.FEATURE_COLUMNS)
        columns = _columns(tensor, features if is_feature else None, is_feature)
        counts.update({f"{name}:{column}": int(_bad(values)) for column, values in columns.items()})
        if not columns:
            counts[name] += int(bad.sum())
        listed = [f"{column} ({_kinds(values)})" for column, values in columns.items()]
        rows |= set(samples.rows(bad))
        parts = [_kinds(tensor), "columns " + _listed(listed) if listed else "", samples.told(bad)]
        lines.append(f"\n  {name}: " + "; ".join(part for part in parts if part))
    if rows and samples.indices and contract.known_property(trainer, "generation") is not None:
        first = samples.indices[min(rows)]
        simulator = "spinlock.simulation.simulator.Simulator(datamodule.generation)"
        again = f"{simulator}.samples({first}, {first + 1})"
        lines.append(f"\n  to compute sample {first} again: {again}")
    return FiniteReport("".join(lines), dict(counts), samples.by_variant(rows))


class _Samples:
    """Names of the samples of a batch."""

    def __init__(self, batch: object, variants: tuple[str, ...] | None) -> None:
        entries = batch if isinstance(batch, Mapping) else {}
        indices, types = entries.get("index"), entries.get("variant")
        self.indices: list[int] = indices.tolist() if isinstance(indices, Tensor) else []
        numbers = types.tolist() if isinstance(types, Tensor) else []
        self.variants = [contract.numbered_name(variants, n, "variant") for n in numbers]

    def rows(self, bad: Tensor) -> list[int]:
        """Rows that are marked; none where there is no row for each sample."""
        if bad.ndim == 0 or len(bad) != max(len(self.indices), len(self.variants)):
            return []
        rows: list[int] = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
        return rows

    def told(self, bad: Tensor) -> str:
        """The marked samples, or all of them where there is no row for each."""
        rows = self.rows(bad)
        if not self.indices:
            return ""
        if not rows:
            every = range(len(self.indices))
            return "in the batch of samples " + _listed([self._name(row) for row in every])
        text = "samples " + _listed([self._name(row) for row in rows])
        counted = self.by_variant(set(rows))
        if not counted:
            return text
        return text + "; variants " + _listed([f"{name} ({n})" for name, n in counted.items()])

    def by_variant(self, rows: set[int]) -> dict[str, int]:
        """Variant -> number of these rows."""
        return dict(Counter(self.variants[row] for row in sorted(rows))) if self.variants else {}

    def _name(self, row: int) -> str:
        """For example ``"17 (sinusoids)"``."""
        variant = f" ({self.variants[row]})" if self.variants else ""
        return f"{self.indices[row]}{variant}"


def _columns(tensor: Tensor, names: tuple[str, ...] | None, is_feature: bool) -> dict[str, Tensor]:
    """The columns that are not finite: of tables, and of feature sequences ``[B, T, F]``."""
    if tensor.ndim != 2 and not (is_feature and tensor.ndim == 3):
        return {}
    table = tensor.flatten(0, -2)
    bad = (~torch.isfinite(table)).any(0).nonzero().flatten().tolist()
    return {contract.numbered_name(names, column, "column"): table[:, column] for column in bad}


def _bad(values: Tensor) -> Tensor:
    return (~torch.isfinite(values)).sum()


def _kinds(tensor: Tensor) -> str:
    counts = {"NaN": int(tensor.isnan().sum()), "Inf": int(tensor.isinf().sum())}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _listed(items: list[str], most: int = 10) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
