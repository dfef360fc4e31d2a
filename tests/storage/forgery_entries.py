"""Entry points that a forged file is given to."""

import contextlib
import dataclasses
import io
import shutil
from pathlib import Path

import h5py

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.errors import DatasetError
from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_info
from tests.storage.forgeries import CONFIG, LONGER


def serve(path, view):
    module = SpinlockDataModule(path, CONFIG, view=view, progress=False, batch_size=2)
    module.setup()
    for _ in module.predict_dataloader():
        pass


def extend_as_stored(path):
    config = dataclasses.replace(read_info(path).config, num_samples=16)
    generate(config, path, progress=False)


ENTRIES = {
    "extract-features": lambda path, out: main(["extract-features", str(path)]),
    "extract_features": lambda path, out: extract_features(path, max_samples=2, progress=False),
    "generate": lambda path, out: generate(CONFIG, path, progress=False),
    "generate more": lambda path, out: generate(LONGER, path, progress=False),
    "generate more as stored": lambda path, out: extend_as_stored(path),
    "generate a part": lambda path, out: generate_part(LONGER, path, 1, 1, progress=False),
    "assemble": lambda path, out: assemble_parts(LONGER, path),
    "info": lambda path, out: main(["info", str(path)]),
    "plot": lambda path, out: main(["plot", str(path), "--sample", "3", "--out", f"{out}.png"]),
    "report": lambda path, out: main(["report", str(path), "--out", f"{out}.html"]),
    "export": lambda path, out: main(["export", str(path), "--format", "well", "--out", str(out)]),
    "read_info": lambda path, out: read_info(path),
    "features": lambda path, out: serve(path, "features"),
    "sequence": lambda path, out: serve(path, "sequence"),
    "fields": lambda path, out: serve(path, "fields"),
    "both": lambda path, out: serve(path, "both"),
}


def forge(telling, folder, victims, change):
    path = Path(shutil.copy(telling, folder / "data.h5"))
    with h5py.File(path, "r+") as file:
        change(file, victims)
    assert not victims.watch.events()
    return path


def attempt(action, path, out):
    """What an entry point says: the error, and all that it printed."""
    said = io.StringIO()
    error = ""
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            action(path, out)
        except DatasetError as refusal:
            error = str(refusal)
    return error, said.getvalue()
