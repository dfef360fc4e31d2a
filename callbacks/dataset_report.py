"""No training on a dataset that is not what it claims to be."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from spinlock import contract
from spinlock.callbacks.plot_logging import log_folder
from spinlock.checks import CheckReport, check_dataset
from spinlock.errors import DatasetError, SpinlockError
from spinlock.runtime.output_files import unused_path


@dataclass(frozen=True)
class _Outcome:
    """What rank zero found, for all processes."""

    passed: bool = False
    table: str = ""
    values: dict[str, float] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    error: str | None = None


class DatasetReport(Callback):
    """Checks the dataset's file before anything is computed on it, as ``spinlock check`` does.

    Runs at setup, once for a file, on rank zero; all processes follow its finding. To each logger
    go:

    - ``dataset/passed``: 1 or 0;
    - ``dataset/<group>/<name>``: the measured value of each claim that is a number; characters
      other than letters, digits, ``_``, ``-`` and ``.`` become ``_``;
    - the table of all claims, as text: under ``dataset/report`` where the logger's ``experiment``
      has ``add_text`` (TensorBoard), and in the file ``dataset_report.txt`` of the log folder, or
      ``dataset_report-v1.txt`` and so on where that is taken.

    These are no epoch's values: they are not among ``trainer.callback_metrics``. Needs a data
    module with ``path``, whose ``prepare_data`` has built the file.

    Args:
        full: Read the outputs of all samples, not of up to 512, and verify all digests.
        replay: Number of samples to compute again; 0: none.
        device: Where to compute them; by default the trainer's device.
        refuse: Whether a file that fails is refused; else it is only reported.

    Raises:
        ValueError: `replay` is negative.
        DatasetError: At setup: the file fails and `refuse` is set, or it cannot be checked.
        ContractError: At setup: there is no data module with a path.
    """

    def __init__(
        self,
        *,
        full: bool = False,
        replay: int = 4,
        device: str | None = None,
        refuse: bool = True,
    ) -> None:
        if replay < 0:
            raise ValueError(f"replay must be at least 0, got {replay}")
        self.full = full
        self.replay = replay
        self.device = device
        self.refuse = refuse
        self._outcomes: dict[Path, _Outcome] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check, report, refuse."""
        given = contract.known_property(trainer, "path")
        if given is None:
            raise contract.ContractError(
                "DatasetReport needs a data module with the `path` of its dataset file; the "
                "trainer was given none. Train with SpinlockDataModule, or leave the callback out."
            )
        path = Path(given)
        if path not in self._outcomes:
            found = self._check(path, trainer) if trainer.is_global_zero else _Outcome()
            self._outcomes[path] = trainer.strategy.broadcast(found)
            self._report(trainer, self._outcomes[path])
        outcome = self._outcomes[path]
        if outcome.error is not None:
            raise DatasetError(f"DatasetReport could not check {path}: {outcome.error}")
        if not outcome.passed and self.refuse:
            raise DatasetError(
                f"{path} fails {len(outcome.failed)} check(s): {'; '.join(outcome.failed)}. "
                f"`spinlock check {path}` shows all. Build it anew, or set refuse=False to train "
                "on it all the same."
            )

    def _check(self, path: Path, trainer: Trainer) -> _Outcome:
        device = self.device
        if device is None and trainer.strategy.root_device.type in ("cpu", "cuda"):
            device = str(trainer.strategy.root_device)
        try:
            generation = contract.known_property(trainer, "generation")
            report = check_dataset(
                path,
                full=self.full,
                replay=self.replay,
                trust=() if generation is None else generation.vouched_modules,
                device=device,
                progress=False,
            )
        except (SpinlockError, OSError) as error:
            # The other processes wait for an answer.
            return _Outcome(error=str(error))
        return _outcome(report)

    def _report(self, trainer: Trainer, outcome: _Outcome) -> None:
        folder = log_folder(trainer)
        if outcome.error is not None or not trainer.is_global_zero:
            return
        rank_zero_info(outcome.table)
        folder.mkdir(parents=True, exist_ok=True)
        with unused_path(folder / "dataset_report.txt").open("x", encoding="utf-8") as file:
            file.write(outcome.table + "\n")
        for logger in trainer.loggers:
            logger.log_metrics(outcome.values, step=trainer.global_step)
            experiment: Any = getattr(logger, "experiment", None)
            if hasattr(experiment, "add_text"):
                # Markdown: an indented block keeps the columns.
                text = "\n".join(f"    {line}" for line in outcome.table.splitlines())
                experiment.add_text("dataset/report", text, trainer.global_step)


def _outcome(report: CheckReport) -> _Outcome:
    values = {"dataset/passed": float(report.passed)}
    for row in report.rows:
        if row.value is not None:
            values[f"dataset/{_key(row.group)}/{_key(row.name)}"] = float(row.value)
    failed = tuple(
        f"{row.group}/{row.name}: {row.measured} (target {row.target})" for row in report.failures
    )
    return _Outcome(report.passed, report.table(), values, failed)


def _key(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)
