"""The experiments of configs/experiments: each has a model and data that fit."""

import json

import pytest
import yaml

from scripts import run_experiments
from spinlock.models import FeatureVQVAE, SequenceVQVAE

# Data on which docs/vqvae.md reports scores: file -> beginning of the fingerprint.
FINGERPRINTS = {
    "operators": "0d1aafe5",
    "probes": "8b2df8c8",
    "horizons": "836ac788",
    "many_operators": "713a99c1",
    "trajectories": "d7dbe264",
    "swapped_distribution": "c1b0ba35",
    "new_variant": "e6987c4b",
}
SPACE = {
    "grid_size": [32],
    "base_channels": {"low": 4, "high": 6},
    "kernel_size": [3],
}
SHRINK = {
    "data": {
        "generation": {
            "num_samples": 64,
            "num_realizations": 2,
            "block_size": 4,
            "storage": {"shard_size": 32},
            "parameter_space": SPACE,
        },
        "batch_size": 8,
        "progress": False,
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}
THREE_STEPS = {"data": {"generation": {"num_timesteps": 3}}}


@pytest.mark.parametrize("name", run_experiments.experiments())
def test_every_experiment_has_a_model_and_data_that_fit(name):
    cli = run_experiments.assemble(name, seed=0)
    assert isinstance(cli.model, SequenceVQVAE if "sequence" in name else FeatureVQVAE)
    assert cli.model.num_variants == cli.datamodule.num_variants
    assert (cli.model.pair_weight > 0) <= (cli.config.data.view == "pairs")
    fingerprint = FINGERPRINTS[cli.datamodule.path.stem]
    assert cli.datamodule.generation.fingerprint.startswith(fingerprint)
    fractions = (0.05, 0.1) if name.startswith("many_operators") else (0.125, 0.25)
    assert (cli.config.data.val_fraction, cli.config.data.test_fraction) == fractions


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("paired", "Two probes of each operator"),
        ("leave_out_sinusoids", "Held-out initial conditions"),
        ("sequence_50", "Sequences"),
    ],
)
def test_a_run_gives_the_scores_of_its_table(name, title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    steps = THREE_STEPS if name == "sequence_50" else {}
    scores = run_experiments.run(name, seed=0, changes=run_experiments.merged(SHRINK, steps))
    tables = run_experiments.TABLES
    expected = {*tables["All experiments"].values(), *tables[title].values()}
    assert not expected - set(scores)
    assert json.loads(json.dumps(scores)) == scores


def test_changes_replace_merge_and_append():
    before = {"a": {"x": 1, "y": [1]}, "b": [1], "c": 0}
    changes = {"a": {"y": [2]}, "b+": [2], "c": {"z": 3}}
    after = {"a": {"x": 1, "y": [2]}, "b": [1, 2], "c": {"z": 3}}
    assert run_experiments.merged(before, changes) == after
    assert before == {"a": {"x": 1, "y": [1]}, "b": [1], "c": 0}


def test_an_experiment_is_printed_as_yaml(capsys):
    run_experiments.main(["--print", "horizon_2"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == run_experiments.settings("horizon_2")
    assert printed["data"]["timestep"] == 2
    assert len(printed["trainer"]["callbacks"]) == 4


def test_the_table_has_mean_and_spread():
    runs = [
        {"name": "a", "seed": 0, "metrics": {"x": 1.0, "y": 20.0}},
        {"name": "a", "seed": 1, "metrics": {"x": 2.0, "y": 22.0}},
        {"name": "b", "seed": 0, "metrics": {"x": 0.5}},
        {"name": "c", "seed": 0, "metrics": {"y": 0.5}},
    ]
    assert run_experiments.table(runs, {"X": "x", "Y": "y"}).splitlines()[2:] == [
        "| a | 2 | 1.500 ± 0.500 | 21.0 ± 1.0 |",
        "| b | 1 | 0.500 ± 0.000 | — |",
    ]
