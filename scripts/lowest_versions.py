"""Run the tests with the lowest version of every dependency that pyproject.toml allows.

    python -m scripts.lowest_versions [arguments of pytest]

A fresh virtual environment, ``build/lowest-versions``, gets these versions together: those of the
package, of the extra ``test`` and of the build system. Dependencies without a lowest version, and
dependencies of dependencies, are the newest that agree with them. The environment stays, so that a
test that fails can be run again with its Python.
"""

import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / "build" / "lowest-versions"


def requirements(project: dict[str, Any], texts: Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements that hold on this machine, and those of extras of the project.

    Args:
        project: Table ``project`` of pyproject.toml.
        texts: Requirements as they are written there.
    """
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if requirement.name == project["name"]:
            for extra in sorted(requirement.extras):
                yield from requirements(project, project["optional-dependencies"][extra])
        else:
            yield requirement


def lowest_versions(pyproject: dict[str, Any]) -> list[str]:
    """Return the lowest versions that the project and its tests allow, as ``name==version``.

    Args:
        pyproject: Content of pyproject.toml.

    Example:
        >>> project = {"name": "a", "dependencies": ["b>=1.2,<3"]}
        >>> project["optional-dependencies"] = {"test": ["c[d]>=4; python_version > '3'", "e"]}
        >>> lowest_versions({"build-system": {"requires": ["f>=5"]}, "project": project})
        ['b==1.2', 'c==4', 'f==5']
    """
    project = pyproject["project"]
    texts = [
        *project["dependencies"],
        f"{project['name']}[test]",
        *pyproject["build-system"]["requires"],
    ]
    return [
        f"{requirement.name}=={specifier.version}"
        for requirement in requirements(project, texts)
        for specifier in requirement.specifier
        if specifier.operator == ">="
    ]


def main() -> None:
    """Make the environment and run the tests."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        pyproject = tomllib.load(file)
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    constraints = ENVIRONMENT / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions(pyproject)) + "\n", "utf-8")
    python = str(ENVIRONMENT / "bin" / "python")
    install = [python, "-m", "pip", "install", "-c", str(constraints)]
    commands = [
        [*install, *pyproject["build-system"]["requires"]],
        # Without isolation, the build uses the lowest version of the build system.
        [*install, "--no-build-isolation", "-e", ".[test]"],
        [python, "-m", "pip", "check"],
        [python, "-m", "pytest", *sys.argv[1:]],
    ]
    for command in commands:
        print("+", *command, flush=True)
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
