"""Run the experiments of docs/vqvae.md, and print their scores as tables.

    python -m scripts.run_experiments --list
    python -m scripts.run_experiments [--only responses paired] [--seeds 0 1 2]
    python -m scripts.run_experiments --small --only responses
    python -m scripts.run_experiments --data FILE
    python -m scripts.run_experiments --print responses > responses.yaml

``--list`` shows the size of the data of each experiment, and how long an experiment takes. With
``--small``, experiments have a 20th of the operators and of the training steps: each takes less
than two minutes on two cores and shows that everything works; its scores are no evidence.

The experiments are the entries of configs/experiments/experiments.yaml. Their data are generated if
they do not exist. With ``--data``, the experiments use an existing dataset instead; those that need
data of their own are left out. The tables show mean ± half the range, over seeds of weights and of
data, of scores on the test split. With ``--prototypes N``, prototypes of the tokens predict the 46
features of N test samples of each family, which takes a minute for 50. Each run appends one JSON
line to a file of results, and runs that the file already contains are not repeated.
"""

import argparse
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from scripts.experiment_settings import (
    TABLE,
    Settings,
    costs,
    experiments,
    merged,
    of_data_seed,
    settings,
    small,
)
from scripts.experiment_tables import TABLES
from scripts.prototype_experiment import prototype_r2
from spinlock import GenerationConfig
from spinlock.datamodules import SpinlockDataModule
from spinlock.datamodules.operator_selection import OperatorSelection
from spinlock.errors import ConfigurationError
from spinlock.storage import read_info

# The callback that compares the probes of an operator.
CONSISTENCY = "spinlock.callbacks.OperatorConsistency"
# Settings were chosen on development data, so runs are neither validated nor logged.
UNWATCHED = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}
_OPERATORS = ("train_operators", "eval_operators")
RESULTS = Path("data/experiments/results.jsonl")
SMALL_RESULTS = Path("data/experiments/results-small.jsonl")
SMALL_NOTE = (
    "These are scores of small runs: a 20th of the operators, and little training. They show that "
    "the experiments run, and are no evidence."
)


def assemble(given: Settings, seed: int, dataset: Path | None = None) -> LightningCLI:
    """Make the model, the data module and the trainer of an experiment.

    Args:
        given: Settings of the experiment.
        seed: Seed of weights and batches. The split of the data is the same for all seeds.
        dataset: Existing dataset to use instead of that of the settings. Its configuration is data:
            the command line parser does not see it, and no class that it names is imported.
    """
    fixed: Settings = {"seed_everything": seed, "trainer": UNWATCHED}
    if dataset is not None:
        config = read_info(dataset).config
        sizes = ("num_samples", "probes_per_operator", "num_timesteps", "num_realizations")
        given = deepcopy(given)
        given["data"] |= {
            "path": str(dataset),
            "generation": {k: getattr(config, k) for k in sizes},
        }
        if config.probes_per_operator == 1:
            named = given["trainer"]["callbacks"]
            given["trainer"]["callbacks"] = [c for c in named if c["class_path"] != CONSISTENCY]
    with warnings.catch_warnings():
        # The settings are not those of this script's command line.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
        cli = LightningCLI(
            LightningModule,
            SpinlockDataModule,
            subclass_mode_model=True,
            run=False,
            save_config_callback=None,
            # The parser changes what it is given.
            args=deepcopy(merged(given, fixed)),
        )
    if dataset is not None:
        others = {k: v for k, v in cli.config.data.as_dict().items() if k != "generation"}
        cli.datamodule = SpinlockDataModule(generation=config, **others)
    return cli


def run(
    given: Settings,
    seed: int,
    dataset: Path | None = None,
    prototypes: int = 0,
    *,
    base: Settings | None = None,
) -> dict[str, float]:
    """Train and test an experiment.

    A model that was trained on pairs or sets of probes is tested on single probes, of which a
    held-out family may have only one for each operator. A model that was trained on one probe of
    each operator is tested on several probes of the same operators, in the dataset of `base`.

    Args:
        given: Settings of the experiment.
        seed: Seed of weights and batches.
        dataset: Existing dataset to use instead of that of the settings.
        prototypes: Number of test samples of each family whose features prototypes predict.
        base: Settings of the dataset of `base`; default: those of the table, with the same seed.

    Returns:
        Scores of the test split, and the seconds that training took.
    """
    cli = assemble(given, seed, dataset)
    # Data are built on all cores, models are trained on one.
    cli.datamodule.prepare_data()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.monotonic()
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        seconds = time.monotonic() - start
    finally:
        torch.set_num_threads(threads)
    trainer, data = cli.trainer, cli.datamodule
    tested = given
    if data.generation.probes_per_operator == 1:
        base = base or of_data_seed(TABLE["base"], data.generation.seed)
        tested = merged(tested, {"trainer": base["trainer"]})
        if dataset is None:
            tested = merged(tested, {"data": {**base["data"], "allow_transfer": True}})
    if data.view.name != "sequence":
        tested = merged(tested, {"data": {"view": {"name": "features"}}})
        test = assemble(tested, seed, dataset)
        test.datamodule.load_state_dict(data.state_dict())
        trainer, data = test.trainer, test.datamodule
    scores = _tested(trainer, cli.model, data)
    if trained_on := given["data"].get("train_operators"):
        # The same model on operators like those it was trained on.
        known_operators = {"data": tested["data"] | {"eval_operators": trained_on}}
        test = assemble(tested | known_operators, seed, dataset)
        test.datamodule.load_state_dict(data.state_dict())
        held_in = _tested(test.trainer, cli.model, test.datamodule)
        scores |= {f"held_in/{key}": score for key, score in held_in.items()}
    if prototypes and cli.model.quantizer.num_codebooks == 1:
        scores |= prototype_r2(trainer, cli.model, data, prototypes)
    return scores | {"seconds": seconds}


def _tested(trainer: Trainer, model: LightningModule, data: SpinlockDataModule) -> dict[str, float]:
    """Return the scores of the test split."""
    trainer.test(model, datamodule=data, verbose=False)
    logged = trainer.callback_metrics.items()
    return {key: float(value) for key, value in logged if key.startswith("test/")}


def digest(given: Settings, prototypes: int) -> str:
    """Return a digest of the settings of a run; runs of equal digest and seed are not repeated."""
    text = json.dumps([given, prototypes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_results(path: Path = RESULTS) -> list[Settings]:
    """Results of the runs so far; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def applicable(dataset: Path) -> list[str]:
    """Names of the experiments that an existing dataset is suited for."""
    config = read_info(dataset).config
    if config.probes_per_operator == 1:
        return ["one_probe"]
    base = TABLE["base"]["data"]["path"]
    names = [name for name in experiments() if settings(name)["data"]["path"] == base]
    families = set(config.mixture.families)
    return [
        name
        for name in names
        if (not name.startswith("leave_out_") or name.removeprefix("leave_out_") in families)
        and all(_has_operators(config, settings(name)["data"].get(key)) for key in _OPERATORS)
    ]


def _has_operators(config: GenerationConfig, axes: Settings | None) -> bool:
    try:
        OperatorSelection(axes).mask(config)
    except ConfigurationError:
        return False
    return True


def main(args: Sequence[str] | None = None) -> None:
    """Run the experiments that the file of results lacks, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=experiments(), help="default: all")
    parser.add_argument("--list", action="store_true", help="only list sizes and times, and stop")
    parser.add_argument(
        "--small", action="store_true", help="small runs, each of two minutes, that are no evidence"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="of weights (default: 0 1 2, with --small 0)"
    )
    parser.add_argument(
        "--data-seeds", nargs="+", type=int, help="of data (default: 101 102, with --small 101)"
    )
    parser.add_argument("--data", type=Path, help="existing dataset to use instead")
    parser.add_argument("--prototypes", type=int, default=0, metavar="N", help="samples a family")
    parser.add_argument("--results", type=Path, help="file of results")
    parser.add_argument("--print", choices=experiments(), help="only print this one as yaml")
    options = parser.parse_args(args)
    seeds = options.seeds or ([0] if options.small else [0, 1, 2])
    data_seeds = options.data_seeds or ([101] if options.small else [101, 102])
    resized = small if options.small else lambda given: given
    if options.list:
        print(costs())
        return
    if options.print:
        given = of_data_seed(resized(settings(options.print)), data_seeds[0])
        print(yaml.safe_dump(given, sort_keys=False), end="")
        return
    if options.small and options.data is not None:
        parser.error("--small: its runs make data of their own; leave out --data")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    dataset, names = options.data, options.only or experiments()
    path = options.results or (SMALL_RESULTS if options.small else RESULTS)
    if dataset is not None:
        suited = applicable(dataset)
        if options.only and (others := set(options.only) - set(suited)):
            parser.error(
                f"--only: {', '.join(sorted(others))} need data of their own; {dataset} is suited "
                f"for {', '.join(suited)}"
            )
        names = suited if options.only is None else options.only
        data_seeds = [read_info(dataset).config.seed]
        path = options.results or dataset.with_suffix(".results.jsonl")
    results = read_results(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(result["digest"], result["seed"]) for result in results}
    runs = [
        (name, seed, of_data_seed(resized(settings(name)), of_data))
        for of_data in data_seeds
        for seed in seeds
        for name in names
    ]
    for name, seed, given in runs:
        key = digest(given, options.prototypes)
        if (key, seed) in done:
            continue
        of_data = given["data"]["generation"]["seed"]
        base = of_data_seed(resized(TABLE["base"]), of_data)
        metrics = run(given, seed, dataset, options.prototypes, base=base)
        results.append({"name": name, "seed": seed, "digest": key, "metrics": metrics})
        with path.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        print(f"{name}, seeds {seed}, {of_data}: {metrics['seconds']:.0f} s", flush=True)
    # Earlier runs with other settings are no further runs of an experiment.
    wanted = {(digest(given, options.prototypes), seed) for _, seed, given in runs}
    results = [each for each in results if (each["digest"], each["seed"]) in wanted]
    note = " (small runs, no evidence)" if options.small else ""
    for table in TABLES:
        print(f"\n{table.title}{note}\n\n{table.markdown(results)}")
    if options.small:
        print(f"\n{SMALL_NOTE}")


if __name__ == "__main__":
    main()
