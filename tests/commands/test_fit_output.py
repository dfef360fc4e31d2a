"""What a fit prints, and that its last lines can be followed."""

import csv
import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonargparse import Namespace
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from spinlock.commands import default_run
from spinlock.commands.closing_table import (
    _block,
    _shell_lines,
    _version,
    closing_table,
    codebook_command,
)
from spinlock.commands.command_line import main
from spinlock.commands.trainer_cli import TrainerCLI
from spinlock.configuration.file_content import StorageConfig
from spinlock.errors import ConfigurationError
from spinlock.storage import read_tokens
from tests.commands.conftest import quiet
from tests.helpers import small_config

SCORES = {
    "R2": "val/r2",
    "usage": "codebook/usage",
    "token-family information": "ic/family_ami",
    "same-token rate": "consistency/same_token",
}


def rows_of(text, title):
    """Rows of a block of the closing table: name -> cells."""
    text = text[text.index("Last validation") :]
    block = next(part for part in text.split("\n\n") if part.splitlines()[0].startswith(title))
    pairs = [re.split(r" {3,}", line.strip()) for line in block.splitlines()[1:]]
    return {name: rest for name, *rest in pairs}


def check_messages(out, err):
    """No line is printed twice, the framework gives no tips, and the bar shows validation."""
    lines = [line for line in re.split(r"[\r\n]+", err) if line.strip()]
    messages = [line for line in lines if "it/s" not in line and not line.startswith("Epoch")]
    assert len(set(messages)) == len(messages)
    # Lightning adds the level if pytest handles messages, too.
    assert {"Seed set to 1", "INFO: Seed set to 1"} & set(messages), "other messages are shown"
    for noise in ("Tip", "deprecated", "litlogger", "TPU", "many workers", "stepping batches"):
        assert noise not in err + out
    assert (err + out).count("Trainable params") - (err + out).count("Non-trainable params") <= 1
    bar = [line for line in re.split(r"[\r\n]+", out + err) if line.startswith("Epoch 1:")][-1]
    assert re.search(r"loss=[-.\d]+, r2=[-.\d]+, same_token=[-.\d]+\]$", bar.strip())


def test_a_fit_ends_with_scores_files_and_commands(fitted):
    """The scores are those of the logs, the files exist, and the commands run."""
    check_messages(fitted.out, fitted.err)
    text = fitted.out[fitted.out.index("Last validation") :]
    with next(fitted.folder.glob("logs/*/metrics.csv")).open() as file:
        logged = [row for row in csv.DictReader(file) if row["val/r2"]][-1]
    scores = rows_of(text, "Last validation")
    assert {name: row[0] for name, row in scores.items()} == {
        name: f"{float(logged[key]):.3f}" for name, key in SCORES.items()
    }
    assert f"below {float(logged['ic/family_ami_null_95']):.3f}" in text
    files = rows_of(text, "Files")
    assert set(files) == {"dataset", "logs", "plots", "checkpoint"}
    assert all((fitted.folder / words[0]).exists() for words in files.values())

    commands = [shlex.split(line) for line in text.strip().splitlines()[-3:]]
    names = [words[words.index("spinlock") + 1] for words in commands]
    assert names == ["report", "predict", "codebook"]
    arguments = [words[words.index("spinlock") + 1 :] for words in commands]
    assert Path(arguments[0][1]).exists(), "tests/test_report.py makes real pages"
    main(arguments[1])
    assert len(read_tokens("tokens.h5").tokens) == 64
    main(arguments[2])
    assert "tokens" in Path("codebook.html").read_text()


def test_what_was_not_logged_is_left_out():
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    assert closing_table(trainer).strip() == ""


def test_the_table_of_the_readme_is_what_is_printed(monkeypatch):
    """It has the same titles, names and explanations; its scores are those of a run."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (table,) = re.findall(r"```text\n(Last validation\n.*?)```", readme, re.DOTALL)
    patterns = {
        "codebook/perplexity": r"effective number ([\d.]+)",
        "ic/family_ami_null_95": r"by chance below ([\d.]+)",
        "ic/family_p_value": r"p = ([\d.]+)",
    }
    scores = {key: float(re.search(pattern, table)[1]) for key, pattern in patterns.items()}
    shown = rows_of(table, "Last validation")
    scores |= {key: float(shown[name][0]) for name, key in SCORES.items()}
    monkeypatch.setattr(Trainer, "callback_metrics", scores)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    printed = closing_table(trainer).strip()
    assert table.startswith(f"{printed}\n\nFiles\n")
    assert max(map(len, printed.splitlines())) <= 100
    assert list(rows_of(table, "Files")) == ["dataset", "logs", "plots", "checkpoint"]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_untrained_models_are_not_applied(command, run_file, tmp_path):
    with pytest.raises(ConfigurationError, match=r"FeatureVQVAE is not trained; .*--ckpt_path"):
        main([command, "--config", str(run_file), *quiet(tmp_path)])


def test_a_file_alone_is_enough(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, path in (("first", "missing.h5"), ("second", str(dataset))):
        Path(f"{name}.yaml").write_text(f"data: {{path: {path}}}")
    files = ["--config=first.yaml", "-csecond.yaml"]
    main(["fit", *files, *quiet(tmp_path, 1), "--data.batch_size=16"])
    assert set(rows_of(capsys.readouterr().out, "Last validation")) == set(SCORES)


@pytest.mark.parametrize(("fields", "remedy"), [("all", "extract-features"), ("none", "generate")])
def test_a_file_without_response_features(fields, remedy, monkeypatch):
    config = small_config(4, responses=False, storage=StorageConfig(fields=fields, shard_size=4))
    monkeypatch.setattr(default_run, "read_info", lambda path: SimpleNamespace(config=config))
    with pytest.raises(ConfigurationError, match=f"no response features.*{remedy}") as caught:
        default_run.default_run("a.h5")
    assert ("extract-features" in str(caught.value)) == (fields == "all")


def test_a_table_of_what_is_known(tmp_path, monkeypatch):
    """Scores that are not finite and paths of other data modules are left out."""
    monkeypatch.chdir(tmp_path)
    scores = {"val/r2": -0.0001, "codebook/usage": math.nan, "consistency/same_token": math.inf}
    monkeypatch.setattr(Trainer, "callback_metrics", scores)
    saver = ModelCheckpoint(monitor="val/loss")
    trainer = Trainer(logger=False, callbacks=[saver], accelerator="cpu")
    saver.best_model_path = "best.ckpt"
    Path("best.ckpt").touch()
    data = LightningDataModule()
    data.path = "images"
    monkeypatch.setattr(trainer, "datamodule", data, raising=False)
    text = closing_table(trainer)
    assert {name: row[0] for name, row in rows_of(text, "Last validation").items()} == {
        "R2": "0.000"
    }
    assert rows_of(text, "Files") == {"checkpoint": ["best.ckpt", "(best val/loss)"]}
    assert "Next" not in text


def test_initial_weights_of_other_models_cause_a_warning(caplog):
    settings = Namespace(model=Namespace(class_path="mine.Net"), ckpt_path=None)
    cli = SimpleNamespace(
        config={"subcommand": "test", "test": settings}, _parser=lambda name: None
    )
    TrainerCLI.before_instantiate_classes(cli)
    (record,) = caplog.records
    assert record.getMessage() == "test: Net keeps its initial weights without --ckpt_path FILE"


def test_names_of_files_have_the_number_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [_version(folder) for folder in (None, Path("logs/version_0"), Path("own"))] == [""] * 3
    assert _version(Path("logs/version_2")) == "-v2"
    assert codebook_command(Path("tokens.h5"), "a.h5").endswith("--out codebook.html")
    assert codebook_command(Path("tokens-v2.h5"), "a.h5").endswith("--out codebook-v2.html")


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_the_terminal(columns):
    """They are broken at words, and commands so that a shell reads them as one."""
    text = "  0.391   of the codes occur in validation; effective number 21.3, and more of the same"
    path = "lightning_logs/version_0/checkpoints/epoch=19-step=260.ckpt"
    block = _block("Scores", {"token-family information": text, "usage": text}, columns)
    lines = block.splitlines()
    assert max(map(len, lines)) <= columns
    assert (len(lines) > 3) == (columns == 80)
    assert (
        block.split()
        == _block("Scores", dict.fromkeys(["token-family information", "usage"], text)).split()
    )
    command = f"spinlock predict --config lightning_logs/a.yaml --ckpt_path {path} --out tokens.h5"
    shown = _shell_lines(command, columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(command)
