"""Where figures go: to the loggers that take them, else to files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from spinlock.runtime.output_files import unused_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_folder(trainer: Trainer) -> Path:
    """The folder of the trainer's logs; every process must ask, since they agree on one."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def log_figures(trainer: Trainer, figures: Mapping[str, "Figure"], folder: Path) -> None:
    """Give figures to each logger that takes figures, or write them as PNG files.

    Loggers that take figures are those whose ``experiment`` has ``add_figure`` (TensorBoard) or
    that have ``log_image`` (Weights & Biases). Without one, the files are
    ``FOLDER/figures/NAME/step_STEP.png``, or ``step_STEP-v1.png`` and so on where that is taken.

    Args:
        trainer: On the process of rank zero.
        figures: Name -> figure.
        folder: The folder of :func:`log_folder`.
    """
    step = trainer.global_step
    takers = [give for logger in trainer.loggers if (give := _taker(logger)) is not None]
    for name, figure in figures.items():
        for give in takers:
            give(name, figure, step)
        if not takers:
            path = folder / "figures" / name / f"step_{step}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with unused_path(path).open("xb") as file:
                figure.savefig(file, format="png")


def _taker(logger: Any) -> Any:  # noqa: ANN401 (loggers share no type that takes figures)
    """A function of name, figure and step, None where the logger takes no figures."""
    if hasattr(logger, "log_image"):
        return lambda name, figure, step: logger.log_image(key=name, images=[figure], step=step)
    add_figure = getattr(getattr(logger, "experiment", None), "add_figure", None)
    if add_figure is None:
        return None
    return lambda name, figure, step: add_figure(name, figure, global_step=step)
