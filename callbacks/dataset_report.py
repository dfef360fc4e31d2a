"""Callback that checks the dataset file before training."""

import re
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from spinlock import contract
from spinlock.callbacks.plot_logging import log_folder
from spinlock.checks import CheckReport, check_dataset
from spinlock.configuration.validation import require_at_least
from spinlock.errors import DatasetError, SpinlockError
from spinlock.runtime.output_files import unused_path


class DatasetReport(Callback):
    """Checks the dataset file before training, validation, testing or prediction.

    The checks are those of ``spinlock check``. They run once per file, at setup, on rank zero; all
    processes use the result. It is logged to every logger:

    - ``dataset/passed``: 1 or 0;
    - ``dataset/<group>/<name>``: measured value of each claim that is a number; characters other
      than letters, digits, ``_``, ``-`` and ``.`` are replaced by ``_``;
    - ``dataset/report``: table of all claims as text, if the logger's ``experiment`` has
      ``add_text`` (TensorBoard).

    The table is also written to ``dataset_report.txt`` in the log folder, or to
    ``dataset_report-v1.txt`` and so on if that file exists. Nothing is added to
    ``trainer.callback_metrics``. The data module needs a ``path``, and its ``prepare_data`` must
    have built the file.

    Args:
        full: Whether to read the outputs of all samples instead of up to 512, and to verify all
            digests.
        replay: Number of samples to recompute, default: 4; 0 recomputes none.
        device: Device that recomputes samples, default: the trainer's device.
        refuse: Whether to raise an error if the file fails the check, instead of only reporting it.

    Raises:
        ValueError: If ``replay`` is negative.
        DatasetError: At setup, if the file fails the check and ``refuse`` is set, or if it cannot
            be checked.
        ContractError: At setup, if the trainer has no data module with a ``path``.

    Example:
        >>> from spinlock.callbacks import DatasetReport
        >>> DatasetReport(replay=1, refuse=False).replay
        1
    """

    def __init__(
        self,
        *,
        full: bool = False,
        replay: int = 4,
        device: str | None = None,
        refuse: bool = True,
    ) -> None:
        require_at_least({"replay": replay}, 0)
        self.full = full
        self.replay = replay
        self.device = device
        self.refuse = refuse
        # Report of each file, or the message of the error by which checking failed.
        self._reports: dict[Path, CheckReport | str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the file, log the result, and raise an error if the file fails."""
        given = contract.known_property(trainer, "path")
        if given is None:
            raise contract.ContractError(
                "DatasetReport needs a data module with the `path` of its dataset file. Use "
                "SpinlockDataModule, or remove the callback."
            )
        path = Path(given)
        if path not in self._reports:
            found = self._check(path, trainer) if trainer.is_global_zero else ""
            self._reports[path] = trainer.strategy.broadcast(found)
            self._log(trainer, self._reports[path])
        report = self._reports[path]
        if isinstance(report, str):
            raise DatasetError(f"DatasetReport could not check {path}: {report}")
        if report.failures and self.refuse:
            failed = "; ".join(
                f"{row.group}/{row.name}: {row.measured} (target {row.target})"
                for row in report.failures
            )
            raise DatasetError(
                f"{path} fails {len(report.failures)} check(s): {failed}. `spinlock check {path}` "
                "lists all checks. Generate the file again, or set refuse=False to train on it "
                "anyway."
            )

    def _check(self, path: Path, trainer: Trainer) -> CheckReport | str:
        device = self.device
        if device is None and trainer.strategy.root_device.type in ("cpu", "cuda"):
            device = str(trainer.strategy.root_device)
        try:
            generation = contract.known_property(trainer, "generation")
            return check_dataset(
                path,
                full=self.full,
                replay=self.replay,
                trust=() if generation is None else generation.vouched_modules,
                device=device,
                progress=False,
            )
        except (SpinlockError, OSError) as error:
            # The other processes are waiting for the result.
            return str(error)

    def _log(self, trainer: Trainer, report: CheckReport | str) -> None:
        folder = log_folder(trainer)
        if isinstance(report, str) or not trainer.is_global_zero:
            return
        table = report.table()
        rank_zero_info(table)
        folder.mkdir(parents=True, exist_ok=True)
        with unused_path(folder / "dataset_report.txt").open("x", encoding="utf-8") as file:
            file.write(table + "\n")
        for logger in trainer.loggers:
            logger.log_metrics(_values(report), step=trainer.global_step)
            experiment: Any = getattr(logger, "experiment", None)
            if hasattr(experiment, "add_text"):
                # The text is Markdown, in which an indented block keeps its columns.
                text = "\n".join(f"    {line}" for line in table.splitlines())
                experiment.add_text("dataset/report", text, trainer.global_step)


def _values(report: CheckReport) -> dict[str, float]:
    numbers = {
        f"dataset/{_key(row.group)}/{_key(row.name)}": float(row.value)
        for row in report.rows
        if row.value is not None
    }
    return {"dataset/passed": float(report.passed), **numbers}


def _key(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)
