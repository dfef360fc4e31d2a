"""The command line, as a user types it."""

import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import yaml

from spinlock.cli import main
from spinlock.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# What shrinks a shipped configuration to seconds without changing its structure.
SHRINK = [
    "--data.generation.num_samples=60",
    "--data.generation.num_realizations=2",
    "--data.generation.parameter_space.grid_size=[32]",
    "--data.generation.parameter_space.base_channels.low=4",
    "--data.generation.parameter_space.base_channels.high=6",
    "--data.generation.parameter_space.kernel_size=[3]",
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_runs(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shrunk = [*SHRINK, f"--data.path={tmp_path / 'data.h5'}"]
    if "t50" in config.name:
        shrunk.append("--data.generation.num_timesteps=5")
    trainer = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    main(["generate", "--config", str(config), *shrunk])
    assert "60 (1 probe(s) per operator)" in capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict"):
        main([command, "--config", str(config), *shrunk, *trainer])
    main(["info", str(tmp_path / "data.h5")])
    described = capsys.readouterr().out
    with h5py.File(tmp_path / "data.h5") as file:
        assert file.attrs["fingerprint"] in described


def test_generate_reads_the_data_section_and_options(tmp_path):
    config = {
        "data": {"path": str(tmp_path / "a.h5"), "generation": {"num_samples": 9, "block_size": 2}},
        "trainer": {"max_epochs": 3},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    main(["generate", "--config", str(tmp_path / "run.yaml"), *SHRINK, "--data.progress=false"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["parameters/params"].shape == (60, 15)


def test_generate_needs_a_data_section(tmp_path):
    (tmp_path / "run.yaml").write_text("trainer: {max_epochs: 3}")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: has no section `data`"):
        main(["generate", "--config", str(tmp_path / "run.yaml")])


@pytest.mark.parametrize("command", ["fit", "generate"])
def test_unknown_keys_are_named(command, tmp_path, capsys):
    text = CONFIGS[0].read_text().replace("num_samples", "number_of_samples")
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        main([command, "--config", str(tmp_path / "run.yaml")])
    assert caught.value.code == 2
    assert "number_of_samples" in capsys.readouterr().err


def test_abbreviations_are_not_guessed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--config", str(CONFIGS[0]), "--data.generation.num_sample=3"])
    assert "--data.generation.num_sample=3" in capsys.readouterr().err


def spinlock(*arguments):
    command = [sys.executable, "-m", "spinlock", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_help_lists_the_commands():
    result = spinlock("--help")
    assert result.returncode == 0
    for command in ("fit", "validate", "test", "predict", "generate", "info"):
        assert command in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "missing.h5"], "missing.h5 does not exist"),
        (["info", str(ROOT)], "is a directory"),
        (["info", str(ROOT / "README.md")], "not a readable HDF5 file"),
        (
            ["fit", "--config", str(CONFIGS[0]), "--data.generation.num_samples=-1"],
            "num_samples: must be at least 1, got -1",
        ),
    ],
)
def test_errors_are_one_line(arguments, message):
    result = spinlock(*arguments)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("spinlock: error:")]
    assert len(errors) == 1
    assert message in errors[0]
