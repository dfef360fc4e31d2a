"""Speed of loading: `python -m benchmarks.loading [--samples 256] [--runs 5]`.

The files are temporary and synthetic (`benchmarks.synthetic`), with real layout and compression but
artificial values, because simulating 10,000 samples would take an hour.

Features: an epoch of 10,000 samples in batches of 512, compared with a plain Dataset (h5py, one
sample at a time, torch's collation), with the same Dataset on columns in memory, and with indexing
tensors in memory in the same random order.

Fields: an epoch in random order over files of 5 realizations of 128 x 128, with and without
compression, compared with h5py reading the uncompressed file sequentially, and with a plain Dataset
on the compressed file. `hot` means that the file is in the page cache, `cold` that it was dropped
from it (Linux only). MB/s count the values of inputs and outputs. Loading uses this process only.

All times are the best of several runs.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import h5py
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.synthetic import write_synthetic
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules import SpinlockDataModule
from spinlock.storage import read_info, schema

Batch = dict[str, Tensor]
FEATURE_SAMPLES, FEATURE_BATCH, FIELD_BATCH = 10_000, 512, 16
# Entries that the plain Dataset reads: entry of the batch -> dataset of the file.
FEATURES = {
    "features": schema.PER_TIMESTEP,
    "initial_features": schema.INITIAL_FEATURES,
    "params": schema.PARAMS,
    "operator": schema.OPERATOR_INDEX,
}
FIELDS = {"input_fields": schema.INPUTS, "output_fields": schema.OUTPUTS}


class PlainDataset(Dataset[Batch]):
    """A plain Dataset that reads one sample at a time."""

    def __init__(self, path: Path, names: dict[str, str], *, in_memory: bool = False) -> None:
        self.file = h5py.File(path)
        self.columns = {key: self.file[name] for key, name in names.items()}
        if in_memory:
            self.columns = {key: column[:] for key, column in self.columns.items()}
        self.count = len(self.file[schema.OPERATOR_INDEX])

    def __len__(self) -> int:
        """Return the number of samples in the file."""
        return self.count

    def __getitem__(self, index: int) -> Batch:
        """Return one sample."""
        return {key: torch.as_tensor(column[index]) for key, column in self.columns.items()}


def ready(path: Path, view: str, batch_size: int) -> SpinlockDataModule:
    """Return a data module that trains on all samples of a file."""
    datamodule = SpinlockDataModule(
        path,
        read_info(path).config,
        view=view,
        realizations="all" if view == "fields" else "mean",
        batch_size=batch_size,
        val_fraction=0.0,
        test_fraction=0.0,
        progress=False,
    )
    datamodule.setup("fit")
    return datamodule


def drop_from_cache(path: Path) -> None:
    """Drop a file from the page cache, so that the next read comes from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def seconds(task: Callable[[], object], runs: int, cold: Path | None = None) -> float:
    """Return the best time of some runs, before each of which a file may leave the cache."""
    best = float("inf")
    for _ in range(runs):
        if cold is not None:
            drop_from_cache(cold)
        start = time.perf_counter()
        task()
        best = min(best, time.perf_counter() - start)
    return best


def exhaust(batches: Iterable[object]) -> None:
    """Iterate over an epoch."""
    for _ in batches:
        pass


def measure_features(folder: Path, runs: int) -> None:
    """Measure and print the scores of the view ``features``."""
    path = folder / "features.h5"
    write_synthetic(path, GenerationConfig(FEATURE_SAMPLES, storage=StorageConfig(fields="none")))
    datamodule = ready(path, "features", FEATURE_BATCH)
    columns = datamodule.train_dataloader().dataset.columns
    order = torch.randperm(FEATURE_SAMPLES, generator=torch.Generator().manual_seed(0))

    def index() -> None:
        for rows in order.split(FEATURE_BATCH):
            for column in columns.values():
                column[rows]

    def plain(in_memory: bool) -> DataLoader[Batch]:
        dataset = PlainDataset(path, FEATURES, in_memory=in_memory)
        return DataLoader(dataset, batch_size=FEATURE_BATCH, shuffle=True)

    times = {
        "Spinlock": seconds(lambda: exhaust(datamodule.train_dataloader()), 4 * runs),
        "indexing tensors": seconds(index, 4 * runs),
        "plain, in memory": seconds(lambda: exhaust(plain(True)), runs),
        "plain, h5py": seconds(lambda: exhaust(plain(False)), 1),
    }
    print(
        f"features: {FEATURE_SAMPLES} samples, batches of {FEATURE_BATCH}, {len(columns)} entries"
    )
    for name, spent in times.items():
        ratio = spent / times["Spinlock"]
        print(f"  {name:<18} {FEATURE_SAMPLES / spent:12,.0f} samples/s  time x{ratio:.2f}")

    prepared = SpinlockDataModule(path, datamodule.generation, progress=False)
    print(
        f"  prepare_data with the file complete: {seconds(prepared.prepare_data, 9) * 1e3:.1f} ms"
    )
    fresh = seconds(lambda: ready(path, "features", FEATURE_BATCH), runs)
    print(f"  setup: {fresh * 1e3:.1f} ms")


def read_sequentially(path: Path) -> None:
    """Read all fields sequentially, one batch at a time."""
    with h5py.File(path) as file:
        for start in range(0, len(file[schema.INPUTS]), FIELD_BATCH):
            for name in FIELDS.values():
                file[name][start : start + FIELD_BATCH]


def measure_fields(folder: Path, samples: int, runs: int) -> None:
    """Measure and print the scores of the view ``fields``."""
    config = GenerationConfig(samples)
    raw = dataclasses.replace(config, storage=StorageConfig(compression="none"))
    paths = {"deflate": folder / "deflate.h5", "none": folder / "none.h5"}
    write_synthetic(paths["deflate"], config)
    write_synthetic(paths["none"], raw)
    summary = read_info(paths["deflate"]).run_summary
    megabytes = summary["field_bytes"] / 1e6
    print(
        f"fields: {samples} samples, {megabytes:.0f} MB of values, compressed to "
        f"{summary['compression_ratio']:.3f}, batches of {FIELD_BATCH}"
    )
    loaders = {name: ready(path, "fields", FIELD_BATCH) for name, path in paths.items()}
    plain = DataLoader(PlainDataset(paths["deflate"], FIELDS), batch_size=FIELD_BATCH, shuffle=True)
    tasks: dict[str, tuple[Callable[[], object], Path]] = {
        "h5py, sequential, none": (lambda: read_sequentially(paths["none"]), paths["none"]),
        "Spinlock, none": (lambda: exhaust(loaders["none"].train_dataloader()), paths["none"]),
        "Spinlock, deflate": (
            lambda: exhaust(loaders["deflate"].train_dataloader()),
            paths["deflate"],
        ),
        "h5py, sequential, deflate": (
            lambda: read_sequentially(paths["deflate"]),
            paths["deflate"],
        ),
        "plain, deflate": (lambda: exhaust(plain), paths["deflate"]),
    }
    print(f"  {'MB/s':<26} {'hot':>8} {'cold':>8}")
    for name, (task, path) in tasks.items():
        hot = megabytes / seconds(task, runs)
        cold = "-"
        if hasattr(os, "posix_fadvise"):
            cold = f"{megabytes / seconds(task, runs, cold=path):8.0f}"
        print(f"  {name:<26} {hot:8.0f} {cold:>8}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=256, help="of the files with fields")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(args)
    print(f"{torch.get_num_threads()} threads, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        measure_features(Path(folder), options.runs)
        measure_fields(Path(folder), options.samples, options.runs)


if __name__ == "__main__":
    main()
