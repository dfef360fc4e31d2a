"""The commands and the code of the README run."""

import re
from pathlib import Path

from spinlock.commands.command_line import _COMMANDS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training, reading = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(training.strip().splitlines()) <= 15
    shrunk = training
    changes = {'"num_samples": 1000': '"num_samples": 100', "max_epochs=20": "max_epochs=1"}
    for full, short in changes.items():
        assert shrunk.count(full) == 1
        shrunk = shrunk.replace(full, short)
    namespace = {}
    exec(shrunk, namespace)
    exec(reading, namespace)
    assert namespace["features"].shape == (100, 46)
    assert namespace["fields"].shape == (100, 5, 3, 64, 64)
    assert namespace["trainer"].callback_metrics["test/ic/family_ami"].isfinite()


def test_commands_are_those_that_ci_runs():
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    for extra in ("test", "vqvae"):
        install, command = re.search(rf"```sh\n(.*'\.\[{extra}\]') && (.*)\n```", README).groups()
        assert install.removeprefix("pip install ") in ci
        assert command in ci


def test_files_that_are_mentioned_exist():
    root = Path(__file__).parent.parent
    mentioned = re.findall(r"(?:docs|configs|examples|spinlock)/[\w/]+\.\w+", README)
    linked = re.findall(r"\]\(([\w./]+)\)", README)
    assert len({*mentioned, *linked}) > 12
    assert [name for name in {*mentioned, *linked} if not (root / name).exists()] == []


def test_every_command_is_shown():
    """The overview of `spinlock --help` and the README list the same commands."""
    shown = set(re.findall(r"^spinlock ([\w-]+)", README, re.MULTILINE))
    assert shown == {"fit", "validate", "predict", *_COMMANDS}
