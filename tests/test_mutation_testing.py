"""Mutants are killed by tests that see them, and survive tests that do not."""

import sys
import time
from collections import Counter
from importlib.util import find_spec

import pytest

from benchmarks.mutation.__main__ import OUTCOMES, main, table
from benchmarks.mutation.areas import AREAS, ROOT
from benchmarks.mutation.children import TIMED_OUT, in_child
from benchmarks.mutation.coverage_map import CoverageMap
from benchmarks.mutation.trials import Mutant, Verdict, attempt

SOURCE = "def larger(a, b):\n    return a if a > b else b\n"
TESTS = """
from planted_mutation import larger


def test_numbers():
    assert larger(1, 2) == larger(2, 1) == 2


def test_texts():
    assert larger("a", "a") == "a"
"""
SEEING = "test_planted_mutation.py::test_numbers"
BLIND = "test_planted_mutation.py::test_texts"


def needs_the_extra():
    for name in ("mutmut", "coverage"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; it is part of the extra `mutation`")


@pytest.fixture
def planted(tmp_path):
    """A repository of one module and one file of tests."""
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nmarkers = ['slow: slow']\n"
    )
    (tmp_path / "planted_mutation.py").write_text(SOURCE)
    (tmp_path / "test_planted_mutation.py").write_text(TESTS)
    return tmp_path


def mutant(old, new):
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    return Mutant("planted_mutation.py", 2, (2, 2), "swap_op", old, new, changed)


COVER = CoverageMap(seconds={SEEING: 0.1, BLIND: 0.1})


@pytest.mark.parametrize(
    ("new", "tests", "outcome"),
    [
        ("a < b", [SEEING], "killed"),
        ("a < b", [BLIND], "survived"),
        ("a < b", [BLIND, SEEING], "killed"),
        # An equivalent mutant.
        ("a >= b", [BLIND, SEEING], "survived"),
        # The import fails.
        ("a > b else b +", [BLIND], "killed"),
    ],
)
def test_a_mutant_is_killed_by_a_test_that_sees_it(planted, new, tests, outcome):
    verdict = attempt(mutant("a > b", new), tests, COVER, planted)
    assert verdict.outcome == outcome
    if tests[-1] == SEEING and outcome == "killed":
        assert verdict.test == SEEING
    assert (planted / "planted_mutation.py").read_text() == SOURCE
    assert "planted_mutation" not in sys.modules


def test_a_mutant_that_never_ends_is_stopped(planted, monkeypatch):
    monkeypatch.setattr("benchmarks.mutation.trials._AT_LEAST", 1)
    endless = mutant("return", "while True: pass\n    return")
    verdict = attempt(endless, [SEEING], COVER, planted)
    assert verdict == Verdict("timed out")
    assert verdict.is_killed


def test_a_process_that_waits_is_stopped():
    status, result = in_child(lambda folder: time.sleep(60), 0.2)
    assert (status, result) == (TIMED_OUT, None)


def test_tests_are_chosen_by_the_lines_that_they_run():
    """Lines 1 and 2 run on import, and 3 in one test; a fixture of the file runs line 4."""
    cover = CoverageMap()
    lines = {"1": [""], "2": [""], "3": ["a.py::x"], "4": ["fixture data"]}
    fixtures = {"a.py::x": [], "a.py::y": ["data"], "a.py::z": []}
    seconds = {"a.py::x": 3.0, "a.py::y": 2.0, "a.py::z": 1.0}
    cover.add("a.py", {"seconds": seconds, "fixtures": fixtures, "lines": {"m.py": lines}})
    alone = {"b.py::w": 1.0}
    cover.add("b.py", {"seconds": alone, "fixtures": {"b.py::w": []}, "lines": {"m.py": {}}})
    assert cover.chosen("m.py", [3], set()) == (["a.py::x"], ["a.py::z", "a.py::y"])
    assert cover.chosen("m.py", [4], set()) == (["a.py::y"], ["a.py::z", "a.py::x"])
    # A line that may run in another process, and one of the import.
    assert cover.chosen("m.py", [5], {"a.py"}) == (["a.py::y", "a.py::x"], ["a.py::z"])
    assert cover.chosen("m.py", [1], {"a.py"}) == (["a.py::z", "a.py::y", "a.py::x"], [])
    assert [line for line in range(1, 6) if cover.is_run("m.py", [line])] == [1, 2, 3, 4]
    assert cover.chosen("n.py", [1], {"a.py"}) == ([], [])


def test_areas_name_files_that_exist():
    for area in AREAS.values():
        for pattern in (*area.modules, *area.tests):
            assert list(ROOT.glob(pattern)), pattern


def test_the_table_has_shares():

    counts = {"a": Counter(killed=8, survived=1, untested=1), "b": Counter({"timed out": 10})}
    rows = [line.split(" | ") for line in table(counts).splitlines()]
    assert rows[0][3:6] == list(OUTCOMES[1:])
    assert rows[2] == ["| a", "10", "8", "0", "1", "1", "80.0 % |"]
    assert rows[4] == ["| all", "20", "8", "10", "1", "1", "90.0 % |"]


def test_unknown_areas_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "noise,nothing"])
    assert "unknown areas nothing" in capsys.readouterr().err


def mutants_of(source):
    needs_the_extra()
    from benchmarks.mutation import mutants

    return [make() for make in mutants.mutants_of("planted.py", source)]


def test_mutants_of_a_module():
    source = "def f(x: int = 3, *, y=True):\n    if x:\n        return g(x - 1, key=y)\n"
    found = {(one.operator, one.old, one.new): one for one in mutants_of(source)}
    assert set(found) == {
        ("number", "3", "4"),
        ("name", "True", "False"),
        ("condition", "if x: return g(x - 1, key=y)", "if not x: return g(x - 1, key=y)"),
        ("arg_removal", "g(x - 1, key=y)", "g(x - 1, )"),
        ("swap_op", "x - 1", "x + 1"),
        ("number", "1", "2"),
    }
    one = found["swap_op", "x - 1", "x + 1"]
    assert one.source == source.replace("x - 1", "x + 1")
    assert (one.line, one.statement) == (3, (3, 3))
    assert len({mutant.key for mutant in found.values()}) == len(found)


@pytest.mark.parametrize(
    "source",
    [
        '"""Documentation of 1 module."""\n',
        "def f():\n    '''Documentation.'''\n",
        "x: int | None\n",
        "Number = int | float\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1\n",
        'def f(n):\n    raise ValueError("below 1")\n',
        'import logging\nlogging.getLogger().info("step %d", 1)\n',
        '__all__ = ["f"]\n',
        "f(x)\n",
        "y = None\n",
    ],
)
def test_what_no_test_can_see_is_left_out(source):
    assert mutants_of(source) == []


def test_samples_are_repeated_and_nested():
    needs_the_extra()
    from benchmarks.mutation.mutants import sample

    keys = [
        [one.key for one in sample("noise", AREAS["noise"], number, seed)]
        for number, seed in ((4, 0), (2, 0), (4, 1))
    ]
    assert keys[1] == keys[0][:2]
    assert keys[2] != keys[0]
