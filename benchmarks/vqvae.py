"""What VQ-VAEs learn: `python -m benchmarks.vqvae [--only recipe plain] [--seeds 0 1 2]`.

Runs the experiments of configs/experiments, each a difference from base.yaml, with several seeds,
and prints one table of their test split: mean and spread (half the range) over seeds. Results are
kept in a file of one JSON line for each run; runs that are there already are not repeated.
`--speed` measures instead how long training on 10,000 samples for 100 epochs takes.
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader

from benchmarks.machine import describe
from benchmarks.token_pairs import pair_figures
from spinlock.datamodules import SpinlockDataModule
from spinlock.datamodules.feature_dataset import FeatureDataset
from spinlock.models import FeatureVQVAE

CONFIGS = Path(__file__).parent.parent / "configs" / "experiments"
BASE = "recipe"

COLUMNS = {
    "R2": "test/r2",
    "usage": "test/codebook/usage",
    "perplexity": "test/codebook/perplexity",
    "family AMI": "test/ic/family_ami",
    "p": "test/ic/family_p_value",
    "AMI autoregr.": "test/ic/family_ami/autoregressive",
    "AMI residual": "test/ic/family_ami/residual",
    "AMI convex": "test/ic/family_ami/convex",
    "variant AMI": "test/ic/variant_ami",
}
PAIRS = {
    "token AMI A, B": "test/consistency/token_ami",
    "given the variant": "pairs/token_ami_given_variant",
    "agreement above chance": "pairs/agreement_given_variant",
    "cross-probe R2": "test/consistency/cross_probe_r2",
    "shuffled R2": "test/consistency/shuffled_tokens_r2",
    "IC-only R2 (ridge)": "test/consistency/ic_only_r2",
    "cross, autoregr.": "pairs/cross_probe_r2/autoregressive",
    "shuffled, autoregr.": "pairs/shuffled_tokens_r2/autoregressive",
    "cross, residual": "pairs/cross_probe_r2/residual",
    "shuffled, residual": "pairs/shuffled_tokens_r2/residual",
    "cross, convex": "pairs/cross_probe_r2/convex",
    "shuffled, convex": "pairs/shuffled_tokens_r2/convex",
}
TRANSFER = {
    "R2 held out": "test/held_out/r2",
    "R2 held in": "test/r2",
    "JS divergence": "test/transfer/js_divergence",
    "its null, 95%": "test/transfer/js_divergence_null_95",
}
SEQUENCES = {
    "stay": "test/sequence/stay_probability",
    "dwell autoregr.": "test/sequence/dwell_time/autoregressive",
    "dwell residual": "test/sequence/dwell_time/residual",
    "dwell convex": "test/sequence/dwell_time/convex",
    "policy AMI": "test/sequence/policy_ami",
    "transition-policy MI": "test/sequence/transition_policy_mi",
}


def experiments() -> list[str]:
    """Names of all experiments; the first is what the others differ from."""
    others = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "base")
    return [BASE, *others]


def assemble(name: str, seed: int, overrides: Sequence[str] = ()) -> LightningCLI:
    """Model, data and trainer of an experiment.

    Args:
        name: One of `experiments`.
        seed: Of weights and batches; the data and their split are the same for all.
        overrides: Arguments as on the command line.
    """
    files = [CONFIGS / "base.yaml", *([] if name == BASE else [CONFIGS / f"{name}.yaml"])]
    arguments = [item for file in files for item in ("--config", str(file))]
    arguments += ["--seed_everything", str(seed), "--trainer.enable_progress_bar=false"]
    with warnings.catch_warnings():
        # Arguments are given on purpose, beside this process's own.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
        return LightningCLI(
            LightningModule,
            SpinlockDataModule,
            subclass_mode_model=True,
            run=False,
            save_config_callback=None,
            args=[*arguments, *overrides],
        )


def run(name: str, seed: int, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Train and test an experiment; arguments as for `assemble`.

    Returns:
        Metrics of the test split, and the seconds that training took.
    """
    cli = assemble(name, seed, overrides)
    # On all cores.
    cli.datamodule.prepare_data()
    torch.set_num_threads(1)
    start = time.monotonic()
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    seconds = time.monotonic() - start
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    logged = cli.trainer.callback_metrics.items()
    found = {key: float(value) for key, value in logged if key.startswith("test/")}
    if cli.datamodule.serving.view == "pairs":
        found |= pair_figures(cli.model, cli.datamodule)
    return found | {"seconds": seconds}


def table(results: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """Markdown table of the experiments that have the first of these columns' metrics.

    Args:
        results: One dict for each run: ``name``, ``seed`` and ``metrics``.
        columns: Title -> metric.
    """
    rows = [["experiment", "seeds", *columns], ["---"] * (2 + len(columns))]
    for name in dict.fromkeys(result["name"] for result in results):
        runs = [result["metrics"] for result in results if result["name"] == name]
        if all(next(iter(columns.values())) in run for run in runs):
            cells = [_cell([run[m] for run in runs if m in run]) for m in columns.values()]
            rows.append([name, str(len(runs)), *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def speed(samples: int = 10_000, epochs: int = 100, batch_size: int = 512) -> float:
    """Seconds of training the recipe on so many samples; what they hold makes no difference.

    On one core: a step of these small networks gains nothing from a second one, and threads that
    wait for each other lose much where cores are shared.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    columns = {
        "features": torch.randn(samples, 46, generator=generator),
        "initial_features": torch.randn(samples, 46, generator=generator),
        "variant": torch.randint(10, (samples,), generator=generator),
    }
    data = FeatureDataset(columns, torch.arange(samples))
    # The dataset gives whole batches.
    loader = DataLoader(data, batch_size=batch_size, shuffle=True, collate_fn=lambda batch: batch)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.monotonic()
    trainer.fit(FeatureVQVAE(), loader)
    return time.monotonic() - start


def main(args: Sequence[str] | None = None) -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=experiments(), default=experiments())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("data/experiments/results.jsonl"))
    parser.add_argument("--speed", action="store_true", help="measure the speed of training only")
    options = parser.parse_args(args)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print(describe(torch.device("cpu")), flush=True)
    if options.speed:
        print(f"10,000 samples, 100 epochs: {speed():.0f} s")
        return
    results = _read(options.results)
    done = {(result["name"], result["seed"]) for result in results}
    for seed in options.seeds:
        for name in options.only:
            if (name, seed) not in done:
                result = {"name": name, "seed": seed, "metrics": run(name, seed)}
                results.append(result)
                options.results.parent.mkdir(parents=True, exist_ok=True)
                with options.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(f"{name}, seed {seed}: {result['metrics']['seconds']:.0f} s", flush=True)
    for title, columns in (
        ("All experiments", COLUMNS),
        ("Two probes of each operator", PAIRS),
        ("Held-out initial conditions", TRANSFER),
        ("Sequences", SEQUENCES),
    ):
        print(f"\n{title}\n\n{table(results, columns)}")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "—"
    mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
    digits = 1 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
