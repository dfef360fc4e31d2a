"""The check of a dataset file: everything that the design promises, measured on the file."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from spinlock.checks.check_results import CheckReport, CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.design_checks import design_rows
from spinlock.checks.feature_checks import feature_rows
from spinlock.checks.field_statistics import measure_fields
from spinlock.checks.initial_condition_checks import (
    amplitude_rows,
    distribution_rows,
    spectrum_rows,
)
from spinlock.checks.integrity import integrity_rows
from spinlock.checks.liveness import liveness_rows
from spinlock.checks.replay import replay_rows
from spinlock.errors import ConfigurationError, DatasetError, DatasetNotFoundError
from spinlock.runtime.progress import Progress
from spinlock.simulation.simulator import choose_device
from spinlock.storage.layout import open_hdf5, read_configuration

_FILE = Claim("integrity", "file", "the file is a readable dataset of this schema", "yes")


def check_dataset(
    path: str | os.PathLike[str],
    *,
    full: bool = False,
    replay: int = 4,
    trust: Collection[str] = (),
    device: str | torch.device | None = None,
    progress: bool = True,
) -> CheckReport:
    """Measure every claim about a dataset on its file. Memory does not grow with its fields.

    All columns and all initial conditions are read, and the outputs of up to 512 samples (0.5 GB),
    chosen from every variant in proportion, the same at every call.

    Args:
        path: The file.
        full: Whether to read the outputs of all samples, and verify all digests.
        replay: Number of samples to compute again; 0: none.
        trust: Modules of which the classes that the file names may be imported, for replay. Claims
            that need others are not measurable.
        device: Where to compute them; by default the first CUDA device, or the CPU.
        progress: Whether to show progress.

    Returns:
        One row for each claim. What is wrong with the file, however damaged, is a row that failed.

    Raises:
        DatasetNotFoundError: If there is no such file.
        ConfigurationError: If ``replay`` is negative or the device is not there.
    """
    if replay < 0:
        raise ConfigurationError(f"replay: must be at least 0, got {replay}")
    path = Path(path)
    try:
        file = open_hdf5(path)
    except DatasetNotFoundError:
        raise
    except DatasetError as error:
        return CheckReport((_FILE.result(str(error), None, False),), path, full)
    with file:
        rows = tuple(_rows(file, full, replay, trust, device, progress))
    return CheckReport(rows, path, full)


def _rows(
    file: h5py.File,
    full: bool,
    replay: int,
    trust: Collection[str],
    device: str | torch.device | None,
    progress: bool,
) -> Iterator[CheckRow]:
    try:
        config = read_configuration(file, trust)
    except DatasetError as error:
        yield _FILE.result(str(error), None, False)
        return
    yield _FILE.result("yes", None, True)
    source = CheckSource(file, config, full=full)
    # Before anything is read: the device may not be there.
    again = choose_device(device)
    total = source.num_samples + min(replay, source.num_samples)
    with Progress(total, 0, f"check {Path(file.filename).name}", enabled=progress) as bar:
        fields = measure_fields(source, bar.update)
        groups: dict[str, Callable[[], Iterable[CheckRow]]] = {
            "integrity": lambda: integrity_rows(source, fields),
            "distribution": lambda: distribution_rows(source),
            "amplitude": lambda: amplitude_rows(source, fields),
            "spectrum": lambda: spectrum_rows(source, fields),
            "design": lambda: design_rows(source),
            "liveness": lambda: liveness_rows(source, fields),
            "features": lambda: feature_rows(source),
        }
        if replay:
            groups["replay"] = lambda: replay_rows(source, replay, again, bar.update)
        for group, rows in groups.items():
            yield from _guarded(group, rows)


def _guarded(group: str, rows: Callable[[], Iterable[CheckRow]]) -> Iterator[CheckRow]:
    """The rows of a group; a file so damaged that they cannot be measured fails one of its own."""
    try:
        # Whatever the caller has numpy raise: these are its defaults.
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            found = list(rows())
    except Exception as error:
        claim = Claim(group, "measured", f"the claims of {group} can be measured", "yes")
        found = [claim.result(f"{type(error).__name__}: {error}", None, False)]
    yield from found
