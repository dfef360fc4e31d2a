"""The command line, as a user types it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import yaml

from spinlock.__main__ import main as command_line
from spinlock.checks import CheckReport
from spinlock.commands import trainer_cli
from spinlock.commands.command_line import main
from spinlock.errors import ConfigurationError
from spinlock.generation.build import generate, generate_part, shard_folder
from tests.helpers import small_config

ROOT = Path(__file__).parent.parent
COMMANDS = (
    *("generate", "info", "check", "report", "codebook", "plot", "export"),
    "extract-features",
)
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
# What shrinks a shipped configuration to seconds without changing its structure.
SHRINK = [
    "--data.batch_size=16",
    "--data.generation.num_samples=24",
    "--data.generation.num_realizations=2",
    "--data.generation.parameter_space.grid_size=[32]",
    "--data.generation.parameter_space.base_channels.low=4",
    "--data.generation.parameter_space.base_channels.high=6",
    "--data.generation.parameter_space.kernel_size=[3]",
]


def test_what_generate_builds_info_describes(tmp_path, capsys):
    """The other commands run every shipped configuration in test_configs."""
    path = str(tmp_path / "data.h5")
    main(["generate", "--config", str(QUICKSTART), *SHRINK, f"--data.path={path}"])
    assert "24 (6 operators, 4 probes each)" in capsys.readouterr().out
    main(["info", path])
    described = capsys.readouterr().out
    with h5py.File(path) as file:
        assert file.attrs["fingerprint"] in described


def test_generate_reads_the_data_section_and_options(tmp_path):
    config = {
        "data": {"path": str(tmp_path / "a.h5"), "generation": {"num_samples": 9, "block_size": 2}},
        "trainer": {"max_epochs": 3},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    main(["generate", "--config", str(tmp_path / "run.yaml"), *SHRINK, "--data.progress=false"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["parameters/params"].shape == (24, 15)


def test_generate_needs_a_data_section(tmp_path):
    (tmp_path / "run.yaml").write_text("trainer: {max_epochs: 3}")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: has no section `data`"):
        main(["generate", "--config", str(tmp_path / "run.yaml")])


@pytest.mark.parametrize("prefix", ["", "spinlock.", "spinlock.datamodules."])
def test_generate_reads_a_data_module_named_by_its_class(tmp_path, prefix):
    settings = {"path": str(tmp_path / "a.h5"), "generation": {"num_samples": 9}}
    data = {"class_path": f"{prefix}SpinlockDataModule", "init_args": settings}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": data}))
    main(["generate", "--config", str(tmp_path / "run.yaml"), *SHRINK, "--data.progress=false"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["parameters/params"].shape == (24, 15)


def test_a_stream_has_no_file_to_generate():
    with pytest.raises(ConfigurationError, match="SpinlockStreamModule has no file to generate"):
        main(["generate", "--config", str(ROOT / "configs" / "stream.yaml")])


STREAM = "spinlock.datamodules.SpinlockStreamModule"


@pytest.mark.parametrize(
    ("arguments", "chooses"),
    [
        ([f"--data.class_path={STREAM}"], True),
        (["--data.class_path", STREAM], True),
        ([f"--data={STREAM}"], True),
        (["--data", json.dumps({"class_path": STREAM})], True),
        (["--config", str(ROOT / "configs" / "stream.yaml")], True),
        (["--config", str(QUICKSTART), "--data.path=a.h5"], False),
        (["--data", json.dumps({"path": "a.h5"}), "--model=FeatureVQVAE"], False),
        (["--data", str(QUICKSTART)], False),
    ],
)
def test_arguments_choose_the_data_module(arguments, chooses, monkeypatch):
    made = []
    monkeypatch.setattr(trainer_cli, "TrainerCLI", lambda *_, **options: made.append(options))
    main(["fit", *arguments])
    assert made[0]["subclass_mode_data"] is chooses


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "data.h5"
    config = small_config(24, grid_size=24, num_realizations=2, channels=1, num_timesteps=2)
    generate(config, path, progress=False)
    return path


def test_check_prints_a_table_or_json(dataset, capsys):
    main(["check", str(dataset), "--replay", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("PASSED: ")
    assert "integrity:" in lines
    main(["check", str(dataset), "--full", "--json", "--replay", "0"])
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["full"]) == (True, True)
    assert {row["status"] for row in report["rows"]} <= {"pass", "not measurable"}
    assert "replay" not in {row["group"] for row in report["rows"]}


def test_check_exits_with_1_when_a_claim_fails(dataset, tmp_path, capsys):
    path = shutil.copy(dataset, tmp_path / "bad.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = "0" * 64
    with pytest.raises(SystemExit) as caught:
        main(["check", str(path), "--replay", "0"])
    assert caught.value.code == 1
    assert "FAIL" in capsys.readouterr().out


def test_plot_saves_a_picture(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["plot", str(dataset), "--sample", "3"])
    assert capsys.readouterr().out.strip() == "data-sample-3.png"
    assert (tmp_path / "data-sample-3.png").read_bytes().startswith(b"\x89PNG")
    main(["plot", str(dataset), "--sample", "4", "--out", "other.png"])
    assert (tmp_path / "other.png").exists()


def test_export_writes_a_folder(dataset, tmp_path, capsys):
    main(["export", str(dataset), "--format", "well", "--out", str(tmp_path / "well")])
    named = capsys.readouterr().out.split()
    assert str(tmp_path / "well" / "stats.yaml") in named
    assert str(tmp_path / "well" / "data" / "train" / "data.hdf5") in named


def test_report_writes_a_page(dataset, tmp_path, monkeypatch, capsys):
    asked = {}

    def write(path, out, *, trust, force):
        asked.update(path=path, out=out)
        out.write_text("page")
        return CheckReport(())

    # tests/test_report.py makes real pages; here only what the command asks for.
    monkeypatch.setattr("spinlock.report.write_report", write)
    main(["report", str(dataset), "--out", str(tmp_path / "page.html")])
    assert asked == {"path": dataset, "out": tmp_path / "page.html"}
    assert "page.html" in capsys.readouterr().out


def test_info_describes_what_a_file_holds(dataset, capsys):
    main(["info", str(dataset)])
    out = capsys.readouterr().out
    with h5py.File(dataset) as file:
        labels = file["metadata/ic_families"][:].astype(str)
        assert file.attrs["digest"] in out
    assert f"sinusoids {(labels == 'sinusoids').mean():.2%}" in out
    for text in (
        "24 (24 operators, 1 probe each)",
        "2 realizations x 2 timesteps of 1 x 24 x 24",
        "discrepancy",
    ):
        assert text in out
    assert "grid_size 24;" in out
    assert "torch" in out
    assert len(out.splitlines()) < 24, "one screen"


def test_info_describes_an_unfinished_run(tmp_path, capsys):
    path = tmp_path / "run.h5"
    config = small_config(22, grid_size=24, num_realizations=1, channels=1)
    generate_part(config, path, 2, 3, progress=False)
    folder = shard_folder(config, path)
    (folder / "shard-0000000000-0000000008.h5.0.tmp").write_bytes(b"half")
    main(["info", str(path)])
    out = capsys.readouterr().out
    assert f"{path}: not finished" in out
    assert config.fingerprint in out
    assert "8 of 22 samples (36.4%) in 1 shards" in out
    assert "missing" in out
    assert "14 samples: 0..7, 16..21" in out
    assert "1 shard(s)" in out
    generate_part(config, path, 1, 3, progress=False)
    generate_part(config, path, 3, 3, progress=False)
    main(["info", str(path)])
    assert "nothing but the assembly" in capsys.readouterr().out


def test_info_describes_a_run_that_extends_a_file(tmp_path, capsys):
    path = tmp_path / "run.h5"
    options = {"grid_size": 24, "num_realizations": 1, "channels": 1}
    generate(small_config(8, **options), path, progress=False)
    generate_part(small_config(32, **options), path, 3, 3, progress=False)
    main(["info", str(path)])
    out = capsys.readouterr().out
    assert "8 (8 operators, 1 probe each)" in out
    assert "16 of 32 samples (50.0%) in 1 shards" in out
    assert "and the file" in out
    assert "16 samples: 8..15, 24..31" in out


def test_info_before_the_first_shard(tmp_path, capsys):
    path = tmp_path / "run.h5"
    shard_folder(small_config(8), path).mkdir(parents=True)
    main(["info", str(path)])
    assert "no shard is finished yet" in capsys.readouterr().out


@pytest.mark.slow
def test_commands_without_a_trainer_do_not_wait_for_lightning(dataset):
    code = (
        "import sys\n"
        "from spinlock.commands.command_line import main\n"
        f"main(['info', {str(dataset)!r}])\n"
        f"main(['check', {str(dataset)!r}, '--replay', '0'])\n"
        "assert not {'lightning', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200, capture_output=True)


@pytest.mark.parametrize("command", ["fit", "generate"])
def test_unknown_keys_are_named(command, tmp_path, capsys):
    text = QUICKSTART.read_text().replace("num_samples", "number_of_samples")
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        main([command, "--config", str(tmp_path / "run.yaml")])
    assert caught.value.code == 2
    assert "number_of_samples" in capsys.readouterr().err


def test_abbreviations_are_not_guessed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--config", str(QUICKSTART), "--data.generation.num_sample=3"])
    assert "--data.generation.num_sample=3" in capsys.readouterr().err


def test_help_lists_the_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spinlock", "--help"])
    command_line()
    printed = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", *COMMANDS):
        assert command in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: spinlock {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "missing.h5"], "missing.h5 does not exist"),
        (["info", str(ROOT)], "is a directory"),
        (["check", "missing.h5"], "missing.h5 does not exist"),
        (["check", "missing.h5", "--replay", "-1"], "replay: must be at least 0"),
        (["plot", "missing.h5", "--sample", "0"], "missing.h5 does not exist"),
        (["export", "missing.h5", "--format", "well", "--out", "x"], "missing.h5 does not exist"),
        (["info", str(ROOT / "README.md")], "not a readable HDF5 file"),
        (
            ["fit", "--config", str(QUICKSTART), "--data.generation.num_samples=-1"],
            "num_samples: must be at least 1, got -1",
        ),
    ],
)
def test_errors_are_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["spinlock", *arguments])
    with pytest.raises(SystemExit) as caught:
        command_line()
    # A text as the status is printed to the standard error stream, and the status is 1.
    assert caught.value.code.startswith("spinlock: error: ")
    assert "\n" not in caught.value.code
    assert message in caught.value.code


@pytest.mark.slow
def test_errors_exit_with_1_and_no_traceback():
    command = [sys.executable, "-m", "spinlock", "info", "missing.h5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("spinlock: error: missing.h5 does not exist")
    assert "Traceback" not in result.stderr
