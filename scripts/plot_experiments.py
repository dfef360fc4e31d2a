"""Make the plots of docs/vqvae.md from the results of the experiments.

    python -m scripts.plot_experiments [--folder docs/images]

Reads the results of `python -m scripts.run_experiments`, and trains the plain model and the recipe
again for their tables of codes by variants.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from scripts.run_experiments import POLICIES, RESULTS, assemble, read_results
from spinlock.metrics import TokenContingency, permuted_tables

# Experiments from the plain VQ-VAE to the recipe.
TERMS = ("without_information", "without_wasserstein")
STEPS = ("plain", "conditioned", "normalized", *TERMS, "recipe")

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Scores of the runs of each experiment."""


def independence(runs: Runs) -> Figure:
    """Plot R2 against the adjusted mutual information of token and family, a point for each run."""
    plot = Figure(figsize=(6.4, 4), layout="constrained")
    axes = plot.subplots()
    for name in STEPS:
        x = [run["test/ic/family_ami"] for run in runs.get(name, [])]
        y = [run["test/r2"] for run in runs.get(name, [])]
        axes.scatter(x, y, label=name.replace("_", " "))
    axes.axvline(0, color="0.8", zorder=0)
    axes.set_xlabel("adjusted mutual information of token and IC family (0: chance)")
    axes.set_ylabel("R² given the initial condition")
    axes.set_title("256 codes, test split, a point for each of three seeds")
    axes.legend()
    return plot


def probes(runs: Runs) -> Figure:
    """Plot R2 under the other probe, with own and with shuffled tokens, by update policy."""
    plot = Figure(figsize=(7.6, 3.6), layout="constrained")
    panels = zip(plot.subplots(1, 2, sharey=True), ("probes", "paired"), strict=True)
    for axes, name in panels:
        for offset, kind in ((-0.2, "cross_probe_r2"), (0.2, "shuffled_tokens_r2")):
            keys = ["test/consistency/" + kind, *(f"pairs/{kind}/{policy}" for policy in POLICIES)]
            heights = [_mean(run[key] for run in runs[name]) for key in keys]
            places = [place + offset for place in range(len(keys))]
            label = "own token" if kind == "cross_probe_r2" else "shuffled token"
            axes.bar(places, heights, 0.4, label=label)
        axes.set_xticks(range(4), ["all", *POLICIES], rotation=20)
        axes.set_title("recipe" if name == "probes" else name)
    plot.axes[0].set_ylabel("R² under the other probe")
    plot.legend(*plot.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return plot


def horizons(runs: Runs) -> Figure:
    """Plot R2 under the other probe, and its two baselines, against the number of timesteps."""
    kinds = {
        "cross_probe_r2": "own token",
        "ic_only_r2": "initial condition alone (ridge)",
        "shuffled_tokens_r2": "shuffled token",
    }
    plot = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = plot.subplots()
    steps = [step for step in (1, 2, 3, 5, 10) if f"horizon_{step}" in runs]
    for kind, label in kinds.items():
        key = f"test/consistency/{kind}"
        means = [_mean(run[key] for run in runs[f"horizon_{step}"]) for step in steps]
        axes.plot(steps, means, "o-", label=label)
    axes.axhline(0, color="0.8", zorder=0)
    axes.set_xticks(steps)
    axes.set_xlabel("timesteps")
    axes.set_ylabel("R² under the other probe")
    axes.legend()
    return plot


def codes_by_variant() -> Figure:
    """Plot how often each code occurs with each variant, relative to independence."""
    tables, names = {}, ()
    for name in ("plain", "recipe"):
        cli = assemble(name, seed=0)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        table = TokenContingency(cli.model.codebook_size, num_classes=cli.datamodule.num_variants)
        with torch.no_grad():
            for batch in cli.datamodule.test_dataloader():
                table.update(cli.model.eval()(batch)["tokens"], batch["variant"])
        tables[name], names = table.compute()["joint"], cli.datamodule.variant_names
    permuted = next(permuted_tables(tables["recipe"], permutations=1))
    # Ordering the codes makes a diagonal of chance alone, which this table shows.
    tables["recipe, variants permuted among the samples"] = torch.from_numpy(permuted)
    plot = Figure(figsize=(8, 7), layout="constrained")
    for axes, (name, counts) in zip(plot.subplots(3, 1), tables.items(), strict=True):
        share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
        ratio = share[share.argmax(1).argsort(stable=True)] / (counts.sum(0) / counts.sum())
        image = axes.imshow(ratio.T, aspect="auto", vmin=0, vmax=5, interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title(name)
        plot.colorbar(image, ax=axes, label="share / expected", extend="max")
    plot.axes[2].set_xlabel("code, ordered by its most frequent variant")
    return plot


def main(args: Sequence[str] | None = None) -> None:
    """Make the plots and save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    options = parser.parse_args(args)
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for result in read_results(options.results):
        runs.setdefault(result["name"], []).append(result["metrics"])
    plots = {
        "vqvae_independence": independence(runs),
        "vqvae_probes": probes(runs),
        "vqvae_horizons": horizons(runs),
        "vqvae_codes_by_variant": codes_by_variant(),
    }
    for name, plot in plots.items():
        plot.savefig(options.folder / f"{name}.png", dpi=110)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
