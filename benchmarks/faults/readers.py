"""Everything that reads a dataset file or a checkpoint, as functions to run in a child."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import torch

from benchmarks.faults.processes import command
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.storage import schema

#: A reader of a file; it is run in the folder of the file.
Reader = Callable[[Path], Callable[[], object]]


def training_digest(path: Path, config: GenerationConfig) -> Callable[[], None]:
    """Return a function that prints the digest of everything that a trainer would see."""

    def run() -> None:
        from spinlock import SpinlockDataModule
        from spinlock.errors import SpinlockError

        module = SpinlockDataModule(
            path, config, view="both", realizations="all", batch_size=4, progress=False
        )
        digest = hashlib.sha256()
        try:
            module.setup()
            for batch in module.predict_dataloader():
                for key, value in sorted(batch.items()):
                    digest.update(key.encode())
                    if isinstance(value, torch.Tensor):
                        digest.update(value.contiguous().numpy().tobytes())
        except SpinlockError as error:
            raise SystemExit(f"spinlock: error: {error}") from error
        print(digest.hexdigest())

    return run


def content_digest(path: Path, config: GenerationConfig) -> Callable[[], None]:
    """Return a function that prints the digest of all values in a file, read with h5py alone."""

    def run() -> None:
        digest = hashlib.sha256()
        with h5py.File(path) as file:
            for spec in schema.dataset_specs(config):
                digest.update(repr((file[spec.name].shape, file[spec.name].dtype)).encode())
                digest.update(file[spec.name][...].tobytes())
        print(digest.hexdigest())

    return run


def _outputs() -> Iterator[tuple[str, Reader]]:
    yield "report", lambda path: command("report", path, "--out", path.parent / "out.html")
    yield (
        "plot",
        lambda path: command("plot", path, "--sample", 3, "--out", path.parent / "out.png"),
    )
    yield (
        "export",
        lambda path: command("export", path, "--format", "well", "--out", path.parent / "out"),
    )
    yield "extract-features", lambda path: command("extract-features", path)


#: Readers that describe or check a file, and change nothing.
LOOKING: dict[str, Reader] = {
    "info": lambda path: command("info", path),
    "check": lambda path: command("check", path, "--replay", 0),
    "check --full": lambda path: command("check", path, "--full", "--replay", 1),
}
#: Readers that write a file, beside the dataset or in its place.
WRITING: dict[str, Reader] = dict(_outputs())
