"""Damages and forges files, and reads them with everything that reads files.

The readers must succeed or end with one clear line. `check --full` must find every change of a
value, and a data module must refuse the file or return the batches of the undamaged one.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from benchmarks.faults.byte_mutations import Change, byte_mutations, structure_of
from benchmarks.faults.forged_files import Forgery, forgeries_of
from benchmarks.faults.processes import Outcome, command, observe
from benchmarks.faults.readers import LOOKING, WRITING, content_digest, training_digest
from benchmarks.faults.verdicts import Tally, changes, problems_of, snapshot
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.generation.build import generate
from tests.helpers import small_config
from tests.storage.forgeries import Victims
from tests.storage.virtual_files import virtual

SINGLE = small_config(
    10,
    block_size=2,
    grid_size=24,
    base_channels=(2, 3),
    num_realizations=2,
    channels=2,
    probes_per_operator=2,
    num_timesteps=2,
    dynamics=True,
)
VIRTUAL = virtual(SINGLE)


@dataclass(frozen=True)
class Original:
    """An undamaged dataset and what it holds.

    Args:
        name: Name of the layout.
        path: Dataset file.
        config: Configuration of the dataset.
        content: Digest of its values.
        batches: Digest of the batches that a trainer sees.
    """

    name: str
    path: Path
    config: GenerationConfig
    content: str
    batches: str

    @property
    def files(self) -> list[Path]:
        """The dataset file, and the shards of a virtual dataset."""
        return [self.path, *sorted(Path(f"{self.path}.shards").rglob("*.h5"))]

    def copy(self, folder: Path) -> Path:
        """Copy all files into a new folder, and return the path of the dataset file."""
        folder.mkdir()
        path = Path(shutil.copy(self.path, folder / self.path.name))
        if os.path.isdir(f"{self.path}.shards"):
            shutil.copytree(f"{self.path}.shards", f"{path}.shards")
        return path


def originals(folder: Path) -> Iterator[Original]:
    """Generate the undamaged files of both layouts."""
    for name, config in (("single", SINGLE), ("virtual", VIRTUAL)):
        path = folder / f"{name}.h5"
        generate(config, path, progress=False)
        Path(f"{path}.lock").unlink(missing_ok=True)
        digests = [
            observe(run, folder).out.strip()
            for run in (content_digest(path, config), training_digest(path, config))
        ]
        if not all(digests):
            raise RuntimeError(f"the undamaged file {path} cannot be read")
        yield Original(name, path, config, *digests)


class FileTrials:
    """Runs the readers on changed files.

    Args:
        original: Undamaged dataset.
        folder: Folder for the changed files.
        tally: Counts and faults.
    """

    def __init__(self, original: Original, folder: Path, tally: Tally) -> None:
        self._original, self._folder, self._tally = original, folder, tally
        self._turns = itertools.cycle(("check", *WRITING))

    def bytes_changed(self, name: str, change: Change, file: Path) -> None:
        """Try a file of the dataset some of whose bytes are changed."""
        path = self._original.copy(self._folder / "trial")
        target = path.parent / file.relative_to(self._original.path.parent)
        content = bytearray(target.read_bytes())
        change(content)
        target.write_bytes(content)
        self._try(f"{target.name}, {name}", path)

    def forged(self, name: str, forgery: Forgery, file: Path) -> None:
        """Try a file of the dataset that a stranger forged."""
        path = self._original.copy(self._folder / "trial")
        target = path.parent / file.relative_to(self._original.path.parent)
        home = self._folder / "home"
        home.mkdir()
        victims = Victims(home)
        try:
            with h5py.File(target, "r+") as opened:
                forgery(opened, victims)
            victims.watch.events()
            self._try(f"{target.name}, {name}", path, victims)
        finally:
            victims.watch.close()
            shutil.rmtree(home)

    def _try(self, name: str, path: Path, victims: Victims | None = None) -> None:
        self._tally.trials += 1
        folder, original = path.parent, self._original
        before = snapshot(folder)
        found = {
            reader: self._run(f"{name}, {reader}", run(path), folder, before, victims)
            for reader, run in LOOKING.items()
            if reader != "check"
        }
        found["setup"] = self._run(
            f"{name}, setup", training_digest(path, original.config), folder, before, victims
        )
        # What h5py reads may lie elsewhere, which the package must refuse in any case.
        values = observe(content_digest(path, original.config), folder)
        if victims is not None:
            victims.watch.events()
        changed = victims is not None or values.out.strip() != original.content
        if changed and values.status >= 0 and found["check --full"].status == 0:
            unsealed = ", sealed" not in name and values.out.strip() != original.content
            if unsealed:
                self._tally.fault(f"{name}: `check --full` passes, although values differ")
        batches = found["setup"]
        other = batches.out.strip() != original.batches
        if batches.status == 0 and other and ", sealed" not in name:
            self._tally.fault(f"{name}: a data module returns other batches")
        reader = next(self._turns)
        run = (LOOKING | WRITING)[reader]
        self._run(f"{name}, {reader}", run(path), folder, before, victims)
        shutil.rmtree(folder)

    def _run(
        self,
        name: str,
        run: Callable[[], object],
        folder: Path,
        before: dict[str, str],
        victims: Victims | None,
    ) -> Outcome:
        outcome = observe(run, folder)
        problems = problems_of(outcome, report="check" in name)
        succeeded = outcome.status == 0
        if not (succeeded and any(name.endswith(writer) for writer in WRITING)):
            # The lock stays, because another process may wait for it.
            lock = f"leaves {self._original.path.name}.lock"
            problems += [each for each in changes(before, snapshot(folder)) if each != lock]
        if victims is not None and (harm := victims.harm()):
            problems.append(f"a file that the dataset refers to: {harm}")
        self._tally.note(name, outcome, problems)
        return outcome


def try_files(folder: Path, seed: int, share: float) -> Tally:
    """Run all trials of dataset files, or a share of them."""
    tally = Tally("files")
    for number, original in enumerate(originals(folder)):
        trials = FileTrials(original, folder, tally)
        counts = (150, 0) if original.name == "single" else (50, 60)
        for file, count in zip(original.files[:2], counts, strict=False):
            places = structure_of(file)
            mutations = byte_mutations(seed + number, count, places)
            for name, change in list(mutations.items())[: round(share * count)]:
                trials.bytes_changed(name, change, file)
        with h5py.File(original.path) as opened:
            forgeries = forgeries_of(opened, original.config, seed + number, 60)
        if original.name == "virtual":
            # Those of the structure; the settings are the same as in a single file.
            forgeries = {name: f for name, f in forgeries.items() if "sealed" not in name}
            forgeries = dict(list(forgeries.items())[::2])
        names = list(forgeries)
        for name in names[:: max(1, round(1 / share))]:
            trials.forged(name, forgeries[name], original.path)
    return tally


def try_paths(folder: Path) -> Tally:
    """Name paths that are no dataset files to every command."""
    tally = Tally("paths")
    os.mkfifo(folder / "fifo.h5")
    (folder / "loop.h5").symlink_to("loop.h5")
    (folder / "nowhere.h5").symlink_to("missing/file.h5")
    (folder / "to-fifo.h5").symlink_to("fifo.h5")
    (folder / "folder.h5").mkdir()
    (folder / "empty.h5").touch()
    (folder / "text.h5").write_text("no dataset\x1b[31m\n")
    paths = [*sorted(folder.glob("*.h5")), "/proc/a.h5", "/dev/null", "/dev/full", "/dev/zero"]
    paths += ["a\x1b[31m.h5", "x" * 300 + ".h5", "/proc/self/mem", "text.h5/a.h5", "", "."]
    for path in paths:
        tally.trials += 1
        readers = {
            **{name: command(name, path) for name in ("info", "check", "report")},
            "plot": command("plot", path, "--sample", 0),
            "export": command("export", path, "--format", "well"),
            "extract-features": command("extract-features", path),
            "generate": command(
                "generate", f"--data.path={path}", "--data.generation.num_samples=2"
            ),
            "fit": command("fit", f"--data.path={path}", "--trainer.max_epochs=1"),
        }
        for name, run in readers.items():
            # A dataset is written to where a link leads.
            allowed = name == "generate" and path == folder / "nowhere.h5"
            if name == "generate" and "\x1b" in str(path):
                continue
            before = snapshot(folder)
            outcome = observe(run, folder)
            problems = problems_of(outcome, report=name == "check")
            if outcome.status == 0 and not allowed:
                problems.append("succeeds")
            shutil.rmtree(folder / "missing", ignore_errors=True)
            problems += changes(before, snapshot(folder))
            tally.note(f"{str(path)[:60]!r}, {name}", outcome, problems)
    return tally
