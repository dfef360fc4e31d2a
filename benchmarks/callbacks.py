"""Overhead of the callbacks: `python -m benchmarks.callbacks [--device cuda] [--timesteps 50]`.

Times validation epochs of 10,000 samples in memory, from the start of the epoch to its last log,
without callbacks and with all of them (with ``--each`` also with each alone), in turn. Operators
and labels are those of the baseline's design with two probes each; features depend on the design's
parameters, plus noise. The reported times are medians over several rounds, and reported differences
are medians of the differences within rounds. The models are trained for two short epochs first:
FeatureVQVAE on features of one timestep, SequenceVQVAE on those of ``--timesteps`` timesteps, and
a convolutional encoder on ``--grid`` fields, which stands for models that read the simulations
themselves. Plots, which are drawn every tenth epoch, are timed separately.
"""

import argparse
import contextlib
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.machine import describe
from spinlock import callbacks
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules import BaseDataModule
from spinlock.datamodules.labels import labels_of_design
from spinlock.models import FeatureVQVAE, LossConfig, SequenceVQVAE
from spinlock.simulation.sobol_design import make_design

SAMPLES, PROBES, CHANNELS = 10_000, 2, 3
Batch = dict[str, Tensor]
CONDITIONS = ("initial_features", "variant")
# The data are features of output fields.
SETTINGS: dict[str, Any] = {
    "num_features": 46,
    "num_dynamics": 0,
    "num_initial_features": 46,
    "encoder_conditions": CONDITIONS,
    "decoder_conditions": CONDITIONS,
    "normalization": "variant",
    "loss": LossConfig(other_probe=0.0, alignment=0.0),
}


class Rows(torch.utils.data.Dataset[Batch]):
    """Columns in memory; each column of a batch is one indexed read."""

    def __init__(self, columns: Batch) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitems__(self, rows: list[int]) -> Batch:
        return {key: column[rows] for key, column in self.columns.items()}

    def __getitem__(self, row: int) -> Batch:
        return {key: column[row] for key, column in self.columns.items()}


def as_it_is(batch: Any) -> Any:  # noqa: ANN401 (a whole batch already)
    """Return the batch, which needs no collation."""
    return batch


class Data(BaseDataModule):
    """All samples as training split, and two validation loaders with half of them each."""

    def __init__(self, batch_size: int, timesteps: int, grid: int) -> None:
        config = GenerationConfig(SAMPLES, probes_per_operator=PROBES)
        super().__init__(config, batch_size)
        generator = torch.Generator().manual_seed(0)
        labels = labels_of_design(make_design(config), self.label_names, CHANNELS)
        initial = torch.randn(self.num_variants, 46, generator=generator)[labels["variant"]]
        initial = initial + 0.3 * torch.randn(SAMPLES, 46, generator=generator)
        features = (labels["params"] - 0.5) @ torch.randn(15, 46, generator=generator)
        features = features + 0.3 * initial
        self.columns = {**labels, "initial_features": initial, "features": features}
        if timesteps > 1:
            drift = torch.randn(SAMPLES, timesteps, 46, generator=generator).cumsum(1)
            self.columns["features"] = features[:, None] + 0.1 * drift
        if grid:
            shape = (SAMPLES, 1, CHANNELS, grid, grid)
            self.columns["output_fields"] = torch.randn(shape, generator=generator)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of all samples."""
        return self._loader(slice(None))

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Return two loaders with half of the samples each."""
        half = SAMPLES // 2
        return [self._loader(slice(half)), self._loader(slice(half, None))]

    def _loader(self, rows: slice) -> DataLoader[Batch]:
        columns = {key: column[rows] for key, column in self.columns.items()}
        return DataLoader(Rows(columns), self.batch_size, collate_fn=as_it_is)


class FieldVQVAE(FeatureVQVAE):
    """FeatureVQVAE that adds features of the fields, computed by convolutions, to the others."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 (those of FeatureVQVAE)
        super().__init__(**settings)
        layers: list[nn.Module] = []
        for inputs, outputs in ((CHANNELS, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, settings["num_features"])

    def _rows(self, batch: Batch) -> Batch:
        seen = self.head(self.encoder(batch["output_fields"].mean(1)))
        return {**batch, "features": batch["features"] + seen}


class Timer(Callback):
    """Measures the seconds of the last validation epoch; must be the first callback."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.device = device
        self.clock = clock
        self.started = self.seconds = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = self._now()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.seconds = self._now() - self.started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


def quiet() -> dict[str, Any]:
    """Return settings of a trainer that prints and writes nothing."""
    return {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }


def observers(plots: int, detailed: bool) -> dict[str, Callable[[], Callback]]:
    """Return a constructor of each callback that works during epochs, by name."""
    options: dict[str, Any] = {"plots_every_n_epochs": plots, "detailed": detailed}
    return {
        "FiniteCheck": callbacks.FiniteCheck,
        "ICMutualInformation": lambda: callbacks.ICMutualInformation(**options),
        "CodebookUsage": lambda: callbacks.CodebookUsage(**options),
        "ReconstructionByGroup": lambda: callbacks.ReconstructionByGroup(**options),
        "OperatorConsistency": lambda: callbacks.OperatorConsistency(detailed=detailed),
        "TokenTransfer": callbacks.TokenTransfer,
    }


def epoch_seconds(
    model: LightningModule,
    data: LightningDataModule,
    device: torch.device,
    runs: int,
    settings: dict[str, list[Callback]],
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Return times of validation epochs under each setting, in turn, without the first round."""
    trainers = {}
    for name, chosen in settings.items():
        timer = Timer(device, clock)
        accelerator = "gpu" if device.type == "cuda" else "cpu"
        options = {**quiet(), "accelerator": accelerator, "devices": 1}
        trainers[name] = (timer, Trainer(callbacks=[timer, *chosen], **options))
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(runs + 1):
        for name, (timer, trainer) in trainers.items():
            trainer.validate(model, data, verbose=False)
            seconds[name].append(timer.seconds)
    return {name: times[1:] for name, times in seconds.items()}


def report(
    label: str,
    model: LightningModule,
    data: Data,
    device: torch.device,
    runs: int,
    clock: Callable[[], float],
    each: bool,
) -> None:
    """Train for two short epochs, then print times."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    options = {**quiet(), "accelerator": accelerator, "devices": 1}
    # Two epochs: the codebook is made after the warm-up of its schedule.
    Trainer(max_epochs=2, limit_train_batches=10, limit_val_batches=0, **options).fit(model, data)
    makers = observers(plots=0, detailed=False)
    settings: dict[str, list[Callback]] = {"none": []}
    settings["all"] = [make() for make in makers.values()]
    if each:
        settings |= {name: [make()] for name, make in makers.items()}
    settings["all, detailed"] = [make() for make in observers(plots=0, detailed=True).values()]
    settings["all, with plots"] = [make() for make in observers(plots=1, detailed=False).values()]
    seconds = epoch_seconds(model, data, device, runs, settings, clock)
    alone = seconds.pop("none")
    base = median(alone)
    print(f"{label}: validation epoch of {SAMPLES} samples without callbacks {base * 1e3:.0f} ms")
    for name, spent in seconds.items():
        added = median(with_them - without for with_them, without in zip(spent, alone, strict=True))
        print(f"  {name:<22} {added * 1e3:+8.1f} ms  {added / base:+8.1%}")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and print the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--timesteps", type=int, default=50)
    parser.add_argument(
        "--grid", type=int, default=128, help="grid size, default: 128 as in the baseline"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU time of one thread, for a busy machine"
    )
    parser.add_argument("--each", action="store_true", help="also time each callback alone")
    parser.add_argument("--models", nargs="+", default=["features", "sequence", "fields"])
    options = parser.parse_args(args)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device = torch.device(options.device)
    if options.cpu_time:
        torch.set_num_threads(1)
    clock = time.thread_time if options.cpu_time else time.perf_counter
    print(f"on {describe(device)}, batches of {options.batch_size}")
    cases: dict[str, tuple[str, type[LightningModule], int, int]] = {
        "features": ("FeatureVQVAE, T = 1", FeatureVQVAE, 1, 0),
        "sequence": (
            f"SequenceVQVAE, T = {options.timesteps}",
            SequenceVQVAE,
            options.timesteps,
            0,
        ),
        "fields": (f"fields of {options.grid}x{options.grid}", FieldVQVAE, 1, options.grid),
    }
    # Without a logger, plots go to the current folder.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in options.models:
            label, model, timesteps, grid = cases[name]
            data = Data(options.batch_size, timesteps, grid)
            report(label, model(**SETTINGS), data, device, options.runs, clock, options.each)


if __name__ == "__main__":
    main()
