"""Finds out whether tests notice a mutant."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutation.areas import ROOT, Area
from benchmarks.mutation.children import TIMED_OUT, MutantFinder, in_child, run_pytest
from benchmarks.mutation.coverage_map import CoverageMap, file_of

#: Processor seconds, without mutation, of the tests that try one mutant.
BUDGET = 10.0
# A mutant may take this many times the processor time without mutation, plus this many seconds.
_SLOWER, _AT_LEAST = 5, 30
_NO_TESTS = 5


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Args:
        outcome: ``killed``, ``timed out``, ``survived`` or ``untested``, if no test runs its line.
        test: The test that failed.
        reason: The first line of its error.
    """

    outcome: str
    test: str = ""
    reason: str = ""

    @property
    def is_killed(self) -> bool:
        """Tell whether the tests notice the mutant; they notice one that never ends."""
        return self.outcome in ("killed", "timed out")


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Args:
        path: Path of the module, relative to the root of the repository.
        line: Line of the change.
        statement: First and last line of the statement around it; of a compound statement, of its
            head.
        operator: Name of the kind of change.
        old: Text that was replaced.
        new: Text that replaces it.
        source: Text of the whole changed module.
    """

    path: str
    line: int
    statement: tuple[int, int]
    operator: str
    old: str
    new: str
    source: str

    @property
    def key(self) -> str:
        """The name of the mutant, which changes when the module does."""
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:10]
        return f"{self.path}:{self.line}:{digest}"

    @property
    def module(self) -> str:
        """Full name of the module."""
        return self.path.removesuffix(".py").replace("/", ".")


class _Chosen:
    """A plugin of pytest that runs chosen tests in order, and remembers the failure.

    Args:
        known: Tests that there are without mutation. Others are run, too.
        chosen: Tests to run.
    """

    def __init__(self, known: set[str], chosen: Sequence[str]) -> None:
        self._known = known
        self._order = {test: place for place, test in enumerate(chosen)}
        self.failed: tuple[str, str] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [
            item for item in items if item.nodeid in self._order or item.nodeid not in self._known
        ]
        items.sort(key=lambda item: self._order.get(item.nodeid, len(self._order)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = str(crash.message if crash else report.longreprtext).strip().splitlines()
        self.failed = self.failed or (report.nodeid, (lines or [""])[0][:200])


def attempt(mutant: Mutant, tests: Sequence[str], cover: CoverageMap, root: Path = ROOT) -> Verdict:
    """Run tests with a mutant in place of its module.

    Args:
        mutant: The mutant.
        tests: Tests to run until one fails, in order.
        cover: Coverage of the tests without mutation.
        root: Root of the repository.
    """
    files = list(dict.fromkeys(file_of(test) for test in tests))

    def run(folder: Path) -> dict[str, Any]:
        finder = MutantFinder(mutant.module, root / mutant.path, mutant.source)
        sys.meta_path.insert(0, finder)
        plugin = _Chosen(known, tests)
        status = run_pytest(root, folder, [root / file for file in files], plugin)
        return {"status": status, "failed": plugin.failed}

    known = {test for test in cover.seconds if file_of(test) in set(files)}
    expected = sum(cover.seconds[test] for test in tests)
    status, result = in_child(run, _AT_LEAST + _SLOWER * expected)
    if status == TIMED_OUT:
        return Verdict("timed out")
    if result is None:
        return Verdict("killed", reason=f"the process ended with status {status}")
    if result["status"] in (0, _NO_TESTS):
        return Verdict("survived")
    failed = result["failed"] or ("", f"pytest ended with status {result['status']}")
    return Verdict("killed", *failed)


def try_mutant(mutant: Mutant, area: Area, cover: CoverageMap) -> Verdict:
    """Run the tests that may notice a mutant until one fails.

    Args:
        mutant: The mutant.
        area: The area of its module.
        cover: Coverage of the tests without mutation.
    """
    lines = range(mutant.statement[0], mutant.statement[1] + 1)
    files = {str(path.relative_to(ROOT)) for path in area.test_files()}
    first, further = cover.chosen(mutant.path, lines, files)
    chosen, used = [], 0.0
    for test in [*first, *further]:
        if chosen and used + cover.seconds[test] > BUDGET:
            break
        used += cover.seconds[test]
        chosen.append(test)
    verdict = attempt(mutant, chosen, cover) if chosen else Verdict("survived")
    if verdict.outcome == "survived" and not cover.is_run(mutant.path, lines):
        return Verdict("untested")
    return verdict
