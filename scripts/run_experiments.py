"""Run the experiments of docs/vqvae.md with several seeds, and print their scores as tables.

    python -m scripts.run_experiments [--only recipe plain] [--seeds 0 1 2]
    python -m scripts.run_experiments --print plain > plain.yaml

The experiments are the entries of configs/experiments/experiments.yaml. The tables show mean and
spread (half the range) over seeds of scores on the test split. Each run appends one JSON line to a
file of results, and runs that the file already contains are not repeated.
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningModule
from lightning.pytorch.cli import LightningCLI

from spinlock.datamodules import SpinlockDataModule

Settings = dict[str, Any]

TABLE: Settings = yaml.safe_load(
    (Path(__file__).parents[1] / "configs" / "experiments" / "experiments.yaml").read_text()
)
RESULTS = Path("data/experiments/results.jsonl")

POLICIES = ("autoregressive", "residual", "convex")


def _by_policy(title: str, score: str) -> dict[str, str]:
    return {f"{title}, {policy}": f"{score}/{policy}" for policy in POLICIES}


TABLES = {
    "All experiments": {
        "R2": "test/r2",
        "usage": "test/codebook/usage",
        "perplexity": "test/codebook/perplexity",
        "family AMI": "test/ic/family_ami",
        "p": "test/ic/family_p_value",
        **_by_policy("family AMI", "test/ic/family_ami"),
        "variant AMI": "test/ic/variant_ami",
    },
    "Two probes of each operator": {
        "same token above chance": "test/consistency/same_token",
        "retrieval": "test/consistency/retrieval",
        "cross-probe R2": "test/consistency/cross_probe_r2",
        "shuffled R2": "test/consistency/shuffled_tokens_r2",
        "IC-only R2 (ridge)": "test/consistency/ic_only_r2",
        **_by_policy("cross-probe R2", "test/consistency/cross_probe_r2"),
        **_by_policy("shuffled R2", "test/consistency/shuffled_tokens_r2"),
    },
    "Held-out initial conditions": {
        "R2 held out": "test/held_out/r2",
        "R2 held in": "test/r2",
        "JS divergence": "test/transfer/js_divergence",
        "its null, 95%": "test/transfer/js_divergence_null_95",
    },
    "Sequences": {
        "stay": "test/sequence/stay_probability",
        **_by_policy("dwell", "test/sequence/dwell_time"),
        "policy AMI": "test/sequence/policy_ami",
        "transition-policy MI": "test/sequence/transition_policy_mi",
    },
}
"""Title -> column -> name of the score."""


def experiments() -> list[str]:
    """Names of all experiments."""
    return list(TABLE["experiments"])


def settings(name: str) -> Settings:
    """Settings of an experiment, nested as in a yaml file for ``spinlock fit``."""
    result = TABLE["base"]
    for changes in _changes(name):
        result = merged(result, changes)
    # LightningCLI changes the settings that it is given.
    return deepcopy(result)


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> Settings:
    """Nested settings with changes applied; ``key+`` appends to the list ``key``."""
    result = dict(before)
    for key, value in changes.items():
        name, old = key.removesuffix("+"), before.get(key.removesuffix("+"))
        if name != key:
            result[name] = old + value
        elif isinstance(value, dict) and isinstance(old, dict):
            result[name] = merged(old, value)
        else:
            result[name] = value
    return result


def assemble(name: str, seed: int, changes: Mapping[str, Any] | None = None) -> LightningCLI:
    """Make the model, the data module and the trainer of an experiment.

    Args:
        name: One of `experiments`.
        seed: Seed of weights and batches. The data and their split are the same for all seeds.
        changes: Nested settings that differ from those of the experiment.
    """
    fixed = {"seed_everything": seed, "trainer": {"enable_progress_bar": False}}
    with warnings.catch_warnings():
        # The settings are not those of this script's command line.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
        return LightningCLI(
            LightningModule,
            SpinlockDataModule,
            subclass_mode_model=True,
            run=False,
            save_config_callback=None,
            args=merged(merged(settings(name), fixed), changes or {}),
        )


def run(name: str, seed: int, changes: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Train and test an experiment; arguments as for `assemble`.

    Returns:
        Scores of the test split, and the seconds that training took.
    """
    cli = assemble(name, seed, changes)
    # Data are built on all cores, models are trained on one.
    cli.datamodule.prepare_data()
    torch.set_num_threads(1)
    start = time.monotonic()
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    seconds = time.monotonic() - start
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    logged = cli.trainer.callback_metrics.items()
    scores = {key: float(value) for key, value in logged if key.startswith("test/")}
    return scores | {"seconds": seconds}


def table(results: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a Markdown table of the experiments that have the score of the first column.

    Args:
        results: One mapping for each run: ``name``, ``seed`` and ``metrics``.
        columns: Title -> name of the score.
    """
    rows = [["experiment", "seeds", *columns], ["---"] * (2 + len(columns))]
    for name in dict.fromkeys(result["name"] for result in results):
        runs = [result["metrics"] for result in results if result["name"] == name]
        if all(next(iter(columns.values())) in run for run in runs):
            cells = [_cell([run[m] for run in runs if m in run]) for m in columns.values()]
            rows.append([name, str(len(runs)), *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def read_results(path: Path = RESULTS) -> list[Settings]:
    """Results of the runs so far; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(args: Sequence[str] | None = None) -> None:
    """Run the experiments that the file of results lacks, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=experiments(), default=experiments())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--print", choices=experiments(), help="only print this one as yaml")
    options = parser.parse_args(args)
    if options.print:
        print(yaml.safe_dump(settings(options.print), sort_keys=False), end="")
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    results = read_results(options.results)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    done = {(result["name"], result["seed"]) for result in results}
    runs = [(name, seed) for seed in options.seeds for name in options.only]
    for name, seed in (run for run in runs if run not in done):
        results.append({"name": name, "seed": seed, "metrics": run(name, seed)})
        with options.results.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        print(f"{name}, seed {seed}: {results[-1]['metrics']['seconds']:.0f} s", flush=True)
    for title, columns in TABLES.items():
        print(f"\n{title}\n\n{table(results, columns)}")


def _changes(name: str) -> Iterator[Settings]:
    """The changes to the base that an entry of the table stands for, in order."""
    entry = dict({**TABLE["groups"], **TABLE["experiments"]}[name])
    for other in entry.pop("use", []):
        yield from _changes(other)
    yield entry


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "—"
    mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
    digits = 1 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


if __name__ == "__main__":
    main()
