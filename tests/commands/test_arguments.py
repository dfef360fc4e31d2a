"""Arguments of the commands: merging of yaml files, one file in two ways, errors of one line."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, strategies as st

import spinlock.__main__
from spinlock import SpinlockDataModule
from spinlock.__main__ import _write_any_text, main as command_line
from spinlock.callbacks import TokenWriter
from spinlock.commands import generate as generate_command
from spinlock.commands.command_line import _with_token_writer, main
from spinlock.commands.data_sections import (
    Choices,
    with_plain_configs,
    without_null_generation,
)
from spinlock.commands.trainer_parser import TrainerParser
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError, NonFiniteError
from spinlock.runtime.local_paths import local_path
from tests.helpers import small_config

BASE = {"path": "a.h5", "batch_size": 7, "generation": {"num_samples": 9, "seed": 5}}
CHANGE = {"generation": {"num_samples": 12, "parameter_space": {"grid_size": [32]}}}
OPTION = "--data.generation.num_realizations=2"


def written(folder, name, content):
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return str(path)


def parsed_as_fit_does(arguments):
    """Configuration that a command with a trainer makes of arguments."""
    parser = TrainerParser(prog="spinlock fit")
    parser.add_argument("-c", "--config", action="config")
    parser.add_lightning_class_args(SpinlockDataModule, "data")
    return parser.instantiate(parser.parse_args(arguments)).data


@pytest.mark.parametrize("form", ["plain", "class"])
def test_generate_merges_files_and_options_as_fit_does(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    sections = BASE, CHANGE
    plain = [written(tmp_path, f"{i}.yaml", {"data": s}) for i, s in enumerate(sections)]
    expected = parsed_as_fit_does(["-c", plain[0], "-c", plain[1], OPTION])
    if form == "class":
        name = "spinlock.SpinlockDataModule"
        first = {"class_path": name, "init_args": BASE}
        plain[0] = written(tmp_path, "class.yaml", {"data": first, "trainer": {}})
        option = OPTION.replace("data.", "data.init_args.")
    else:
        option = OPTION
    seen = []
    monkeypatch.setattr(SpinlockDataModule, "prepare_data", lambda self: seen.append(self))
    info = SimpleNamespace(config=SimpleNamespace(num_samples=12))
    monkeypatch.setattr(generate_command, "read_info", lambda path: info)
    monkeypatch.setattr(generate_command, "describe_file", str)
    trainer = written(tmp_path, "t.yaml", {"trainer": {"max_epochs": 3}})
    main(["generate", f"-c{plain[0]}", f"--config={trainer}", "--config", plain[1], option])
    (made,) = seen
    assert made.generation == expected.generation
    assert (made.path, made.batch_size) == (expected.path, 7)
    assert (made.generation.num_samples, made.generation.seed) == (12, 5)
    assert (made.generation.grid_size, made.generation.num_realizations) == (32, 2)


def test_the_last_of_several_operators_counts(tmp_path):
    """Mappings of different classes, in a file and as an option."""
    first = {"class_path": "examples.no_such.First", "init_args": {"strength": 1.0}}
    data = {"path": str(tmp_path / "a.h5"), "generation": {"num_samples": 3, "operator": first}}
    path = written(tmp_path, "run.yaml", {"data": data})
    option = f"--data.generation.operator={json.dumps({'class_path': 'no_such.Second'})}"
    with pytest.raises(ConfigurationError, match=r"cannot import no_such\.Second"):
        main(["generate", f"-c{path}", option])
    with pytest.raises(ConfigurationError, match="an operator family is one value"):
        main(["fit", "-c", path, "--data.generation.operator.class_path=no_such.Second"])


@pytest.mark.parametrize(
    "command", ["info", "check", "report", "plot", "export", "extract-features"]
)
def test_one_file_in_two_ways(command, monkeypatch, capsys):
    from spinlock.commands.file_parser import file_parser

    parser = file_parser(command, "", trust=False)
    assert parser.parse_args(["a.h5"]).file == parser.parse_args(["--dataset", "a.h5"]).file
    for wrong in ([], ["a.h5", "--dataset", "b.h5"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
        assert capsys.readouterr().err.startswith(f"spinlock {command}: error: name one dataset")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info"], "spinlock info: error: name one dataset file"),
        (["check", "a.h5", "--nope"], "spinlock check: error: unrecognized arguments: --nope"),
        (["generate", "--config"], "spinlock generate: error: argument -c/--config"),
        (["generate", "--data.nope=3"], "spinlock generate: error: unrecognized arguments"),
        (["generate", "--data.path=a", "--data.batch_size=x"], "data.batch_size"),
        (["fit", "--data.path=a.h5", "--model=FeatureVQVAE", "--nope=3"], "spinlock fit: error"),
        (
            ["fit"],
            "spinlock fit: error: the following arguments are required: data.path, ",
        ),
        (
            ["generate", "--data.generation.num_sample=3"],
            "num_sample=3; similar: --data.generation.num_samples, "
            "--data.generation.num_timesteps. `spinlock fit --help` lists",
        ),
        (
            ["fit", "--data.path=a.h5", "--model=FeatureVQVAE", "--trainer.max_epoch=3"],
            "similar: --trainer.max_epochs, --trainer.min_epochs. `spinlock fit --help` lists",
        ),
        (["nope"], "spinlock: error: there is no command 'nope'"),
        (["info", "s3://bucket/a.h5"], "s3://bucket/a.h5 is a URL"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "--help` lists the options" in err


def test_a_yaml_file_is_not_suggested_to_who_named_one(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", f"-c{written(tmp_path, 'run.yaml', {'trainer': {}})}"])
    err = capsys.readouterr().err
    assert "spinlock fit: error: the following arguments are required: data.path, model. " in err


@pytest.mark.parametrize("command", ["generate", "extract-features"])
def test_faults_of_yaml_files_are_one_line(command, tmp_path, monkeypatch):
    (tmp_path / "bad.yaml").write_text("data: {path: a.h5\n")
    file = ["a.h5"] if command == "extract-features" else []
    for name, fault in (("no.yaml", ": No such file"), ("bad.yaml", ", line 2, column 1: is not")):
        path = str(tmp_path / name)
        monkeypatch.setattr(sys, "argv", ["spinlock", command, *file, "--config", path])
        with pytest.raises(SystemExit) as caught:
            command_line()
        assert caught.value.code.startswith(f"spinlock: error: {path}{fault}")
        assert "\n" not in caught.value.code


def test_non_finite_values_are_one_line(monkeypatch):
    def run():
        raise NonFiniteError("FiniteCheck: in train:\n  loss: 1 NaN")

    monkeypatch.setattr(spinlock.__main__, "run", run)
    with pytest.raises(SystemExit) as caught:
        command_line()
    assert caught.value.code == "spinlock: error: FiniteCheck: in train: loss: 1 NaN"


def test_the_last_generation_decides(tmp_path):
    """A mapping after null is the configuration, and null after a mapping that of the file."""
    null = written(tmp_path, "null.yaml", {"data": {"path": "b.h5", "generation": None}})
    given = written(tmp_path, "given.yaml", {"data": BASE})
    other = written(tmp_path, "other.yaml", {"data": {"path": "c.h5"}})
    order = [*with_plain_configs(["fit", "-c", null, f"-c{given}", f"--config={other}"])]
    assert Choices.of(order) == Choices(generation=True, path="c.h5", files=True, num_samples=True)
    made = parsed_as_fit_does([*without_null_generation(order[1:])])
    assert (made.generation.num_samples, made.generation.seed) == (9, 5)
    assert made.path == Path("c.h5").absolute()
    assert not Choices.of([order[0], order[2], order[1]]).generation
    assert not Choices.of([*order, "--data.generation=null"]).generation
    assert Choices.of([order[0], order[1], "--data.generation.seed=3"]).generation


@pytest.mark.parametrize("value", [None, "elsewhere"])
def test_a_dollar_sign_in_the_name_of_a_folder(value, tmp_path, monkeypatch):
    """Paths are expanded once, and a folder that exists is not a variable."""
    if value is None:
        monkeypatch.delenv("zzz", raising=False)
    else:
        monkeypatch.setenv("zzz", value)
    folder = tmp_path / "lit$zzz"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PLACE", str(folder))
    data = SpinlockDataModule("a.h5", small_config(4), progress=False)
    data.prepare_data()
    assert data.path == folder / "a.h5"
    assert data.path.is_file()
    for path in (str(data.path), "$PLACE/a.h5", "../lit$zzz/a.h5"):
        assert SpinlockDataModule(path).path.samefile(data.path)
    *_, out, _ = _with_token_writer(["predict", "--out", "$PLACE/tokens.h5"])
    assert TokenWriter(out.partition("=")[2]).path == folder / "tokens.h5"


def test_paths_are_expanded_and_pinned(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(dataset.parent))
    monkeypatch.setenv("PLACE", "~")
    monkeypatch.chdir(dataset.parent)
    for path in ("~/a.h5", "$PLACE/a.h5", "${HOME}/a.h5", "a.h5", Path("a.h5")):
        assert SpinlockDataModule(path).path == dataset
    data = SpinlockDataModule("a.h5")
    monkeypatch.chdir(tmp_path)
    data.setup()
    main(["info", "--dataset=~/a.h5"])
    assert data.generation.fingerprint in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="environment variable NO_SUCH is not set"):
        SpinlockDataModule("$NO_SUCH/a.h5")


@given(st.from_regex(r"(s3|gs|file|https|abfs)://?[a-z./]*", fullmatch=True))
def test_urls_are_refused(url):
    with pytest.raises(ConfigurationError, match="is a URL; give the path of a local file"):
        local_path(url)


@given(st.from_regex(r"/?([a-z.][a-z:.-]{0,5}/){0,3}[a-z:.-]{1,8}", fullmatch=True))
def test_other_paths_stay_as_they_are(path):
    if ":/" not in path:
        assert local_path(path) == Path(path)


def test_a_file_of_the_same_samples_is_opened(dataset):
    """With its configuration, or one that stores other fields; other samples are refused."""
    stored = SpinlockDataModule(dataset).generation
    assert stored.storage.fields == "none"
    asked = GenerationConfig.from_json(stored.to_json())
    fields = small_config(
        32, probes_per_operator=2, num_realizations=2, storage=StorageConfig(shard_size=32)
    )
    assert fields.fingerprint != asked.fingerprint
    data = SpinlockDataModule(dataset, fields)
    data.prepare_data()
    data.setup()
    assert (data.generation.storage.fields, data.generation.num_samples) == ("none", 32)
    assert data.hparams["generation"]["storage"]["fields"] == "all", "as it was asked for"
    with pytest.raises(ConfigurationError, match="fields"):
        SpinlockDataModule(dataset, fields, view="fields")
    other = SpinlockDataModule(dataset, small_config(32, probes_per_operator=2))
    with pytest.raises(DatasetError, match="num_realizations: 2 there, 5 asked for"):
        other.prepare_data()
    options = [f"--data.path={dataset}", f"--data.generation={fields.to_json()}"]
    with pytest.raises(DatasetError, match=r"storage\.fields: none there, all asked for"):
        main(["generate", *options])


def test_a_missing_file_has_no_configuration(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        SpinlockDataModule(tmp_path / "a.h5")


def test_output_is_utf8_in_an_ascii_locale(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("ascii", "latin-1")]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    _write_any_text()
    for stream in streams:
        stream.write("σ = 1\udcc3")
        stream.flush()
    assert streams[0].buffer.getvalue().decode() == "σ = 1\\udcc3"
    assert streams[1].buffer.getvalue() == b"\\u03c3 = 1\\udcc3"


def test_commands_work_in_an_ascii_locale():
    """As a user types it, with every mitigation of Python off."""
    off = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    command = [sys.executable, "-m", "spinlock", "info", "σ.h5"]
    result = subprocess.run(command, capture_output=True, env=os.environ | off, check=False)
    assert result.stderr.decode().startswith("spinlock: error: ")
    assert b"Traceback" not in result.stderr
