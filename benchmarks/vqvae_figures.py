"""Figures of docs/vqvae.md: `python -m benchmarks.vqvae_figures [--folder docs/images]`.

Reads the results of `python -m benchmarks.vqvae`, and trains the plain model and the recipe once
more for their tables of codes by variants.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.vqvae import BASE, assemble
from spinlock.metrics import TokenContingency, permuted_tables

POLICIES = ("autoregressive", "residual", "convex")
MAIN = ("plain", "conditioned", "normalized", "without_information", "without_wasserstein", BASE)


def independence(results: Sequence[dict[str, Any]]) -> Figure:
    """Reconstruction against adjusted mutual information of token and family, a point for a run."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name in MAIN:
        runs = [result["metrics"] for result in results if result["name"] == name]
        if runs:
            x = [run["test/ic/family_ami"] for run in runs]
            axes.scatter(x, [run["test/r2"] for run in runs], label=name.replace("_", " "))
    axes.axvline(0, color="0.8", zorder=0)
    axes.set_xlabel("adjusted mutual information of token and IC family (0: chance)")
    axes.set_ylabel("R² given the initial condition")
    axes.set_title("256 codes, test split, a point for each of three seeds")
    axes.legend()
    return figure


def probes(results: Sequence[dict[str, Any]]) -> Figure:
    """R2 under the other probe, with own and with shuffled tokens, by update policy."""
    names = ("probes", "paired")
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), names, strict=True):
        runs = [result["metrics"] for result in results if result["name"] == name]
        for offset, kind in ((-0.2, "cross_probe_r2"), (0.2, "shuffled_tokens_r2")):
            keys = ["test/consistency/" + kind, *(f"pairs/{kind}/{policy}" for policy in POLICIES)]
            heights = [sum(run[key] for run in runs) / len(runs) for key in keys]
            places = [place + offset for place in range(len(keys))]
            label = "own token" if kind == "cross_probe_r2" else "shuffled token"
            axes.bar(places, heights, 0.4, label=label)
        axes.set_xticks(range(4), ["all", *POLICIES], rotation=20)
        axes.set_title("recipe" if name == "probes" else name)
    figure.axes[0].set_ylabel("R² under the other probe")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def horizons(results: Sequence[dict[str, Any]]) -> Figure:
    """R2 under the other probe, and its two floors, against the number of timesteps."""
    runs: dict[int, list[dict[str, float]]] = {}
    for result in results:
        step = result["name"].removeprefix("horizon_")
        if step.isdigit():
            runs.setdefault(int(step), []).append(result["metrics"])
    kinds = {
        "cross_probe_r2": "own token",
        "ic_only_r2": "initial condition alone (ridge)",
        "shuffled_tokens_r2": "shuffled token",
    }
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    steps = sorted(runs)
    for kind, label in kinds.items():
        values = [[run[f"test/consistency/{kind}"] for run in runs[step]] for step in steps]
        axes.plot(steps, [sum(each) / len(each) for each in values], "o-", label=label)
    axes.axhline(0, color="0.8", zorder=0)
    axes.set_xticks(steps)
    axes.set_xlabel("timesteps")
    axes.set_ylabel("R² under the other probe")
    axes.legend()
    return figure


def codes_by_variant() -> Figure:
    """How often each code goes with each variant, relative to independence, and under it."""
    tables, names = {}, ()
    for name in ("plain", BASE):
        cli = assemble(name, seed=0)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        table = TokenContingency(cli.model.codebook_size, num_classes=cli.datamodule.num_variants)
        with torch.no_grad():
            for batch in cli.datamodule.test_dataloader():
                table.update(cli.model.eval()(batch)["tokens"], batch["variant"])
        tables[name], names = table.compute(), cli.datamodule.variant_names
    permuted = next(permuted_tables(tables[BASE], permutations=1))
    # Ordering alone makes a diagonal of what there is by chance.
    tables[f"{BASE}, variants permuted among the samples"] = torch.from_numpy(permuted)
    figure = Figure(figsize=(8, 7), layout="constrained")
    for axes, (name, counts) in zip(figure.subplots(3, 1), tables.items(), strict=True):
        share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
        ratio = share[share.argmax(1).argsort(stable=True)] / (counts.sum(0) / counts.sum())
        image = axes.imshow(ratio.T, aspect="auto", vmin=0, vmax=5, interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title(name)
        figure.colorbar(image, ax=axes, label="share / expected", extend="max")
    figure.axes[2].set_xlabel("code, ordered by its most frequent variant")
    return figure


def main(args: Sequence[str] | None = None) -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("data/experiments/results.jsonl"))
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    options = parser.parse_args(args)
    results = [json.loads(line) for line in options.results.read_text().splitlines()]
    figures = {
        "vqvae_independence": independence(results),
        "vqvae_probes": probes(results),
        "vqvae_horizons": horizons(results),
        "vqvae_codes_by_variant": codes_by_variant(),
    }
    for name, figure in figures.items():
        figure.savefig(options.folder / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
