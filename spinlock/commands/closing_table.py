"""The table at the end of ``spinlock fit``: scores, files, and commands to try next."""

import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning import Trainer

from spinlock.commands.config_writer import ConfigWriter
from spinlock.datamodules import SpinlockDataModule
from spinlock.runtime.output_files import unused_path
from spinlock.runtime.progress import printable

Rows = dict[str, str]


def closing_table(trainer: Trainer) -> str:
    """Describe what a fit has learned, where its files are, and what to do next.

    The scores are those that the model and the callbacks logged in the last validation; nothing is
    computed here. What was not logged or not written, or is not finite, is left out. All processes
    must call, since they agree on the folder of the logs.

    Args:
        trainer: Trainer whose fit has ended.

    Example:
        >>> closing_table(Trainer(logger=False, enable_checkpointing=False)).strip()
        ''
    """
    folder = Path(trainer.log_dir) if trainer.loggers and trainer.log_dir else None
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    dataset = dataset_of(trainer)
    checkpoint = _checkpoint(trainer)
    files = _log_files(folder)
    if dataset is not None:
        files = {"dataset": dataset, **files}
    if checkpoint is not None:
        files["checkpoint"] = checkpoint + _criterion(trainer, checkpoint)
    blocks = {"Last validation": dict(_scores(values)), "Files": files}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    parts = [_block(title, rows, width) for title, rows in blocks.items() if rows]
    if commands := list(_commands(trainer, dataset, checkpoint, folder)):
        parts.append("\n".join(["Next", *(_shell_lines(command, width) for command in commands)]))
    return "\n" + "\n\n".join(parts)


def program() -> str:
    """Return how this program was started: ``spinlock`` or ``python -m spinlock``."""
    return "python -m spinlock" if Path(sys.argv[0]).name == "__main__.py" else "spinlock"


def dataset_of(trainer: Trainer) -> str | None:
    """Return the dataset file of a trainer's data module as it is shown, or None without one."""
    # Trainer.datamodule exists at runtime once data are attached, but it is not declared.
    data = getattr(trainer, "datamodule", None)
    # Data modules of users may have a path of something else.
    return shown_path(data.path) if isinstance(data, SpinlockDataModule) else None


def shown_path(path: Path) -> str:
    """Return a path relative to the current folder if it lies in it."""
    here = Path.cwd()
    path = here / path
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def codebook_command(tokens: Path, dataset: str) -> str:
    """Return the command that draws the page of a token file, ``codebook-v1.html`` of tokens-v1."""
    version = re.search(r"-v\d+$", tokens.stem)
    out = unused_path(Path(f"codebook{version[0] if version else ''}.html"))
    return _command("codebook", tokens, "--dataset", dataset, "--out", out)


def _scores(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Yield the title and the text of each score that was logged."""

    def text(key: str, explanation: str) -> str:
        # Adding zero turns -0.0 into 0.0.
        return f"{round(values[key], 3) + 0.0:>6.3f}   {explanation}".rstrip()

    if "val/r2" in values:
        yield "R2", text("val/r2", "of the features decoded from a token; 1 is perfect")
    if "val/held_out/r2" in values:
        yield "R2, held out", text("val/held_out/r2", "of variants left out of training")
    if "codebook/usage" in values:
        number = values.get("codebook/perplexity")
        effective = "" if number is None else f"; effective number {number:.1f}"
        yield "usage", text("codebook/usage", f"of the codes occur in validation{effective}")
    if "ic/family_ami" in values:
        null, p_value = values.get("ic/family_ami_null_95"), values.get("ic/family_p_value")
        against = "" if null is None else f"; by chance below {null:.3f} (95%)"
        against += "" if p_value is None else f", p = {p_value:.2g}"
        explanation = f"AMI with the family{against}"
        yield "token-family information", text("ic/family_ami", explanation)
    if "consistency/same_token" in values:
        explanation = "above chance; 1 if all probes of an operator share it"
        yield "same-token rate", text("consistency/same_token", explanation)


def _log_files(folder: Path | None) -> Rows:
    """Return the files that loggers and callbacks have written to the folder of the logs."""
    if folder is None:
        return {}
    rows = {"logs": shown_path(folder)}
    if (table := folder / "metrics.csv").exists():
        rows["logs"] = shown_path(table)
    elif any(folder.glob("events.out.tfevents.*")):
        rows["logs"] += f"   (tensorboard --logdir {shlex.quote(shown_path(folder))})"
    if (plots := folder / "plots").exists():
        rows["plots"] = shown_path(plots)
    return rows


def _checkpoint(trainer: Trainer) -> str | None:
    """Return the best checkpoint, or else the last one."""
    saver = trainer.checkpoint_callback
    names = ("best_model_path", "last_model_path")
    paths = [getattr(saver, name, "") for name in names]
    return next((shown_path(Path(path)) for path in paths if path and os.path.exists(path)), None)


def _criterion(trainer: Trainer, checkpoint: str) -> str:
    """Return the score by which a checkpoint is the best one, or nothing."""
    saver = trainer.checkpoint_callback
    monitor, best = getattr(saver, "monitor", None), getattr(saver, "best_model_path", "")
    is_best = monitor is not None and best and shown_path(Path(best)) == checkpoint
    return f"   (best {monitor})" if is_best else ""


def _version(folder: Path | None) -> str:
    """Return the suffix of the files of a run: ``-v2`` for ``version_2``, nothing for the first."""
    number = "" if folder is None else folder.name.removeprefix("version_")
    return f"-v{number}" if number.isdecimal() and int(number) else ""


def _commands(
    trainer: Trainer, dataset: str | None, checkpoint: str | None, folder: Path | None
) -> Iterator[str]:
    version = _version(folder)
    if dataset is not None:
        yield _command("report", dataset, "--out", unused_path(Path(f"report{version}.html")))
    # Lightning does not declare the attribute.
    callbacks: list[object] = vars(trainer)["callbacks"]
    configs = [c.path for c in callbacks if isinstance(c, ConfigWriter) and c.path is not None]
    if not configs or checkpoint is None:
        return
    tokens = unused_path(Path(f"tokens{version}.h5"))
    options = ("--config", shown_path(configs[0]), "--ckpt_path", checkpoint, "--out", tokens)
    yield _command("predict", *options)
    if dataset is not None:
        yield codebook_command(tokens, dataset)


def _command(*words: object) -> str:
    """Return a command that can be copied into a shell."""
    return f"{program()} {shlex.join(map(str, words))}"


def _block(title: str, rows: Rows, columns: int | None = None) -> str:
    """Return the lines of a table, wrapped at words to a number of columns."""
    width = max(map(len, rows))
    lines = [title]
    for name, text in rows.items():
        start = f"  {name:<{width}}   "
        # Continued lines begin where explanations do, after the number.
        indent = len(start) + (9 if re.match(r" *-?\d+\.\d{3} ", text) else 0)
        lines.append(_wrapped(start + printable(text), columns, " " * indent))
    return "\n".join(lines)


def _shell_lines(command: str, columns: int | None) -> str:
    """Return a command for a shell, continued where it exceeds a number of columns."""
    if columns is None or len(command) + 2 <= columns:
        return f"  {command}"
    words = re.sub(r" (?=--)", "\n", command).splitlines()
    return "  " + " \\\n      ".join(words)


def _wrapped(line: str, columns: int | None, indent: str) -> str:
    if columns is None or len(line) <= columns:
        return line
    # Runs of spaces align columns, so lines are broken by hand at single ones.
    place = line.rfind(" ", len(indent) + 1, columns + 1)
    if place <= len(indent) or not line[:place].strip():
        return line
    return (
        line[:place].rstrip()
        + "\n"
        + _wrapped(indent + line[place + 1 :].lstrip(), columns, indent)
    )
