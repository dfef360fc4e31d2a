"""Content of files that would harm a reader: control characters, bombs, refusals of the system."""

import dataclasses
import errno
import json
import shutil
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

from spinlock.commands.command_line import main
from spinlock.configuration.config_difference import explain_difference
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError
from spinlock.generation.build import generate
from spinlock.generation.shard_task import ShardTask, compute_shard
from spinlock.storage import read_info, schema
from spinlock.storage.compression import decode_chunk
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.shard_files import list_shards
from spinlock.storage.verify import verify_shard
from tests.helpers import small_config
from tests.storage.rewrites import deflated_twice, filters_in_another_order

CONFIG = small_config(4, grid_size=24, base_channels=(2, 3), num_realizations=2)
# Commands to a terminal: C0, C1, and an override of the direction of text.
CONTROLS = ("\x1b]0;pwn\x07", "a\rb", "\x9b31m", "\u202egnp.exe", "\x7f")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "a.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture
def path(original, tmp_path):
    return shutil.copy(original, tmp_path / "a.h5")


# --------------------------------------------------------------------------- control characters


@pytest.mark.parametrize("text", CONTROLS)
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("device", lambda text: json.dumps([{"type": "cpu", "name": text}])),
        ("device", lambda text: json.dumps([{"type": "cpu", "name": "a", text: ["b"]}])),
        ("package_versions", lambda text: json.dumps([{"torch": {"deep": [text]}}])),
        ("run_summary", lambda text: json.dumps({text: 1.0})),
        ("features", lambda text: json.dumps([{"formula": text.replace("\r", "\b")}])),
        ("digest", str),
        ("fingerprint", str),
    ],
)
def test_control_characters_are_refused(path, capsys, attribute, value, text):
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value(text)
    with pytest.raises(DatasetError, match=attribute) as caught:
        read_info(path)
    assert str(caught.value).isprintable()
    with pytest.raises(DatasetError):
        main(["info", str(path)])
    assert capsys.readouterr().out == ""


def test_formulas_may_have_several_lines_and_any_script(path):
    with h5py.File(path, "r+") as file:
        file.attrs["features"] = json.dumps([{"formula": "⟨u⟩\n\t+ größe"}])
    assert read_info(path).provenance["features"] == [{"formula": "⟨u⟩\n\t+ größe"}]


@pytest.mark.parametrize("text", CONTROLS)
def test_differences_are_explained_without_control_characters(text):
    weights = {"gaussian_noise_1": 1.0}
    custom = {"mine": {"class_path": "a.B", "init_args": {text: text}}}
    mixture = dataclasses.replace(CONFIG.initial_conditions, weights=weights, custom=custom)
    explained = explain_difference(dataclasses.replace(CONFIG, initial_conditions=mixture), CONFIG)
    assert explained.isprintable()
    assert "initial_conditions.weights" in explained


@pytest.mark.parametrize("number", [10**400, -(10**30)])
def test_numbers_beyond_64_bits_are_refused(path, number):
    with h5py.File(path, "r+") as file:
        file.attrs["run_summary"] = json.dumps({"seconds": number})
    with pytest.raises(DatasetError, match="run_summary must be a mapping to numbers"):
        read_info(path)


# ------------------------------------------------------------------------------- chunks


def test_a_bomb_is_not_expanded():
    bomb = zlib.compress(bytes(1 << 28))
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not expand to its 64 bytes"):
        decode_chunk(bomb, "deflate", (4, 4), np.dtype(np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_bomb_in_a_file_is_damage(path):
    with h5py.File(path, "r+") as file:
        offset = (2, 0, 0, 0, 0)
        file[schema.OUTPUTS].id.write_direct_chunk(offset, zlib.compress(bytes(1 << 26)))
    with pytest.raises(DatasetError, match="outputs/fields of sample 2 is damaged"):
        FieldReader(path, CONFIG).read(schema.OUTPUTS, np.array([1, 2]))


@pytest.mark.parametrize("repack", [deflated_twice, filters_in_another_order])
def test_readers_agree_on_how_this_package_packs(tmp_path, repack):
    """What the copying of chunks reads by value, the field reader refuses."""
    config = small_config(2, base_channels=(2, 3), num_realizations=2)
    path = tmp_path / "a.h5"
    generate(config, path, progress=False)
    place = (slice(0, 3), slice(0, 32), slice(0, 32))
    with DatasetFile.open(path) as dataset:
        assert dataset.packed_chunk(schema.INPUTS, 0, place) is not None
        values = dataset.chunk(schema.INPUTS, 0, place)
    FieldReader(path, config)
    with h5py.File(path, "r+") as file:
        repack(file)
    with DatasetFile.open(path) as dataset:
        assert dataset.packed_chunk(schema.INPUTS, 0, place) is None
        np.testing.assert_array_equal(dataset.chunk(schema.INPUTS, 0, place), values)
    with pytest.raises(DatasetError, match="another program has repacked it"):
        FieldReader(path, config)


# ------------------------------------------------------------------------------- refusals

REFUSALS = [
    *(OSError(number, "refused") for number in (errno.EACCES, errno.EIO, errno.ESTALE)),
    OSError(errno.EMFILE, "refused"),
    MemoryError("refused"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
@pytest.mark.parametrize("call", ["h5py.File.__init__", "h5py.Dataset.__getitem__", "chunk"])
def test_a_refusal_of_the_system_is_no_damage(tmp_path, monkeypatch, refusal, call):
    compute_shard(ShardTask(CONFIG, tmp_path, 0, 2))
    (shard,) = list_shards(tmp_path)

    def refuse(*args, **options):
        raise refusal

    chunk = "spinlock.storage.dataset_file.DatasetFile.packed_chunk"
    monkeypatch.setattr(chunk if call == "chunk" else call, refuse)
    with pytest.raises(type(refusal), match="refused"):
        verify_shard(shard, CONFIG)
    monkeypatch.undo()
    verify_shard(shard, CONFIG)
