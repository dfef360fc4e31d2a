"""Runs mutation testing: ``python -m benchmarks.mutation [--seed 0] [--number 50] [--only AREAS]``.

Needs ``pip install -e '.[test,mutation]'`` and Linux.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.mutation.areas import AREAS, ROOT
from benchmarks.mutation.children import preload
from benchmarks.mutation.coverage_map import CoverageMap, measure
from benchmarks.mutation.trials import Mutant, Verdict, try_mutant

OUTCOMES = ("killed", "timed out", "survived", "untested")


def try_mutants(
    name: str, mutants: Sequence[Mutant], cover: CoverageMap, results: Path
) -> Counter[str]:
    """Try mutants of an area, print those not killed, and return how many had each outcome.

    Args:
        name: Name of the area.
        mutants: The mutants.
        cover: Coverage of the tests without mutation.
        results: File of earlier results, which is written anew after each trial. Killed mutants in
            it are not tried again.
    """
    stored = json.loads(results.read_text("utf-8")) if results.exists() else {}
    counts: Counter[str] = Counter()
    for mutant in mutants:
        earlier = stored.get(mutant.key)
        if earlier and Verdict(**earlier["verdict"]).is_killed:
            counts[earlier["verdict"]["outcome"]] += 1
            continue
        verdict = try_mutant(mutant, AREAS[name], cover)
        counts[verdict.outcome] += 1
        found = asdict(mutant)
        del found["source"]
        stored[mutant.key] = {"area": name, **found, "verdict": asdict(verdict)}
        results.write_text(json.dumps(stored, indent=1), "utf-8")
        if not verdict.is_killed:
            print(
                f"{verdict.outcome}: {mutant.path}:{mutant.line} {mutant.operator}\n"
                f"    - {mutant.old}\n    + {mutant.new}",
                flush=True,
            )
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the number of mutants of each area with each outcome, and the share of the killed."""
    rows = ["| area | mutants | killed | timed out | survived | untested | share |"]
    rows.append("|---|---|---|---|---|---|---|")
    for name, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        share = (found["killed"] + found["timed out"]) / max(found.total(), 1)
        cells = [name, str(found.total()), *(str(found[outcome]) for outcome in OUTCOMES)]
        rows.append(f"| {' | '.join(cells)} | {100 * share:.1f} % |")
    return "\n".join(rows)


def main(args: Sequence[str] | None = None) -> None:
    """Try mutants, print those that survive, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of mutants")
    parser.add_argument("--number", type=int, default=50, help="mutants of each area")
    parser.add_argument("--only", default=",".join(AREAS), help=f"areas, of {','.join(AREAS)}")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the mutants that were killed before, and try the others again",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "build" / "mutation",
        help="folder of coverage and results",
    )
    given = parser.parse_args(args)
    names = given.only.split(",")
    if unknown := sorted(set(names) - AREAS.keys()):
        parser.error(f"unknown areas {', '.join(unknown)}; allowed are {', '.join(AREAS)}")
    try:
        from benchmarks.mutation.mutants import sample
    except ImportError as error:
        parser.error(f"{error}; pip install -e '.[test,mutation]'")
    # One thread: rounding does not depend on the machine, and processes fork without threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    preload()
    modules = [path for area in AREAS.values() for path in area.module_files()]
    results = given.folder / "results.json"
    if not given.resume:
        results.unlink(missing_ok=True)
    counts = {}
    for name in names:
        cover = measure(ROOT, given.folder / "coverage", AREAS[name].test_files(), modules)
        mutants = sample(name, AREAS[name], given.number, given.seed)
        counts[name] = try_mutants(name, mutants, cover, results)
        print(f"{name}: {dict(counts[name])}", flush=True)
    print(table(counts))


if __name__ == "__main__":
    main()
