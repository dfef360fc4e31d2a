"""Finds out which tests run which line, by coverage.py with one context for each test.

What a fixture of a file or of the session runs counts for every test that uses the fixture.
"""

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.mutation.areas import EXAMPLES
from benchmarks.mutation.children import in_child, run_pytest

if TYPE_CHECKING:
    from coverage import Coverage

_FIXTURE = "fixture "
# Limit of the processor time for the tests of a file.
_SECONDS = 900


def processor_time() -> float:
    """Return the seconds that this process and its children have computed."""
    return sum(os.times()[:4])


class _Recorder:
    """A plugin of pytest that tells coverage.py which test or fixture runs."""

    runs_on = True

    def __init__(self, coverage: "Coverage") -> None:
        self._coverage = coverage
        self._current = ""
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, list[str]] = {}
        self._bad: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._switch(item.nodeid)
        self.fixtures[item.nodeid] = list(getattr(item, "fixturenames", ()))
        start = processor_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = processor_time() - start
            self._switch("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        before = self._current
        if fixturedef.scope != "function":
            self._switch(_FIXTURE + fixturedef.argname)
        try:
            return (yield)
        finally:
            self._switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._bad.add(report.nodeid)

    def passed(self) -> dict[str, float]:
        """Return the seconds of each test that passed."""
        return {test: used for test, used in self.seconds.items() if test not in self._bad}

    def _switch(self, context: str) -> None:
        self._current = context
        self._coverage.switch_context(context)


def _record(root: Path, folder: Path, tests: Path, modules: Sequence[Path]) -> dict[str, Any]:
    """Run the tests of a file, and return what they ran."""
    from coverage import Coverage

    coverage = Coverage(
        data_file=str(folder / "coverage"),
        include=[str(path) for path in modules],
        config_file=False,
        messages=False,
    )
    recorder = _Recorder(coverage)
    coverage.start()
    try:
        run_pytest(root, folder, [tests], recorder)
    finally:
        coverage.stop()
    data = coverage.get_data()
    lines: dict[str, dict[str, list[str]]] = {}
    for path in data.measured_files():
        found = data.contexts_by_lineno(path)
        name = str(Path(path).relative_to(root))
        lines[name] = {str(line): sorted(contexts) for line, contexts in found.items()}
    return {"seconds": recorder.passed(), "fixtures": recorder.fixtures, "lines": lines}


@dataclass
class CoverageMap:
    """What the tests of several files run.

    Args:
        seconds: Processor time of each test.
        lines: Module -> line -> the tests that run it.
        imported: Module -> its lines that run when it is imported.
        importing: Module -> the test files that import it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    imported: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    importing: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, tests: str, record: dict[str, Any]) -> None:
        """Add what the tests of a file run."""
        self.seconds |= record["seconds"]
        users: dict[str, set[str]] = defaultdict(set)
        for test, names in record["fixtures"].items():
            for name in names:
                users[_FIXTURE + name].add(test)
        for module, lines in record["lines"].items():
            table = self.lines.setdefault(module, defaultdict(set))
            for line, contexts in lines.items():
                for context in contexts:
                    if context == "":
                        self.imported[module].add(int(line))
                        self.importing[module].add(tests)
                    table[int(line)] |= users.get(context, {context} - {""})

    def is_run(self, module: str, lines: Sequence[int]) -> bool:
        """Tell whether a test runs one of some lines of a module, or its import does."""
        table = self.lines.get(module, {})
        return any(table.get(line) or line in self.imported[module] for line in lines)

    def chosen(self, module: str, lines: Sequence[int], files: set[str]) -> tuple[list[str], ...]:
        """Return the tests that run one of some lines, and further tests that may notice a change.

        The further ones are in the same files, except for examples in docstrings. For a line that
        runs perhaps in a process that a test starts, the first ones run any line of the module. For
        one that runs when the module is imported, they are all tests of files that import it.

        Args:
            module: Path of the module.
            lines: Lines of a statement, in a list or range.
            files: Test files that concern the module.
        """
        table = self.lines.get(module, {})
        first = {test for line in lines for test in table.get(line, ())} & self.seconds.keys()
        near = {file_of(test) for test in first}
        imported = any(line in self.imported[module] for line in lines)
        if imported or not first:
            first = set().union(*table.values()) & self.seconds.keys()
            near |= self.importing[module] & files
        near.discard(EXAMPLES)
        if imported:
            first |= {test for test in self.seconds if file_of(test) in near}
        further = {test for test in self.seconds if file_of(test) in near} - first
        return self._fastest(first), self._fastest(further)

    def _fastest(self, tests: set[str]) -> list[str]:
        """Sort tests: those of the fastest file first, and in a file the fastest first."""
        used: dict[str, float] = defaultdict(float)
        for test in tests:
            used[file_of(test)] += self.seconds[test]
        return sorted(
            tests, key=lambda test: (used[file_of(test)], file_of(test), self.seconds[test], test)
        )


def file_of(test: str) -> str:
    """Return the file of a test."""
    return test.partition("::")[0]


def measure(root: Path, store: Path, tests: Sequence[Path], modules: Sequence[Path]) -> CoverageMap:
    """Run test files once, each in a process of its own, and return what they run.

    Args:
        root: Root of the repository.
        store: Folder of the results, which are used again while modules and tests are the same.
        tests: Test files.
        modules: Modules whose lines are recorded.
    """
    store.mkdir(parents=True, exist_ok=True)
    common = hashlib.sha256(b"1")
    for path in sorted(root.glob("spinlock/**/*.py")):
        common.update(path.read_bytes())
    found = CoverageMap()
    for path in tests:
        name = str(path.relative_to(root))
        key = hashlib.sha256(common.digest() + path.read_bytes()).hexdigest()[:16]
        stored = store / f"{name.replace('/', '.')}-{key}.json"
        if not stored.exists():
            start = time.monotonic()
            _, record = in_child(
                lambda folder, path=path: _record(root, folder, path, modules), _SECONDS
            )
            if record is None or not record["seconds"]:
                raise SystemExit(f"The tests of {name} do not run without a mutation.")
            stored.write_text(json.dumps(record), "utf-8")
            number, used = len(record["seconds"]), time.monotonic() - start
            print(f"{name}: {number} tests in {used:.0f} s", flush=True)
        found.add(name, json.loads(stored.read_text("utf-8")))
    return found
