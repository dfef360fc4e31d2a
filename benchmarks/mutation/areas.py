"""The areas of the library whose tests are measured, with their modules and their tests."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: Runs the examples in the docstrings of each module, for every area.
EXAMPLES = "tests/test_docstrings.py"


@dataclass(frozen=True)
class Area:
    """A part of the library.

    Args:
        modules: Patterns of the files of its modules, relative to the root of the repository.
        tests: Patterns of the test files that concern it.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def module_files(self) -> list[Path]:
        """Return the files of its modules in order, without those that only import."""
        found = {path for pattern in self.modules for path in ROOT.glob(pattern)}
        return sorted(path for path in found if path.name != "__init__.py")

    def test_files(self) -> list[Path]:
        """Return its test files in order, with the one that runs the examples of docstrings."""
        patterns = (*self.tests, EXAMPLES)
        return sorted({path for pattern in patterns for path in ROOT.glob(pattern)})


def _simulation(*names: str) -> tuple[str, ...]:
    return tuple(f"spinlock/simulation/{name}.py" for name in names)


_CONFIGURATION = "spinlock/configuration/"
_SAMPLES = ("tests/test_golden.py", "tests/test_simulation.py", "tests/test_simulated_samples.py")

AREAS = {
    "parameters": Area(
        tuple(
            f"{_CONFIGURATION}{name}.py"
            for name in ("parameter_axes", "parameter_space", "operator_axes")
        ),
        (
            "tests/test_parameters.py",
            "tests/test_operator_axes.py",
            "tests/test_config.py",
            "tests/untrusted/test_stored_configurations.py",
            "tests/test_design.py",
            "tests/test_operator_family.py",
            "tests/test_golden.py",
        ),
    ),
    "design": Area(
        (
            f"{_CONFIGURATION}variant_mixture.py",
            *_simulation("sobol_design", "discrepancy", "variants"),
        ),
        (
            "tests/test_design.py",
            "tests/test_config.py",
            "tests/test_initial_conditions.py",
            "tests/test_operator_runs.py",
            "tests/test_bad_input.py",
            "tests/test_block_initial_conditions.py",
            "tests/untrusted/test_stored_configurations.py",
            *_SAMPLES,
        ),
    ),
    "noise": Area(
        _simulation("randomness", "forcing", "block_forcing"),
        (
            "tests/test_noise.py",
            "tests/test_block_forcing.py",
            "tests/test_randomness.py",
            "tests/test_rollout.py",
            "tests/kernels/test_random_draws.py",
            *_SAMPLES,
        ),
    ),
    "rollout": Area(
        _simulation("rollout", "group_rollout", "operator_runs", "unit_fields", "samples")
        + _simulation("simulator"),
        (
            "tests/test_rollout.py",
            "tests/test_bounds.py",
            "tests/test_operator_runs.py",
            "tests/test_operators.py",
            "tests/test_block_fields.py",
            "tests/test_extraction.py",
            *_SAMPLES,
        ),
    ),
    "storage": Area(
        ("spinlock/storage/*.py",),
        (
            "tests/storage/test_*.py",
            "tests/generation/test_*.py",
            "tests/durability/test_shards.py",
            "tests/durability/test_virtual_runs.py",
            "tests/checks/test_corruption.py",
            "tests/checks/test_damaged_files.py",
        ),
    ),
    "responses": Area(
        ("spinlock/features/response/*.py",),
        (
            "tests/features/test_*response*.py",
            "tests/features/test_displacement.py",
            "tests/features/test_row_independence.py",
            "tests/features/test_registry.py",
            "tests/features/test_documentation.py",
            "tests/datamodules/test_invariant_columns.py",
            "tests/test_extraction.py",
            "tests/test_golden.py",
        ),
    ),
    "metrics": Area(
        ("spinlock/metrics/*.py",),
        ("tests/metrics/test_*.py", "tests/checks/test_variance_checks.py"),
    ),
}
