"""The README's code does what it says."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training, reading = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(training.strip().splitlines()) <= 15
    shrunk = training.replace('"num_samples": 1000', '"num_samples": 100')
    shrunk = shrunk.replace("max_epochs=20", "max_epochs=1")
    assert shrunk.count("100") == 1
    namespace = {}
    exec(shrunk, namespace)
    exec(reading, namespace)
    assert namespace["features"].shape == (100, 46)
    assert namespace["fields"].shape == (100, 5, 3, 64, 64)
    assert namespace["trainer"].callback_metrics["test/ic/family_ami"].isfinite()


def test_commands_are_those_that_ci_runs():
    ci = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    install, test = re.search(r"```sh\n(.*'\.\[test\]') && (.*)\n```", README).groups()
    assert install.removeprefix("pip install ") in ci
    assert test in ci
