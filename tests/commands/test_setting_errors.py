"""Errors name the setting, its file, and what is similar; the file of a dataset fills settings."""

import pytest
import yaml

from spinlock.commands.command_line import main
from spinlock.commands.default_run import stored_generation
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError

OWN = """
from lightning import LightningModule

class MyModel(LightningModule):
    def __init__(self, num_features: int, width: int = 3):
        super().__init__()
"""
REFERENCE = "spinlock.models.FeatureVQVAE"


def fails(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed


@pytest.mark.parametrize("command", ["fit", "generate"])
@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (
            {"num_sample": 8},
            "there is no setting data.generation.num_sample; similar: data.generation.num_samples, "
            "data.generation.num_timesteps (in run.yaml). `",
        ),
        (
            {"num_samples": "many"},
            "data.generation.num_samples: expected int; got 'many' (in run.yaml). `",
        ),
    ],
)
def test_faults_in_a_yaml_file(command, generation, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = {"path": "a.h5", "generation": generation}
    content = {"data": data, "model": {"class_path": REFERENCE}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    printed = fails([command, "--config", "run.yaml"], capsys)
    assert printed.startswith(f"spinlock {command}: error: {message}")


@pytest.mark.parametrize("path", [["a.h5"], 5, {"file": "a.h5"}], ids=str)
def test_a_path_is_text(path, tmp_path, monkeypatch, capsys):
    """The parser would turn any other value into the name of a new file."""
    monkeypatch.chdir(tmp_path)
    callback = {"class_path": "spinlock.callbacks.TokenWriter", "init_args": {"path": path}}
    generation = {"num_samples": 8}
    for command, data_path, trainer, key in (
        ("generate", path, {}, "data.path: expected a path as text; got {} (in run.yaml)"),
        ("fit", path, {}, "data.path: expected a path as text; got {} (in run.yaml)"),
        (
            "fit",
            "a.h5",
            {"callbacks": [callback]},
            "trainer.callbacks.init_args.path: expected a path as text; got {}",
        ),
    ):
        data = {"path": data_path, "generation": generation}
        content = {"data": data, "model": {"class_path": REFERENCE}, "trainer": trainer}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
        printed = fails([command, "--config", "run.yaml"], capsys)
        assert printed.startswith(f"spinlock {command}: error: {key.format(path)}. `")
        assert [each.name for each in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"class_path": "w_own_model.MyModel"},
            "model.init_args.num_features is required by w_own_model.MyModel (in run.yaml). `",
        ),
        (
            {"class_path": REFERENCE, "init_args": {"codebok_size": 3}},
            "there is no setting model.init_args.codebok_size; similar: "
            "model.init_args.codebook_size (in run.yaml). `",
        ),
        (
            {"class_path": REFERENCE, "init_args": {"codebook_size": "x"}},
            "model.init_args.codebook_size: expected int; got 'x' (in run.yaml). `",
        ),
    ],
)
def test_faults_in_the_arguments_of_a_model(dataset, model, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "w_own_model.py").write_text(OWN)
    content = {"data": {"path": str(dataset)}, "model": model}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    printed = fails(["fit", "--config", "run.yaml"], capsys)
    assert printed.startswith(f"spinlock fit: error: {message}")


def test_a_yaml_file_without_its_option(capsys):
    printed = fails(["generate", "run.yaml"], capsys)
    assert "unrecognized arguments: run.yaml; a yaml file is given as --config run.yaml." in printed


def test_settings_that_differ_from_those_of_the_file(dataset):
    """One setting is enough: the file has the others, and the default model is used."""
    with pytest.raises(DatasetError, match="seed: 42 there, 7 asked for"):
        main(["fit", f"--data.path={dataset}", "--data.generation.seed", "7"])


def test_a_stored_configuration_that_names_classes_is_not_an_option(dataset, monkeypatch):
    (option,) = stored_generation(str(dataset))
    assert option.startswith('--data.generation={"')
    monkeypatch.setattr(GenerationConfig, "to_json", lambda self: '{"class_path": "evil.Class"}')
    assert stored_generation(str(dataset)) == []


def test_a_file_with_more_samples_than_asked_for(dataset, capsys):
    options = stored_generation(str(dataset))
    main(["generate", f"--data.path={dataset}", *options, "--data.generation.num_samples=32"])
    said = "The file existed and holds 64 samples, of which 32 were asked for."
    assert said in capsys.readouterr().out
    main(["generate", f"--data.path={dataset}", *options])
    assert "asked for" not in capsys.readouterr().out
