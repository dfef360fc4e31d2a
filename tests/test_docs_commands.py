"""The command lines of the documentation are valid, in its code blocks and in its text."""

import argparse
import ast
import importlib
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from spinlock.commands import command_line, generate as generate_command
from spinlock.commands.command_line import main
from spinlock.datamodules import SpinlockDataModule
from spinlock.generation import generate
from tests.helpers import small_config
from tests.pages import PAGES, ROOT, blocks_of, command_lines, filled, inline_commands

FILE_COMMANDS = set(command_line._COMMANDS) - {"generate"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_of_trainers_are_valid(folder, capsys):
    """The yaml files and options of fit, validate, test and predict are parsed, and printed."""
    generate(small_config(8, num_realizations=1), folder / "data" / "quickstart.h5", progress=False)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for line in spinlock_lines():
        words = filled(shlex.split(line))
        # test_own_pde_data and test_own_model run these files.
        run_elsewhere = {"allen_cahn.yaml", "own_model.yaml"} & set(words)
        if words[0] in (*FILE_COMMANDS, "generate") or run_elsewhere:
            continue
        assert words[0] in command_line._TRAINER_COMMANDS, line
        with pytest.raises(SystemExit) as ended:
            main([*words, "--print_config"])
        assert ended.value.code == 0, line
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["data"]["path"].endswith(".h5"), line


def spinlock_lines():
    """Return the distinct arguments of ``spinlock`` in all pages."""
    lines = {}
    for block in blocks_of("sh"):
        for line in command_lines(block):
            found = re.search(r"(?:^| |-m )spinlock (.+)", line)
            if found:
                lines[found[1].replace("$SLURM_ARRAY_TASK_ID", "3")] = None
    return list(lines)


class Parsed(SystemExit):
    """A parser has accepted its arguments."""


def stopped(original):
    """Return a parser's method that ends the program when its arguments are valid."""

    def parse_args(self, args=None, namespace=None):
        raise Parsed(original(self, args, namespace))

    return parse_args


def test_commands_of_files_are_valid(folder, monkeypatch):
    lines = [line for line in spinlock_lines() if line.split()[0] in FILE_COMMANDS]
    assert {line.split()[0] for line in lines} == FILE_COMMANDS
    monkeypatch.setattr(
        "spinlock.commands.file_parser.CommandParser.parse_args",
        stopped(argparse.ArgumentParser.parse_args),
        raising=False,
    )
    for line in lines:
        with pytest.raises(Parsed):
            main(filled(shlex.split(line)))


def test_commands_that_generate_are_valid(folder, monkeypatch):
    shutil.copytree(ROOT / "configs", folder / "configs")
    done = []
    monkeypatch.setattr(generate_command, "generate_part", lambda *a, **k: done.append("part"))
    monkeypatch.setattr(generate_command, "assemble_parts", lambda *a, **k: done.append("join"))
    monkeypatch.setattr(SpinlockDataModule, "prepare_data", lambda self: done.append("all"))
    info = SimpleNamespace(config=SimpleNamespace(num_samples=0))
    monkeypatch.setattr(generate_command, "read_info", lambda path: info)
    monkeypatch.setattr(generate_command, "describe_file", str)
    lines = [line for line in spinlock_lines() if line.split()[0] == "generate"]
    for line in lines:
        main(filled(shlex.split(line)))
    assert len(done) == len(lines)
    assert set(done) == {"part", "join", "all"}


# Programs that are installed with the test dependencies or come with the system.
PROGRAMS = {"#!/bin/bash", "pip", "pre-commit", "python3.11", "ruff", "source"}
MODULES = {"pytest", "sphinx", "venv"}


def test_other_commands_exist(folder, monkeypatch):
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    lines = [line for block in blocks_of("sh") for line in command_lines(block)]
    lines += [line for page in PAGES for line in inline_commands(page)]
    scripts = set()
    for line in dict.fromkeys(lines):
        if re.search(r"(^| |-m )spinlock( |$)", line):
            continue
        program, *words = filled(shlex.split(line))
        assert set(re.findall(r"\[(\w+)\]", line)) <= set(extras), line
        if program == "python" and words[0] == "-m":
            if words[1] not in MODULES:
                check_module(words[1:], monkeypatch)
                scripts.add(words[1])
        elif program == "python":
            # The folder of the script is on the path, and the root of the repository is not.
            text = (ROOT / words[0]).read_text("utf-8")
            assert not re.search(r"^from (scripts|benchmarks|tests)\b", text, re.MULTILINE), line
        elif program.startswith("."):
            assert (ROOT / program).exists(), line
        else:
            assert program in PROGRAMS, line
    assert {"scripts.run_experiments", "scripts.concept_plots", "benchmarks.memory"} <= scripts


def check_module(words, monkeypatch):
    """Import the module of a command; if it parses arguments, it accepts those of the command."""
    script = find_spec(words[0])
    if script is not None and script.submodule_search_locations:
        script = find_spec(f"{words[0]}.__main__")
    assert script is not None, words
    text = Path(script.origin).read_text("utf-8")
    if not re.search(r"ArgumentParser|\bparsed\(", text):
        assert len(words) == 1, words
        assert '__name__ == "__main__"' in text, words
        importlib.import_module(words[0])
        return
    with monkeypatch.context() as patch:
        parse = argparse.ArgumentParser.parse_args
        patch.setattr(argparse.ArgumentParser, "parse_args", stopped(parse))
        patch.setattr(sys, "argv", words)
        with pytest.raises(Parsed):
            runpy.run_module(words[0], run_name="__main__", alter_sys=False)


def test_scripts_say_how_they_run():
    for path in [*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")]:
        documentation = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        for name in re.findall(r"\bpython (?!-m pytest)(.*)", documentation):
            assert name.startswith(f"-m {path.parent.name}."), path
