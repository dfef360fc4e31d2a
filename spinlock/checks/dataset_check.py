"""The check of a dataset file: measures every claim about it."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch

from spinlock.checks.check_results import CheckReport, CheckRow
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim
from spinlock.checks.design_checks import design_claims
from spinlock.checks.dynamics_checks import dynamics_claims
from spinlock.checks.feature_checks import feature_claims
from spinlock.checks.field_statistics import measure_fields
from spinlock.checks.initial_condition_checks import (
    amplitude_claims,
    distribution_claims,
    spectrum_claims,
)
from spinlock.checks.integrity import integrity_claims
from spinlock.checks.liveness import liveness_claims
from spinlock.checks.replay import replay_claims
from spinlock.checks.trajectory_checks import trajectory_claims
from spinlock.checks.variance_checks import variance_claims
from spinlock.configuration.validation import require_at_least
from spinlock.errors import DatasetError, DatasetNotFoundError, in_a_line
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.progress import Progress
from spinlock.storage import schema

# Bytes of a SHA-256 digest, which no filter can compress further.
_DIGEST_BYTES = 32


def check_dataset(
    path: str | os.PathLike[str],
    *,
    full: bool = False,
    replay: int = 4,
    trust: Collection[str] = (),
    device: str | torch.device | None = None,
    progress: bool = True,
) -> CheckReport:
    """Check a dataset file: measure every claim about it.

    All columns and all initial conditions are read. Outputs are read for up to 512 samples (0.5
    GB), which are chosen from every variant in proportion and are the same at every call. Memory
    use does not depend on the size of the fields.

    Args:
        path: Path of the dataset file.
        full: Whether to read the outputs of all samples, verify all digests and decompose the
            variance of features by variant and operator.
        replay: Number of samples to recompute, default: 4; 0 recomputes none.
        trust: Modules whose classes may be imported for replay if the file names them. Claims that
            need classes of other modules are not measurable.
        device: Device that recomputes samples, default: the current CUDA device, or the CPU.
        progress: Whether to show progress.

    Returns:
        A report with one row per claim. Any damage to the file appears as a row that failed.

    Raises:
        DatasetNotFoundError: If the file does not exist.
        ConfigurationError: If ``replay`` is negative or the device does not exist.

    Example:
        >>> import tempfile
        >>> from spinlock import GenerationConfig, ParameterSpaceConfig, generate
        >>> config = GenerationConfig(2, parameter_space=ParameterSpaceConfig(grid_size=(32,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate(config, f"{folder}/data.h5", progress=False)
        ...     check_dataset(f"{folder}/data.h5", replay=1, progress=False).passed
        True
    """
    require_at_least({"replay": replay}, 0)
    path, chosen = Path(path), choose_device(device)
    try:
        source = CheckSource.open(path, trust=trust)
    except DatasetNotFoundError:
        raise
    except DatasetError as error:
        return CheckReport((_file_row(str(error)),), path, full)
    rows: list[CheckRow] = []
    try:
        with source:
            source.full = full
            rows.extend(_rows(source, replay, chosen, progress))
    except DatasetError as error:
        # Damage that no claim expects, such as an attribute that HDF5 cannot find.
        rows = [_file_row(str(error)), *(row for row in rows if row.name != "file")]
    return CheckReport(tuple(rows), path, full)


def _file_row(problem: str = "") -> CheckRow:
    """Return the row of the first claim, which all others depend on."""
    text = "the file is a readable dataset of this schema version"
    return CheckRow("integrity", "file", text, "yes", problem or "yes", None, passed=not problem)


def _rows(
    source: CheckSource, replay: int, device: torch.device, progress: bool
) -> Iterator[CheckRow]:
    if problem := _samples_problem(source):
        yield _file_row(problem)
        return
    again = min(replay, source.num_samples)
    title = f"check {source.path.name}" + (f", {again} computed again" if again else "")
    with Progress(source.num_samples + again, 0, title, enabled=progress) as bar:
        try:
            fields = measure_fields(source, bar.update)
        except Exception as error:
            # A damaged file can make reading fail in any way.
            yield _file_row(f"{type(error).__name__}: {in_a_line(error)}")
            return
        yield _file_row()
        groups: dict[str, Callable[[], Iterable[Claim]]] = {
            "integrity": partial(integrity_claims, source, fields),
            "distribution": partial(distribution_claims, source),
            "amplitude": partial(amplitude_claims, source, fields),
            "spectrum": partial(spectrum_claims, source, fields),
            "design": partial(design_claims, source),
            "liveness": partial(liveness_claims, source, fields),
            "features": partial(feature_claims, source),
            "dynamics": partial(dynamics_claims, source),
            "trajectories": partial(trajectory_claims, source, fields),
        }
        if source.full:
            groups["variance"] = partial(variance_claims, source)
        if replay:
            groups["replay"] = partial(replay_claims, source, replay, device, bar.update)
        for group, claims in groups.items():
            yield from (claim.row(group, source) for claim in claims())


def _samples_problem(source: CheckSource) -> str:
    """Return why the file does not store the digest of every sample; empty if it does.

    Everything else that the check allocates is proportional to the number of samples, so a
    configuration must not be able to claim more samples than the file can hold.
    """
    number = source.num_samples
    if problem := source.problems.get(schema.DIGESTS):
        return f"{schema.DIGESTS} {problem.text}"
    if source.stored_column(schema.DIGESTS).file.id.get_filesize() < _DIGEST_BYTES * number:
        return f"{schema.DIGESTS} cannot hold {number} digests in a file of this size"
    return ""
