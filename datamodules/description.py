"""What a data module serves, as text."""

from typing import TYPE_CHECKING

import torch

from spinlock.datamodules.views import ONE_TIMESTEP_VIEWS

if TYPE_CHECKING:
    from spinlock.datamodules.spinlock_datamodule import SpinlockDataModule


def describe(datamodule: "SpinlockDataModule") -> str:
    """Dataset, view, selection, the number of samples of each variant in each loader, scaling."""
    config, serving, loading = datamodule.generation, datamodule.serving, datamodule.loading
    masks, names = serving.masks, datamodule.label_names
    share = ", ".join(f"{fraction:.4g}" for fraction in serving.fractions)
    order = "" if datamodule.balance == "none" else f", balanced by {datamodule.balance}"
    realizations = f", realizations: {datamodule.realizations}" if "fields" in serving.view else ""
    one_timestep = serving.view in ONE_TIMESTEP_VIEWS
    timestep = f", timestep {serving.timestep} of {config.num_timesteps}" if one_timestep else ""
    rows = {
        "dataset": f"{datamodule.path}, fingerprint {config.fingerprint[:12]}",
        "samples": f"{config.num_samples} ({config.probes_per_operator} probe(s) per operator, "
        f"{config.num_realizations} realizations, {config.num_timesteps} timesteps)",
        "view": f"{serving.view}{timestep}{realizations}",
        "batches": f"of {datamodule.batch_size}, {loading.num_workers} worker(s){order}",
        "split": f"{share} (train, val, test) of the operators, split_seed {serving.split_seed}",
        "trained on": _selected(names.variants, masks.train),
        "evaluated on": _selected(names.variants, masks.held_in | masks.held_out),
        "scaling": ("signed_log, " if serving.signed_log and serving.scaling != "none" else "")
        + serving.scaling,
    }
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {text}" for name, text in rows.items()]
    return "\n".join([type(datamodule).__name__, *lines, *_after_setup(datamodule)])


def _selected(names: tuple[str, ...], mask: torch.Tensor) -> str:
    if mask.all():
        return f"all {len(names)} variants"
    return ", ".join(name for name, chosen in zip(names, mask.tolist(), strict=True) if chosen)


def _after_setup(datamodule: "SpinlockDataModule") -> list[str]:
    served = datamodule.served
    if served is None:
        return ["not set up: counts and scaling are known after setup()"]
    lines = ["", *_counts(datamodule)]
    for key, scaler in served.scalers.items():
        lines += ["", f"scaling of {key}:", scaler.describe(datamodule.feature_names)]
    return lines


def _counts(datamodule: "SpinlockDataModule") -> list[str]:
    """A table: samples of each variant (the first of a pair) in each loader."""
    served = datamodule.served
    assert served is not None
    variant, names = served.columns["variant"], datamodule.variant_names
    counts = {}
    for (split, part), rows in served.subsets.rows.items():
        firsts = rows if rows.ndim == 1 else rows[:, 0]
        counts[served.subsets.title(split, part)] = torch.bincount(
            variant[firsts], minlength=len(names)
        ).tolist()
    width = max(map(len, names))
    columns = [(title, max(len(title), 7), values) for title, values in counts.items()]
    lines = [" " * width + "".join(f"  {title:>{size}}" for title, size, _ in columns)]
    for row, name in enumerate(names):
        cells = "".join(f"  {values[row]:>{size}}" for _, size, values in columns)
        lines.append(f"{name:<{width}}{cells}")
    totals = "".join(f"  {sum(values):>{size}}" for _, size, values in columns)
    return [*lines, f"{'total':<{width}}{totals}"]
