"""Writes plots to the loggers that take images, or else to files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from spinlock.runtime.output_files import unused_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_folder(trainer: Trainer) -> Path:
    """Return the folder of the trainer's logs; all processes must call, since they agree on it."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def log_plots(trainer: Trainer, plots: Mapping[str, "Figure"], folder: Path) -> None:
    """Give plots to each logger that takes images, or write them as PNG files.

    These are loggers whose ``experiment`` has ``add_figure`` (TensorBoard) or that have
    ``log_image`` (Weights & Biases). Without one, files are ``FOLDER/plots/NAME/step_STEP.png``, or
    ``step_STEP-v1.png`` and so on if that name is taken.

    Args:
        trainer: Trainer on the process of rank zero.
        plots: Plots by name.
        folder: Folder from :func:`log_folder`.
    """
    step = trainer.global_step
    writers = [write for logger in trainer.loggers if (write := _writer(logger)) is not None]
    for name, plot in plots.items():
        for write in writers:
            write(name, plot, step)
        if not writers:
            path = folder / "plots" / name / f"step_{step}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with unused_path(path).open("xb") as file:
                plot.savefig(file, format="png")


def _writer(logger: Any) -> Any:  # noqa: ANN401 (loggers share no type that takes images)
    """A function of name, plot and step; None if the logger takes no images."""
    if hasattr(logger, "log_image"):
        return lambda name, plot, step: logger.log_image(key=name, images=[plot], step=step)
    add_figure = getattr(getattr(logger, "experiment", None), "add_figure", None)
    if add_figure is None:
        return None
    return lambda name, plot, step: add_figure(name, plot, global_step=step)
