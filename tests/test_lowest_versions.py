"""The lowest versions that pyproject.toml allows are found, and exactly these are installed."""

import sys
import tomllib
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from scripts import lowest_versions as script

PYPROJECT = tomllib.loads((script.ROOT / "pyproject.toml").read_text("utf-8"))


def test_extras_of_the_project_are_followed():
    project = {
        "name": "a",
        "dependencies": ["b>=1.2,<3", "c>=1; sys_platform == 'none'"],
        "optional-dependencies": {"test": ["a[more]", "d"], "more": ["e[f]>=4"], "no": ["g>=1"]},
    }
    found = script.lowest_versions({"build-system": {"requires": ["h>=5"]}, "project": project})
    assert found == ["b==1.2", "e==4", "h==5"]


def test_pinned_versions_are_allowed():
    """constraints.txt pins no version that is lower than the lowest one."""
    lines = (script.ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {own.name.lower(): next(iter(own.specifier)).version for own in pinned}
    compared = 0
    for lowest in script.lowest_versions(PYPROJECT):
        name, version = lowest.split("==")
        if name.lower() in versions:
            assert Version(versions[name.lower()]) >= Version(version), name
            compared += 1
    assert compared > 30


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that the script would run; the one whose last word is "broken" fails."""
    called = []

    def run(command, **options):
        called.append(command)
        return SimpleNamespace(returncode=3 * (command[-1] == "broken"))

    monkeypatch.setattr(script, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(script, "venv", SimpleNamespace(create=lambda *a, **k: None))
    return called


def test_arguments_go_to_pytest(commands, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lowest_versions", "-n", "0", "tests/test_cli.py"])
    script.main()
    assert commands[-1][1:] == ["-m", "pytest", "-n", "0", "tests/test_cli.py"]
    written = (tmp_path / "lowest.txt").read_text("utf-8").split()
    assert written == script.lowest_versions(PYPROJECT)
    assert len(commands) == 4
    for command in commands[:2]:
        assert command[command.index("-c") + 1] == str(tmp_path / "lowest.txt")


def test_a_command_that_fails_ends_the_script(commands, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lowest_versions", "broken"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 3
