"""Run the experiments of docs/vqvae.md, and print their scores as tables.

    python -m scripts.run_experiments [--only responses paired] [--seeds 0 1 2]
    python -m scripts.run_experiments --data FILE
    python -m scripts.run_experiments --print responses > responses.yaml

The experiments are the entries of configs/experiments/experiments.yaml. Their data are generated if
they do not exist. With ``--data``, the experiments use an existing dataset instead; those that need
data of their own are left out. The tables show mean ± half the range, over seeds of weights and of
data, of scores on the test split. With ``--prototypes N``, prototypes of
the tokens predict the 46 features of N test samples of each family, which takes a minute for 50.
Each run appends one JSON line to a file of results, and runs
that the file already contains are not repeated.
"""

import argparse
import hashlib
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
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from scripts.experiment_tables import TABLES
from scripts.prototype_experiment import prototype_r2
from spinlock import GenerationConfig
from spinlock.datamodules import SpinlockDataModule
from spinlock.datamodules.operator_selection import OperatorSelection
from spinlock.errors import ConfigurationError
from spinlock.storage import read_info

Settings = dict[str, Any]

TABLE: Settings = yaml.safe_load(
    (Path(__file__).parents[1] / "configs" / "experiments" / "experiments.yaml").read_text()
)
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


def experiments() -> list[str]:
    """Names of all experiments."""
    return list(TABLE["experiments"])


def settings(name: str) -> Settings:
    """Settings of an experiment, nested as in a yaml file for ``spinlock fit``."""
    result = TABLE["base"]
    for changes in _changes(name):
        result = merged(result, changes)
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


def of_data_seed(given: Settings, data_seed: int) -> Settings:
    """Settings whose data are generated with another seed, into a file of their own."""
    path = Path(given["data"]["path"])
    changes = {"path": str(path.with_stem(f"{path.stem}-{data_seed}"))}
    return merged(given, {"data": {**changes, "generation": {"seed": data_seed}}})


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
    given: Settings, seed: int, dataset: Path | None = None, prototypes: int = 0
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
        base = of_data_seed(TABLE["base"], data.generation.seed)
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
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of weights")
    parser.add_argument("--data-seeds", nargs="+", type=int, default=[101, 102], help="of data")
    parser.add_argument("--data", type=Path, help="existing dataset to use instead")
    parser.add_argument("--prototypes", type=int, default=0, metavar="N", help="samples a family")
    parser.add_argument("--results", type=Path, help="file of results")
    parser.add_argument("--print", choices=experiments(), help="only print this one as yaml")
    options = parser.parse_args(args)
    if options.print:
        print(yaml.safe_dump(settings(options.print), sort_keys=False), end="")
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    dataset, names, path = options.data, options.only or experiments(), options.results or RESULTS
    if dataset is not None:
        suited = applicable(dataset)
        if options.only and (others := set(options.only) - set(suited)):
            parser.error(
                f"--only: {', '.join(sorted(others))} need data of their own; {dataset} is suited "
                f"for {', '.join(suited)}"
            )
        names = suited if options.only is None else options.only
        options.data_seeds = [read_info(dataset).config.seed]
        path = options.results or dataset.with_suffix(".results.jsonl")
    results = read_results(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(result["digest"], result["seed"]) for result in results}
    runs = [
        (name, seed, of_data_seed(settings(name), of_data))
        for of_data in options.data_seeds
        for seed in options.seeds
        for name in names
    ]
    for name, seed, given in runs:
        key = digest(given, options.prototypes)
        if (key, seed) in done:
            continue
        metrics = run(given, seed, dataset, options.prototypes)
        results.append({"name": name, "seed": seed, "digest": key, "metrics": metrics})
        with path.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        of_data = given["data"]["generation"]["seed"]
        print(f"{name}, seeds {seed}, {of_data}: {metrics['seconds']:.0f} s", flush=True)
    # Earlier runs with other settings are no further runs of an experiment.
    wanted = {(digest(given, options.prototypes), seed) for _, seed, given in runs}
    results = [each for each in results if (each["digest"], each["seed"]) in wanted]
    for table in TABLES:
        print(f"\n{table.title}\n\n{table.markdown(results)}")


def _changes(name: str) -> Iterator[Settings]:
    """The changes to the base that an entry of the table stands for, in order."""
    entry = dict({**TABLE["groups"], **TABLE["experiments"]}[name])
    for other in entry.pop("use", []):
        yield from _changes(other)
    yield entry


if __name__ == "__main__":
    main()
