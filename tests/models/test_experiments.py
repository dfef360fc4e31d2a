"""The experiments of configs/experiments: each has a model and data that fit."""

import json

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from scripts import run_experiments
from scripts.experiment_tables import TABLES, Table
from spinlock.models import FeatureVQVAE, SequenceVQVAE
from spinlock.storage import read_info

pytestmark = pytest.mark.slow

# Data on which docs/vqvae.md reports scores: file -> beginning of the fingerprint, with seed 101.
FINGERPRINTS = {
    "operators-101": "a69702bf",
    "one_probe-101": "5944e12b",
    "transport-101": "361a0a0c",
    "horizon-101": "7bd97f59",
    "trajectories-101": "e9a1a883",
    "swapped_distribution-101": "58808e2d",
    "new_family-101": "feac4de1",
}
SPACE = {
    "grid_size": [32],
    "base_channels": {"low": 4, "high": 6},
    "kernel_size": [3],
}
SHRINK = {
    "data": {
        "generation": {
            "num_samples": 80,
            "num_realizations": 2,
            "block_size": 4,
            "storage": {"shard_size": 40},
            "parameter_space": SPACE,
        },
        "batch_size": 8,
        "progress": False,
    },
    "model": {"init_args": {"codebook_size": 8}},
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}


def tiny(name):
    """Settings of an experiment with very little data."""
    steps = {"data": {"generation": {"num_timesteps": 3}}} if name == "sequence_50" else {}
    shrunk = run_experiments.merged(run_experiments.settings(name), SHRINK)
    return run_experiments.merged(shrunk, steps)


@pytest.fixture(scope="module")
def parser():
    """One command line parser for all experiments, because making it takes longest."""
    setup, made = LightningCLI.setup_parser, []

    def setup_once(cli, *args, **kwargs):
        if not made:
            setup(cli, *args, **kwargs)
            made.append(cli.parser)
        cli.parser = made[0]

    return setup_once


@pytest.mark.parametrize("name", run_experiments.experiments())
def test_every_experiment_has_a_model_and_data_that_fit(name, parser, monkeypatch):
    monkeypatch.setattr(LightningCLI, "setup_parser", parser)
    given = run_experiments.of_data_seed(run_experiments.settings(name), 101)
    cli = run_experiments.assemble(given, seed=0)
    assert isinstance(cli.model, SequenceVQVAE if "sequence" in name else FeatureVQVAE)
    compares = cli.model.loss.other_probe > 0 or cli.model.loss.alignment > 0
    if cli.model.compares_probes:
        assert compares <= (cli.datamodule.view.name in ("pairs", "probes"))
    fingerprint = FINGERPRINTS[cli.datamodule.path.stem]
    assert cli.datamodule.generation.fingerprint.startswith(fingerprint)
    data = cli.config.data
    assert (data.val_fraction, data.test_fraction) == (0.125, 0.25)


@pytest.mark.repeated
@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("leave_out_sinusoids", (0, 1, 2, 3, 4, 6)),
        ("unseen_activation", (0, 5)),
        ("one_probe", (0, 1, 2, 3)),
        ("sequence_50", (-1,)),
    ],
)
def test_a_run_gives_the_scores_of_its_tables(name, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setitem(run_experiments.TABLE, "base", tiny("responses"))
    prototypes = 2 if name == "leave_out_sinusoids" else 0
    scores = run_experiments.run(tiny(name), seed=0, prototypes=prototypes)
    expected = {score for number in tables for score in TABLES[number].columns.values()}
    assert not expected - set(scores)
    # Scores that are unknown are NaN, which equals nothing.
    assert json.dumps(json.loads(json.dumps(scores))) == json.dumps(scores)


def test_a_file_of_ones_own_has_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setitem(run_experiments.TABLE, "base", tiny("responses"))
    cli = run_experiments.assemble(run_experiments.settings("responses"), seed=0)
    cli.datamodule.prepare_data()
    path = cli.datamodule.path
    before = read_info(path)
    run_experiments.main(["--data", str(path), "--only", "responses", "--seeds", "0"])
    printed = capsys.readouterr().out
    assert "| responses | 1 |" in printed
    assert read_info(path) == before
    assert "leave_out_gaussian_blobs" in run_experiments.applicable(path)
    assert "unseen_activation" in run_experiments.applicable(path)
    # All of its operators have kernels of 3 x 3.
    assert not {"transport", "unseen_kernel_size"} & {*run_experiments.applicable(path)}
    with pytest.raises(SystemExit):
        run_experiments.main(["--data", str(path), "--only", "transport"])
    assert "--only: transport need data of their own" in capsys.readouterr().err
    # Runs that are in the file of results are not repeated.
    run_experiments.main(["--data", str(path), "--only", "responses", "--seeds", "0"])
    results = path.with_suffix(".results.jsonl")
    (done,) = run_experiments.read_results(results)
    # A run with other settings is no further run of the experiment.
    results.write_text(f"{json.dumps(done | {'digest': 'other'})}\n{json.dumps(done)}\n")
    capsys.readouterr()
    run_experiments.main(["--data", str(path), "--only", "responses", "--seeds", "0"])
    assert "| responses | 1 |" in capsys.readouterr().out


def test_changes_replace_merge_and_append():
    before = {"a": {"x": 1, "y": [1]}, "b": [1], "c": 0}
    changes = {"a": {"y": [2]}, "b+": [2], "c": {"z": 3}}
    after = {"a": {"x": 1, "y": [2]}, "b": [1, 2], "c": {"z": 3}}
    assert run_experiments.merged(before, changes) == after
    assert before == {"a": {"x": 1, "y": [1]}, "b": [1], "c": 0}


def test_an_experiment_is_printed_as_yaml(capsys):
    run_experiments.main(["--print", "leave_out_sinusoids"])
    printed = yaml.safe_load(capsys.readouterr().out)
    # With the file of the first run, so that nobody generates the same samples twice.
    given = run_experiments.settings("leave_out_sinusoids")
    assert printed == run_experiments.of_data_seed(given, 101)
    assert printed["data"]["path"] == "data/experiments/operators-101.h5"
    # `spinlock fit` with it is validated and logged.
    assert set(printed["trainer"]) == {"max_epochs", "callbacks"}
    assert printed["data"]["train_variants"] == {"exclude": ["sinusoids"]}
    assert len(printed["trainer"]["callbacks"]) == 5


@pytest.mark.parametrize("name", run_experiments.experiments())
def test_small_runs_have_few_samples_and_a_file_of_their_own(name):
    full = run_experiments.of_data_seed(run_experiments.settings(name), 101)
    given = run_experiments.of_data_seed(run_experiments.small(run_experiments.settings(name)), 101)
    assert given["data"]["path"] != full["data"]["path"]
    assert "-small" in given["data"]["path"]
    probes = given["data"]["generation"]["probes_per_operator"]
    operators, rest = divmod(given["data"]["generation"]["num_samples"], probes)
    assert rest == 0
    # 10 training operators are not fewer than a batch.
    assert 25 <= operators <= 200
    assert 1 <= given["data"]["batch_size"] <= operators * probes // 2
    assert given["trainer"]["max_epochs"] >= 10


def test_a_small_run_says_that_it_is_no_evidence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    # A 20th of these samples, and a fifth of the epochs.
    more = {
        "data": {"generation": {"num_samples": 1600}, "batch_size": 64},
        "trainer": {"max_epochs": 5},
    }
    base = run_experiments.merged(tiny("responses"), more)
    monkeypatch.setitem(run_experiments.TABLE, "base", base)
    run_experiments.main(["--small", "--only", "responses"])
    printed = capsys.readouterr().out
    assert "| responses | 1 |" in printed
    titles = [line for line in printed.splitlines() if line.startswith("R² of dynamics decoded")]
    assert titles == ["R² of dynamics decoded from the token (small runs, no evidence)"]
    assert run_experiments.SMALL_NOTE in printed
    folder = tmp_path / "data" / "experiments"
    files = {path.name for path in folder.iterdir() if path.suffix in (".h5", ".jsonl")}
    assert files == {"operators-small-101.h5", "results-small.jsonl"}
    assert read_info(folder / "operators-small-101.h5").config.num_samples == 80
    with pytest.raises(SystemExit):
        run_experiments.main(["--small", "--data", "data/experiments/operators-small-101.h5"])
    assert "leave out --data" in capsys.readouterr().err


def test_sizes_and_times_of_all_experiments_are_listed(capsys):
    run_experiments.main(["--list"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    listed = {row[0]: row[1:] for row in rows[1 : len(run_experiments.experiments()) + 1]}
    assert set(listed) == set(run_experiments.experiments())
    for name, (kind, samples, *sizes) in listed.items():
        data = run_experiments.settings(name)["data"]
        assert kind == data["path"].split("/")[-1].removesuffix(".h5")
        assert int(samples.replace(",", "")) == data["generation"]["num_samples"]
        megabytes, minutes, _, training, _ = sizes
        assert min(map(float, (megabytes, minutes, training))) > 0


def test_the_table_has_mean_and_spread():
    runs = [
        {"name": "a", "metrics": {"x": 1.0, "y": 20.0}},
        {"name": "a", "metrics": {"x": 2.0, "y": 22.0}},
        {"name": "b", "metrics": {"x": 0.5}},
        {"name": "c", "metrics": {"y": 0.5}},
        {"name": "d", "metrics": {"x": 1.0}},
    ]
    shown = Table("T", {"X": "x", "Y": "y"}, left_out=["d"]).markdown(runs)
    assert shown.splitlines()[2:] == [
        "| a | 2 | 1.500 ± 0.500 | 21 ± 1 |",
        "| b | 1 | 0.500 ± 0.000 | — |",
    ]
    runs = [{"name": "a", "metrics": {"p_value": p}} for p in (0.5, 0.001)]
    assert Table("T", {"p": "p_value"}, rows=["a"]).markdown(runs).endswith("| 0.500, 0.001 |")
