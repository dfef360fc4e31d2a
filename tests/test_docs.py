"""The code blocks of the documentation run, and its command lines are valid."""

import argparse
import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from spinlock.commands import command_line, generate as generate_command
from spinlock.commands.command_line import main
from spinlock.commands.trainer_parser import TrainerParser
from spinlock.datamodules import SpinlockDataModule
from spinlock.generation import generate
from tests.helpers import small_config
from tests.pages import NOT_RUN, PAGES, ROOT, blocks, command_lines, filled

BLOCKS = [block for page in PAGES for block in blocks(page)]
# Pages whose python blocks other tests run, because they assert more about the results, with the
# number of blocks that these tests run.
ELSEWHERE = {
    "README.md": ("tests/test_readme.py", 2),
    "docs/data_format.md": ("tests/storage/test_documentation.py", 6),
    "docs/datamodules.md": ("tests/datamodules/test_pytorch_idioms.py", 4),
    "docs/extending.md": ("tests/test_examples.py", 4),
    "docs/features.md": ("tests/features/test_documentation.py", 3),
}
# The last block of docs/data_format.md is run by tests/codebook/test_codebook_page.py.
ONE_MORE = {"docs/data_format.md"}
HERE = sorted({block.page for block in BLOCKS if block.language == "python"} - set(ELSEWHERE))
FILE_COMMANDS = set(command_line._COMMANDS) - {"generate"}


def named(block):
    return f"{block.page}: {block.code.strip().splitlines()[0][:40]}"


def of(language):
    return [block for block in BLOCKS if block.language == language]


def test_languages_are_known():
    directives = {"{eval-rst}", "{include} ../README.md", "{include} ../CHANGELOG.md"}
    directives |= {"{include} ../CONTRIBUTING.md", "{toctree}"}
    known = {"", "matlab", "python", "sh", "text", "yaml"} | directives
    assert {block.language for block in BLOCKS} <= known


def test_blocks_that_do_not_run_say_what_they_need():
    skipped = [block for block in BLOCKS if "Not run by the tests" in block.code]
    assert skipped
    for block in skipped:
        assert re.match(NOT_RUN + r"needs (SLURM|MPI)\.", block.code), named(block)
    assert [block for block in skipped if block.language == "python"] == []


@pytest.mark.parametrize("page", ELSEWHERE)
def test_every_python_block_runs_in_some_test(page):
    test, count = ELSEWHERE[page]
    assert page.rpartition("/")[2] in (ROOT / test).read_text("utf-8")
    found = [block for block in BLOCKS if (block.page, block.language) == (page, "python")]
    assert len(found) == count + (page in ONE_MORE), "run the new block, and change the number here"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own, whose python files can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Worker processes find this package and the files of the folder, too.
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}", prepend=os.pathsep)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def run_page(page, folder):
    """Run the blocks of a page in order; those that name a file are saved as that file."""
    names = {"__name__": "__main__"}
    for block in (block for block in BLOCKS if block.page == page and block.runs):
        if block.file:
            (folder / block.file).write_text(block.code, "utf-8")
        elif block.language == "python":
            exec(compile(block.code, named(block), "exec"), names)
        elif block.language == "sh" and page == "docs/pde_data.md":
            for line in command_lines(block):
                main(shlex.split(line.removeprefix("python -m spinlock ")))
    return names


def test_pages_that_are_run_here():
    assert HERE == ["docs/cluster.md", "docs/dynamics.md", "docs/pde_data.md"]


def test_own_pde_data(folder):
    names = run_page("docs/pde_data.md", folder)
    # The measured diffusion is that of the solver.
    assert names["correlation"] > 0.95
    true = names["diffusivity"].ravel()
    found = names["found"].mean(1).numpy()
    assert abs(found - true).max() < 0.05
    row = dict(zip(names["DYNAMICS_NAMES"], names["row"].tolist(), strict=True))
    assert row["diffusion"] == pytest.approx(true[7], abs=0.02)
    assert row["shift_x"] == pytest.approx(names["velocity"].ravel()[7], abs=0.02)
    # Of operators that the model was not trained on.
    test = names["operator"] >= 48
    arguments = (names["tokens"][test], names["family"][test], names["operator"][test])
    rates = names["same_token_rate"](*arguments)
    assert rates.rate > rates.chance + 0.3


def test_dynamics_of_a_map(folder):
    names = run_page("docs/dynamics.md", folder)
    assert names["row"].shape == (len(names["DYNAMICS_NAMES"]),)


@pytest.mark.slow
def test_processes_generate_a_file(folder):
    run_page("docs/cluster.md", folder)
    assert (folder / "data" / "small.h5").exists()


def parser():
    found = TrainerParser(allow_abbrev=False)
    found.add_lightning_class_args(SpinlockDataModule, "data")
    return found


@pytest.mark.parametrize("block", of("yaml"), ids=named)
def test_settings_are_valid(block, folder):
    given = yaml.safe_load(block.code)["data"]
    assert set(yaml.safe_load(block.code)) <= {"seed_everything", "data", "model", "trainer"}
    # Parts of a configuration are completed.
    given = {"path": "a.h5", **given}
    given["generation"] = {"num_samples": 100, **given.get("generation", {})}
    executor = given.get("executor", {}).get("class_path", "")
    if executor.startswith("mpi4py") and find_spec("mpi4py") is None:
        # mpi4py is no test dependency; the rest of the block is parsed without it.
        del given["executor"]
    for module in (other for other in BLOCKS if other.page == block.page):
        if module.language == "python" and (module.file or "extending" in block.page):
            name = module.file or "my_extensions.py"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(module.code)
    parser().parse_object({"data": given})


def test_commands_of_trainers_are_valid(folder, capsys):
    """The yaml files and options of fit, validate, test and predict are parsed, and printed."""
    generate(small_config(8, num_realizations=1), folder / "data" / "quickstart.h5", progress=False)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for line in spinlock_lines():
        words = filled(shlex.split(line))
        # test_own_pde_data runs allen_cahn.yaml.
        if words[0] in (*FILE_COMMANDS, "generate") or "allen_cahn.yaml" in words:
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
    for block in of("sh"):
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
    monkeypatch.setattr(generate_command, "read_info", lambda path: path)
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
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopped(parse))
    scripts = 0
    for line in dict.fromkeys(line for block in of("sh") for line in command_lines(block)):
        if re.search(r"(^| |-m )spinlock ", line):
            continue
        program, *words = filled(shlex.split(line))
        assert set(re.findall(r"\[(\w+)\]", line)) <= set(extras), line
        if program == "python" and words[0] == "-m" and words[1] not in MODULES:
            script = find_spec(words[1])
            assert script is not None, line
            if "ArgumentParser" in Path(script.origin).read_text("utf-8"):
                monkeypatch.setattr(sys, "argv", words[1:])
                with pytest.raises(Parsed):
                    runpy.run_module(words[1], run_name="__main__", alter_sys=False)
                scripts += 1
        elif program == "python":
            assert all((ROOT / word).exists() for word in words if word.endswith(".py")), line
        elif program.startswith("."):
            assert (ROOT / program).exists(), line
        else:
            assert program in PROGRAMS, line
    assert scripts > 2
