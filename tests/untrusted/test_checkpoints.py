"""No class that a checkpoint names is imported, and no checkpoint is unpickled."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.errors import DatasetError, SpinlockError
from spinlock.models import FeatureVQVAE
from spinlock.runtime.checkpoint_file import check_checksums
from tests.untrusted.forged_checkpoints import (
    INSTANTIATOR,
    RESUMING,
    copied,
    predict_command,
    trainer_entry,
    write_checkpoint,
)
from tests.untrusted.forged_configurations import names
from tests.untrusted.scene import CONFIG

pytestmark = pytest.mark.slow


def classes(s):
    """Classes that a checkpoint names for its model."""
    return {
        "command": "subprocess.Popen",
        "module": f"{s.module}.Other",
        "module like the package": f"spinlock_{s.module}.Other",
        "relative": f"spinlock..{s.module}.Other",
        "file": f"spinlock.{s.folder}/modules/{s.module}.Other",
        "no model": "spinlock.callbacks.TokenWriter",
        "function": "spinlock.commands.command_line.main",
        "nothing": "spinlock.models.Nothing",
        "number": 5,
    }


@pytest.mark.parametrize("attack", names(classes))
def test_the_class_of_a_checkpoint_is_not_imported(scene, good_checkpoint, attack):
    forged = copied(good_checkpoint)
    forged["hyper_parameters"] |= {
        "_class_path": classes(scene)[attack],
        "_instantiator": INSTANTIATOR,
        "path": str(scene.mark),
        "evil": scene.command,
    }
    path = write_checkpoint(scene, forged)
    # A model or one clear error; the yaml file, or the caller, names the class.
    predict_command(scene, path)
    scene.run(lambda: FeatureVQVAE.load_from_checkpoint(path))


@pytest.mark.parametrize(
    "path",
    [
        "spinlock.commands.trainer_cli.LightningModule",
        "spinlock.models.resumable.LightningModule",
        "spinlock.callbacks.TokenWriter",
        "spinlock.commands.command_line.main",
    ],
)
def test_a_checkpoint_names_models_of_this_package_only(scene, good_checkpoint, path):
    """What its modules import is not theirs."""
    forged = copied(good_checkpoint)
    forged["hyper_parameters"] |= {"_class_path": path, "_instantiator": INSTANTIATOR}
    outcome = predict_command(scene, write_checkpoint(scene, forged))
    assert f"{path} is not a model of this package" in outcome.error


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("where", ["state_dict", "SpinlockDataModule", "hyper_parameters", "new"])
def test_a_checkpoint_is_not_unpickled(scene, good_checkpoint, where):
    forged = copied(good_checkpoint)
    forged.setdefault(where, {})["evil"] = Payload(scene.mark)
    path = scene.folder / "forged.ckpt"
    torch.save(forged, path)
    for load in (
        trainer_entry("fit"),
        trainer_entry("test"),
        lambda s, p: FeatureVQVAE.load_from_checkpoint(p),
        lambda s, p: SpinlockDataModule.load_from_checkpoint(p),
    ):
        # Of torch: nothing of this package comes before.
        with pytest.raises((pickle.UnpicklingError, SpinlockError)):
            load(scene, path)
        scene.assert_nothing_happened()
    outcome = predict_command(scene, path)
    assert "safe to load" in outcome.error
    assert outcome.error.isprintable()
    assert "--weights_only false" in outcome.error


@pytest.mark.parametrize(
    "content", [b"", b"text\x1b[31m", b"\x80\x02h\xff.", b"\x80\x02X\x01\x00\x00\x00\xff."]
)
def test_what_is_no_checkpoint_is_one_line(scene, content):
    """The unpickler fails with errors of many types."""
    path = scene.folder / "forged.ckpt"
    path.write_bytes(content)
    outcome = predict_command(scene, path)
    assert "safe to load" in outcome.error
    assert outcome.error.isprintable()


def load_model(scene, path):
    return scene.run(lambda: FeatureVQVAE.load_from_checkpoint(path))


def load_data(scene, path):
    return scene.run(lambda: SpinlockDataModule.load_from_checkpoint(path))


FILE_ENTRIES = {name: run for name, run in RESUMING.items() if name != "load_state_dict"}
FILE_ENTRIES |= {"model": load_model, "data module": load_data}


@pytest.mark.parametrize("entry", FILE_ENTRIES)
def test_a_flipped_bit_is_found(scene, good_checkpoint, entry):
    """Otherwise it would be another weight: torch does not compare checksums."""
    path = write_checkpoint(scene, good_checkpoint)
    weights = good_checkpoint["state_dict"]["autoencoder.encoder.0.weight"]
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    outcome = FILE_ENTRIES[entry](scene, path)
    assert "checksum" in outcome.error
    assert outcome.error.isprintable()


@pytest.mark.parametrize("where", ["start", "middle", "end", "length"])
def test_a_damaged_archive_is_found(scene, good_checkpoint, where):
    path = write_checkpoint(scene, good_checkpoint)
    content = bytearray(path.read_bytes())
    if where == "length":
        del content[-20:]
    else:
        place = {"start": 26, "middle": len(content) // 2, "end": -22}[where]
        content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert "damaged" in FILE_ENTRIES["spinlock predict"](scene, path).error


def test_entries_that_torch_does_not_write_are_not_read(tmp_path):
    """A small file could hold entries of any size."""
    path = tmp_path / "a.ckpt"
    torch.save({"values": torch.zeros(10)}, path)
    check_checksums(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/more", bytes(1 << 20))
    with pytest.raises(DatasetError, match="not one that torch writes"):
        check_checksums(path)


def test_a_checkpoint_without_checksums_is_explained(tmp_path):
    path = tmp_path / "a.ckpt"
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save({"values": torch.zeros(10)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    with pytest.raises(DatasetError, match=r"saved without them .*set_crc32_options"):
        check_checksums(path)


def test_unpickling_is_the_users_decision(scene, good_checkpoint):
    forged = copied(good_checkpoint) | {"new": Payload(scene.mark)}
    path = scene.folder / "forged.ckpt"
    torch.save(forged, path)
    scene.trusting = True
    assert predict_command(scene, path, "--weights_only", "false").error == ""
    assert scene.mark.exists()


@pytest.mark.parametrize("entry", ["spinlock predict", "spinlock fit"])
def test_a_checkpoint_from_elsewhere_is_not_unpickled(scene, good_checkpoint, entry, monkeypatch):
    """Lightning unpickles downloaded files unless `weights_only` forbids it."""
    asked = []

    def download(url, *, weights_only=False, **options):
        asked.append(weights_only)
        return copied(good_checkpoint)

    class Elsewhere:
        """A file system in which everything is there."""

        def exists(self, path):
            return True

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    files = "lightning.fabric.plugins.io.torch_io.get_filesystem"
    monkeypatch.setattr(files, lambda path: Elsewhere())
    outcome = RESUMING[entry](scene, "http://localhost/model.ckpt")
    assert outcome.error or asked
    assert all(asked)


@pytest.mark.parametrize("entry", RESUMING)
def test_a_good_checkpoint_is_accepted(scene, good_checkpoint, entry):
    outcome = RESUMING[entry](scene, write_checkpoint(scene, good_checkpoint))
    assert outcome.error == ""
    assert (scene.folder / "tokens.h5").exists() == (entry == "spinlock predict")


def test_a_good_checkpoint_loads(scene, good_checkpoint):
    path = write_checkpoint(scene, good_checkpoint)
    module = SpinlockDataModule.load_from_checkpoint(path, path=str(scene.data))
    module.setup()
    assert module.generation == CONFIG
    model = FeatureVQVAE.load_from_checkpoint(path)
    assert model.hparams["latent_dim"] == 2
