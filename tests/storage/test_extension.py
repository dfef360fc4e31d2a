"""A file that is extended keeps what it holds: its samples, and what its user added to it.

Other programs rewrite files; disks damage them, also while they are copied. Whatever happens, the
longer file is the one that would have been generated at once, or there is none and the old file is
as it was.
"""

import dataclasses
import os
import re
import shutil
import stat
import subprocess
import zlib

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.configuration.generation_config import CustomFeatureConfig
from spinlock.errors import DatasetError
from spinlock.generation.build import assemble_parts, generate, generate_part, shard_folder
from spinlock.generation.feature_extraction import extract_features
from spinlock.generation.shard_task import ShardTask, compute_shard
from spinlock.storage import read_info, schema
from tests.helpers import dataset_contents
from tests.storage.sabotage import (
    CONFIG,
    DATASETS,
    FIELDS,
    ThisThread,
    flip,
    flip_when_closed,
    names,
    replace_dataset,
    swap_all_and_seal,
)

SHORT = CONFIG
WHOLE = dataclasses.replace(SHORT, num_samples=20)
OTHER_FEATURES = CustomFeatureConfig(("tests.features.custom_features.mean_modulus",))
COMPRESSIONS = ("deflate", "none")
COLUMNS = tuple(spec.name for spec in schema.dataset_specs(WHOLE) if spec.chunk is None)
TYPES = {spec.name: spec.dtype for spec in schema.dataset_specs(WHOLE)}
# One of each kind.
SOME_DATASETS = (
    *FIELDS,
    schema.PARAMS,
    schema.VALUES,
    schema.IC_TYPES,
    schema.OPERATOR_INDEX,
    schema.PER_TIMESTEP,
    schema.AGGREGATED,
    schema.DIGESTS,
)
OWN_ATTRIBUTES = ("description", "dimensions", "names", "sha256")
# What a refusal tells the user to do.
REMEDY = re.compile(r"[Rr]estore|[Gg]enerate|[Rr]epack|[Rr]ewrite|[Cc]onvert|[Rr]emove|[Mm]ove")


def compressed(config, compression):
    storage = dataclasses.replace(config.storage, compression=compression)
    return dataclasses.replace(config, storage=storage)


class Made:
    """Files that tests copy: 12 samples, 20 generated at once, and shards of those that lack."""

    def __init__(self, folder):
        self.folder = folder
        for compression in COMPRESSIONS:
            path = folder / f"short-{compression}.h5"
            generate(compressed(SHORT, compression), path, progress=False)
        generate(WHOLE, folder / "whole.h5", progress=False)
        (folder / "shards").mkdir()
        for start in (12, 16):
            compute_shard(ShardTask(WHOLE, folder / "shards", start, start + 4))
        self.contents = dataset_contents(folder / "whole.h5")
        self.attributes = own_attributes(folder / "whole.h5")

    def short(self, folder, compression="deflate", *, shards=True):
        """A copy of the file of 12 samples; the missing ones lie beside it, to save time."""
        path = folder / "a.h5"
        shutil.copy(self.folder / f"short-{compression}.h5", path)
        if shards:
            shutil.copytree(self.folder / "shards", shard_folder(WHOLE, path))
        return path

    def require_whole(self, path, compression="deflate"):
        """The file is the one that generating 20 samples at once makes."""
        assert dataset_contents(path) == self.contents
        assert own_attributes(path) == self.attributes
        assert sorted(os.listdir(path.parent)) == ["a.h5", "a.h5.lock"]
        info = read_info(path)
        assert (info.config.num_samples, info.config.storage.compression) == (20, compression)
        with h5py.File(path) as file:
            for spec in schema.dataset_specs(WHOLE):
                data, packing = file[spec.name], (None, False, None, False)
                if spec.chunk is not None:
                    filters = (True, "gzip") if compression == "deflate" else (False, None)
                    packing = ((1, *spec.chunk), *filters, False)
                found = (data.chunks, data.shuffle, data.compression, data.fletcher32)
                assert (spec.name, found, data.dtype) == (spec.name, packing, spec.dtype)
        report = check_dataset(path, full=True, replay=0, progress=False)
        assert report.passed, report.failures


def own_attributes(path):
    """Attributes of the schema that do not tell of a run, by holder."""
    runs = ("configuration", "run_summary", "attributes_digest")
    with h5py.File(path) as file:
        found = {"/": {n: file.attrs[n] for n in schema.ROOT_ATTRIBUTES if n not in runs}}
        for name in DATASETS:
            attributes = {n: v for n, v in file[name].attrs.items() if n in OWN_ATTRIBUTES}
            found[name] = {n: np.asarray(v).tolist() for n, v in attributes.items()}
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("extension"))


@pytest.fixture(params=COMPRESSIONS)
def compression(request):
    return request.param


def require_untouched(path, before):
    """The file is as it was, and nothing half-written lies about."""
    assert path.read_bytes() == before
    assert set(os.listdir(path.parent)) <= {"a.h5", "a.h5.lock", "a.h5.parts"}
    for leftover in path.with_name("a.h5.parts").rglob("*"):
        assert leftover.is_dir() or re.fullmatch(r"shard-\d{10}-\d{10}\.h5", leftover.name)


def extend(path, compression="deflate", **options):
    generate(compressed(WHOLE, compression), path, progress=False, **options)


def refused(path, match, compression="deflate", **options):
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=match) as caught:
        extend(path, compression, **options)
    require_untouched(path, before)
    return str(caught.value)


# ----------------------------------------------------------------------------- rewritten files


def pack(**options):
    """Both fields stored with other options, in chunks of a sample unless they say otherwise."""

    def rewrite(file):
        for name in FIELDS:
            chunks = {"chunks": own_chunks(name)}
            replace_dataset(file, name, **(chunks | options))

    return rewrite


def own_chunks(name):
    return next((1, *spec.chunk) for spec in schema.dataset_specs(WHOLE) if spec.name == name)


def many_samples_in_a_chunk(file):
    replace_dataset(file, schema.INPUTS, chunks=(5, 3, 32, 32), compression="gzip", shuffle=True)
    replace_dataset(file, schema.OUTPUTS, chunks=(12, 2, 3, 32, 32))


def small_chunks(file):
    replace_dataset(file, schema.INPUTS, chunks=(1, 1, 16, 20), compression="gzip", shuffle=True)
    replace_dataset(file, schema.OUTPUTS, chunks=(1, 1, 3, 32, 32), compression="gzip")


def contiguous(file):
    for name in FIELDS:
        replace_dataset(file, name)


def one_contiguous(file):
    replace_dataset(file, schema.OUTPUTS)


def growing(file):
    for name in FIELDS:
        limits = (None, *file[name].shape[1:])
        chunks = own_chunks(name)
        replace_dataset(
            file, name, chunks=chunks, maxshape=limits, shuffle=True, compression="gzip"
        )


def big_endian(file):
    pack(dtype=">f4", shuffle=True, compression="gzip")(file)


def double_precision(file):
    pack(dtype="<f8", shuffle=True, compression="gzip")(file)


def integers_of_another_width(file):
    replace_dataset(file, schema.GRID_SIZES, dtype="<i8")


def packed_with(set_filters):
    """Both fields in the writer's chunks, through filters that a low-level call chooses."""

    def create(file, name, values):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(own_chunks(name))
        set_filters(plist)
        space = h5py.h5s.create_simple(values.shape)
        link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        link.set_create_intermediate_group(True)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist, link)
        file[name][...] = values

    def rewrite(file):
        for name in FIELDS:
            replace_dataset(file, name, create=create)

    return rewrite


def filters_in_another_order(file):
    packed_with(lambda plist: (plist.set_deflate(2), plist.set_shuffle()))(file)


def deflated_twice(file):
    packed_with(lambda plist: (plist.set_shuffle(), plist.set_deflate(2), plist.set_deflate(2)))(
        file
    )


def mask_filters(file, name, row, mask):
    """Store a sample's chunks without some of the filters (bit 0: shuffle, bit 1: deflate)."""
    data = file[name]
    assert (data.shuffle, data.compression) == (True, "gzip")
    values = data[row]
    if name == schema.INPUTS:
        parts = {(row, 0, 0, 0): values}
    else:
        parts = {(row, 0, c, 0, 0): values[:, c] for c in range(values.shape[1])}
    for offset, part in parts.items():
        chunk = np.ascontiguousarray(part).tobytes()
        if not mask & 1:
            chunk = np.frombuffer(chunk, np.uint8).reshape(-1, 4).T.tobytes()
        if not mask & 2:
            chunk = zlib.compress(chunk)
        data.id.write_direct_chunk(offset, chunk, filter_mask=mask)


def masked(mask):
    """One sample of each of the fields lacks some filters; all other chunks are the writer's."""

    def rewrite(file):
        if file[schema.INPUTS].compression is None:
            pack(shuffle=True, compression="gzip")(file)
        mask_filters(file, schema.INPUTS, 4, mask)
        mask_filters(file, schema.OUTPUTS, 9, mask)

    return rewrite


def no_chunk_through_its_filters(file):
    """The datasets declare filters of which no chunk makes use."""
    pack(shuffle=True, compression="gzip")(file)
    for name in FIELDS:
        for row in range(12):
            mask_filters(file, name, row, 3)


def packed_columns(**options):
    def rewrite(file):
        for name in COLUMNS:
            replace_dataset(file, name, chunks=True, **options)

    return rewrite


def growing_columns(file):
    for name in COLUMNS:
        replace_dataset(file, name, maxshape=(None, *file[name].shape[1:]))


def wide_features(file):
    replace_dataset(file, schema.PER_TIMESTEP, dtype="<f8")


def big_endian_features(file):
    replace_dataset(file, schema.INITIAL_FEATURES, dtype=">f4")


def texts_of_any_length(file):
    """As pandas and others write texts."""

    def create(file, name, values):
        file.create_dataset(name, data=values.astype(str).astype(object), dtype=h5py.string_dtype())

    replace_dataset(file, schema.IC_TYPES, create=create)


def wide_texts(file):
    replace_dataset(file, schema.POLICIES, dtype=h5py.string_dtype("utf-8", 64))


def ascii_digests(file):
    def create(file, name, values):
        file[name] = np.array(values.tolist(), "S64")

    replace_dataset(file, schema.DIGESTS, create=create)


REWRITES = {
    "gzip without shuffle": pack(compression="gzip", compression_opts=4),
    "shuffle and gzip 9": pack(shuffle=True, compression="gzip", compression_opts=9),
    "lzf": pack(compression="lzf"),
    "shuffle and lzf": pack(shuffle=True, compression="lzf"),
    "no filters": pack(),
    "shuffle only": pack(shuffle=True),
    "fletcher32 in addition": pack(shuffle=True, compression="gzip", fletcher32=True),
    "fletcher32 only": pack(fletcher32=True),
    "filters in another order": filters_in_another_order,
    "deflated twice": deflated_twice,
    "many samples in a chunk": many_samples_in_a_chunk,
    "small chunks": small_chunks,
    "contiguous": contiguous,
    "one contiguous": one_contiguous,
    "growing": growing,
    "big-endian": big_endian,
    "double precision": double_precision,
    "a chunk without shuffle": masked(1),
    "a chunk without deflate": masked(2),
    "a chunk without any filter": masked(3),
    "no chunk through its filters": no_chunk_through_its_filters,
}
COLUMN_REWRITES = {
    "columns in chunks": packed_columns(),
    "columns compressed": packed_columns(shuffle=True, compression="gzip", fletcher32=True),
    "columns through lzf": packed_columns(compression="lzf"),
    "growing columns": growing_columns,
    "features in double precision": wide_features,
    "big-endian features": big_endian_features,
    "integers of another width": integers_of_another_width,
    "texts of any length": texts_of_any_length,
    "wide texts": wide_texts,
    "ASCII digests": ascii_digests,
}


def copy_with(**options):
    """The whole file copied object by object into a file of another kind."""

    def rewrite(path):
        new = path.with_name("copied")
        with h5py.File(path) as old, h5py.File(new, "w", **options) as file:
            for name in old:
                old.copy(name, file)
            for name in old.attrs:
                file.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
        new.replace(path)

    return rewrite


def h5repack(*options):
    def rewrite(path):
        if shutil.which("h5repack") is None:
            pytest.skip("h5repack is not installed (hdf5-tools)")
        new = path.with_name("repacked")
        subprocess.run(["h5repack", *options, path, new], check=True, timeout=100)
        new.replace(path)

    return rewrite


FILE_REWRITES = {
    "a block of the user's own": copy_with(userblock_size=512),
    "a new file format": copy_with(libver="latest"),
    "h5repack": h5repack(),
    "h5repack -f GZIP=4": h5repack("-f", "GZIP=4"),
    "h5repack -f SHUF -f GZIP=9": h5repack("-f", "SHUF", "-f", "GZIP=9"),
    "h5repack -f NONE": h5repack("-f", "NONE"),
    "h5repack -f FLET": h5repack("-f", "FLET"),
    "h5repack -l CONTI": h5repack("-f", "NONE", "-l", "CONTI"),
    "h5repack -l CHUNK": h5repack("-l", f"{schema.INPUTS}:CHUNK=2x3x16x16"),
    "h5repack -L": h5repack("-L"),
}


def rewrite(path, how):
    """Have another program rewrite the file; its values stay what they were."""
    before = values_of(path)
    if how in FILE_REWRITES:
        FILE_REWRITES[how](path)
    else:
        with h5py.File(path, "r+") as file:
            (REWRITES | COLUMN_REWRITES)[how](file)
    assert values_of(path) == before


def values_of(path):
    with h5py.File(path) as file:
        return {name: file[name].astype(kind)[...].tobytes() for name, kind in TYPES.items()}


def refusal(function, *arguments):
    """The message with which something is refused; empty if it is done."""
    try:
        function(*arguments)
    except DatasetError as error:
        return str(error)
    return ""


def whole_or_refused(made, path, compression):
    """The file is extended as it should be, or refused with a remedy and left as it was."""
    before = path.read_bytes()
    if message := refusal(extend, path, compression):
        assert REMEDY.search(message), f"no remedy: {message}"
        require_untouched(path, before)
    else:
        made.require_whole(path, compression)


def test_extending_equals_generating_at_once(made, tmp_path, compression):
    """Without shards at hand, as every user would."""
    path = made.short(tmp_path, compression, shards=False)
    extend(path, compression)
    made.require_whole(path, compression)


CASES = [(how, "deflate") for how in (*REWRITES, *COLUMN_REWRITES, *FILE_REWRITES)]
# Where the configuration says that there are no filters.
CASES += [
    (how, "none")
    for how in (
        "gzip without shuffle",
        "shuffle and gzip 9",
        "lzf",
        "shuffle only",
        "fletcher32 only",
        "small chunks",
        "contiguous",
        "big-endian",
        "a chunk without deflate",
        "no chunk through its filters",
        "h5repack -f GZIP=4",
        "h5repack -l CONTI",
    )
]


@pytest.mark.parametrize(("how", "compression"), CASES)
def test_a_rewritten_file_is_extended_by_value_or_refused(made, tmp_path, how, compression):
    path = made.short(tmp_path, compression)
    rewrite(path, how)
    whole_or_refused(made, path, compression)


SOME = ["no filters", "gzip without shuffle", "a chunk without any filter"]


@pytest.mark.parametrize("how", SOME)
@pytest.mark.parametrize("wanted", COMPRESSIONS)
def test_a_rewritten_file_may_go_on_with_another_compression(made, tmp_path, how, wanted):
    path = made.short(tmp_path, "none" if wanted == "deflate" else "deflate")
    rewrite(path, how)
    whole_or_refused(made, path, wanted)


@pytest.mark.parametrize("how", [*SOME[:2], "small chunks", "contiguous"])
def test_rewritten_shards_give_the_same_dataset(made, tmp_path, how):
    path = made.short(tmp_path)
    for shard in shard_folder(WHOLE, path).iterdir():
        with h5py.File(shard, "r+") as file:
            for name in FIELDS:
                options = {
                    "gzip without shuffle": {"compression": "gzip", "chunks": own_chunks(name)},
                    "no filters": {"chunks": own_chunks(name)},
                    "small chunks": {"chunks": (*own_chunks(name)[:-1], 20)},
                    "contiguous": {},
                }
                replace_dataset(file, name, **options[how])
    extend(path)
    made.require_whole(path)


BY_VALUE = [*SOME, "small chunks", "filters in another order", "h5repack -f GZIP=4"]


@pytest.mark.parametrize("how", BY_VALUE)
def test_a_rewritten_file_is_undamaged_and_gets_other_features_by_value(made, tmp_path, how):
    path = made.short(tmp_path, shards=False)
    rewrite(path, how)
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures
    before = values_of(path)
    extracted(path)
    assert values_of(path) == before | {schema.DIGESTS: values_of(path)[schema.DIGESTS]}
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures


# ------------------------------------------------------------------------ damage in the old file


def test_nothing_is_computed_for_a_damaged_file(made, tmp_path, monkeypatch):
    path = made.short(tmp_path, shards=False)
    flip(path, schema.OUTPUTS, 2)
    monkeypatch.setattr(
        "spinlock.generation.shard_task.compute_shard",
        lambda *args: pytest.fail("samples are computed"),
    )
    assert re.search("Restore|another path", refused(path, names(2)))


def test_parts_are_not_joined_to_a_damaged_file(made, tmp_path):
    path = made.short(tmp_path, shards=False)
    generate_part(WHOLE, path, 1, 1, progress=False)
    flip(path, schema.PER_TIMESTEP, 11)
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=names(11)):
        assemble_parts(WHOLE, path)
    require_untouched(path, before)


# ------------------------------------------------------------- damage while the new file is made


def sabotaged(made, tmp_path, deed, compression="deflate"):
    """Extend a file while a deed is done to it; it is not replaced, and the shards are kept."""
    path = made.short(tmp_path, compression)
    next(shard_folder(WHOLE, path).glob("shard-*16-*")).unlink()
    saboteur = ThisThread(lambda: deed(path), once=True)
    with pytest.raises(DatasetError):
        extend(path, compression, executor=saboteur)
    assert saboteur.done
    assert not list(tmp_path.rglob("*.tmp"))
    return path


@pytest.mark.parametrize(
    "name", [schema.INPUTS, schema.OUTPUTS, schema.VALUES, schema.PER_TIMESTEP, schema.DIGESTS]
)
def test_damage_while_samples_are_computed_is_found(made, tmp_path, name):
    damaged = {}

    def deed(path):
        flip(path, name, 5)
        damaged[path] = path.read_bytes()

    path = sabotaged(made, tmp_path, deed, "none")
    assert path.read_bytes() == damaged[path]


def test_rows_that_change_places_while_samples_are_computed_are_found(made, tmp_path):
    def deed(path):
        with h5py.File(path, "r+") as file:
            swap_all_and_seal(file)

    path = sabotaged(made, tmp_path, deed)
    assert read_info(path).config.num_samples == 12


def test_another_dataset_that_takes_the_place_of_the_old_one_is_found(made, tmp_path):
    other = tmp_path / "other.h5"
    generate(dataclasses.replace(SHORT, seed=1), other, progress=False)
    content = other.read_bytes()
    path = sabotaged(made, tmp_path, lambda path: os.replace(other, path))
    assert path.read_bytes() == content


def test_a_file_that_vanishes_while_samples_are_computed(made, tmp_path):
    path = sabotaged(made, tmp_path, lambda path: path.unlink())
    assert not path.exists()


class FaultyChunks(h5py.h5d.DatasetID):
    """A dataset whose chunks do not reach the file as they were given."""

    fault = None

    def write_direct_chunk(self, offsets, data, *args, **options):
        for offset, chunk, more in type(self).fault(tuple(offsets), bytes(data)):
            super().write_direct_chunk(offset, chunk, *args, **(options | more))


def install_faulty_chunks(monkeypatch, fault):
    """Let a fault at writing chunks: (offset, chunk) -> what is written in its place."""
    plain = h5py.Dataset.id.fget

    def identifier(dataset):
        real = plain(dataset)
        if h5py.h5i.get_file_id(real).get_intent() == h5py.h5f.ACC_RDONLY:
            return real
        faulty = FaultyChunks(real.id)
        h5py.h5i.inc_ref(faulty)
        return faulty

    monkeypatch.setattr(FaultyChunks, "fault", staticmethod(fault))
    monkeypatch.setattr(h5py.Dataset, "id", property(identifier))


def flipped_chunk(offset, chunk):
    middle = len(chunk) // 2
    return [(offset, chunk[:middle] + bytes([chunk[middle] ^ 4]) + chunk[middle + 1 :], {})]


def cut_chunk(offset, chunk):
    return [(offset, chunk[:-9], {})]


def lost_chunk(offset, chunk):
    return []


def misplaced_chunk(offset, chunk):
    return [((offset[0] - 1, *offset[1:]), chunk, {})]


def masked_chunk(offset, chunk):
    return [(offset, chunk, {"filter_mask": 1})]


def zeros(offset, chunk):
    return [(offset, zlib.compress(bytes(4 * 32 * 32 * (3 if len(offset) == 4 else 2))), {})]


FAULTS = (flipped_chunk, cut_chunk, lost_chunk, misplaced_chunk, masked_chunk, zeros)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ndim", [4, 5], ids=["inputs", "outputs"])
def test_a_chunk_that_is_not_written_as_given_is_found(made, tmp_path, monkeypatch, fault, ndim):
    path, hits = made.short(tmp_path), []

    def at_the_seventh_sample(offset, chunk):
        if len(offset) == ndim and offset[0] == 6:
            hits.append(offset)
            return fault(offset, chunk)
        return [(offset, chunk, {})]

    install_faulty_chunks(monkeypatch, at_the_seventh_sample)
    refused(path, names(6))
    assert hits


def test_a_fault_that_goes_away_does_no_harm(made, tmp_path, monkeypatch):
    path = made.short(tmp_path)
    install_faulty_chunks(monkeypatch, lost_chunk)
    refused(path, names(0))
    monkeypatch.undo()
    extend(path)
    made.require_whole(path)


@pytest.mark.parametrize("name", [name for name in SOME_DATASETS if name in COLUMNS])
def test_a_column_that_is_not_written_as_given_is_found(made, tmp_path, monkeypatch, name):
    path, hits, plain = made.short(tmp_path), [], h5py.Dataset.__setitem__

    def set_item(data, key, values):
        plain(data, key, values)
        if data.name == f"/{name}" and not hits:
            hits.append(key)
            rows = data[...]
            rows[[4, 9]] = rows[[9, 4]]
            if rows[4].tobytes() == rows[9].tobytes():
                rows[4] = np.zeros((), rows.dtype)
            plain(data, ..., rows)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", set_item)
    refused(path, rf"{name}|" + names(4))
    assert hits


@pytest.mark.parametrize("name", SOME_DATASETS)
def test_what_the_disk_made_of_the_new_file_is_read(made, tmp_path, monkeypatch, name):
    """A bit flips when the new file is closed, after everything was written as it should be."""
    path = made.short(tmp_path)
    hits = flip_when_closed(monkeypatch, lambda file: file.filename.endswith(".tmp"), name, 5)
    refused(path, rf"{name}|" + names(5))
    assert hits


# ---------------------------------------------------------------------------- what a user added


def add_attributes(holder):
    added = {
        "text": "größe",
        "empty text": "",
        "number": 42,
        "single": np.float32(0.1),
        "flag": np.bool_(True),
        "complex": 1 + 2j,
        "array": np.arange(6, dtype=">i2").reshape(2, 3),
        "no values": np.zeros((0, 3), np.float32),
        "bytes": np.bytes_(b"abc"),
        "texts": ["one", "zwei", ""],
        "record": np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "empty": h5py.Empty("f4"),
    }
    for name, value in added.items():
        holder.attrs[f"my {name}"] = value
    holder.attrs.create("my choice", 1, dtype=h5py.enum_dtype({"no": 0, "yes": 1}))
    holder.attrs.create("my lists", [np.arange(2), np.arange(3)], dtype=h5py.vlen_dtype(np.int32))


def add_everything(file):
    """What users put into files: everywhere, of every kind."""
    for name in ("/", "inputs", "features/sdf", *DATASETS):
        add_attributes(file[name])
    file["notes"] = "measured on a Tuesday"
    file["mine/deep/er/values"] = np.random.default_rng(0).normal(size=(5, 3))
    add_attributes(file["mine"])
    add_attributes(file["mine/deep/er/values"])
    file["mine/record"] = np.array([(1, b"x")], dtype=[("n", "<i8"), ("s", "S3")])
    file["mine/texts"] = np.array(["a", "bc"], dtype=h5py.string_dtype())
    file["mine/nothing"] = h5py.Empty("f8")
    file["mine/type"] = np.dtype([("a", "<i4")])
    file.create_group("mine/hollow")
    options = {"chunks": (16, 4), "shuffle": True, "compression": "gzip", "fletcher32": True}
    file.create_dataset("packed", data=np.arange(400).reshape(100, 4), **options)
    file.create_dataset("growing", data=np.arange(13), maxshape=(None,), fillvalue=-1)
    file["inputs/mask"] = np.ones((32, 32), np.bool_)
    file["features/sdf/aggregated/weights"] = np.linspace(0, 1, 39)
    file["shortcut"] = h5py.SoftLink("/outputs/fields")
    file["outputs/up"] = h5py.SoftLink("/inputs")
    file["nowhere"] = h5py.SoftLink("/there/is/nothing")
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/values")
    file["mine/lost"] = h5py.ExternalLink("missing.h5", "/values")
    file["metadata/root"] = h5py.ExternalLink("other.h5", "/")


def plain_attribute(holder, name):
    value, kind = holder.attrs[name], holder.attrs.get_id(name).dtype
    if isinstance(value, h5py.Empty):
        return (str(kind), "empty")
    value = np.asarray(value)
    lists = [np.asarray(v).tolist() for v in value.ravel()]
    return (str(kind), str(h5py.check_enum_dtype(kind)), value.shape, repr(lists))


def additions(path):
    """Everything in a file that the schema does not name, without following links."""
    found = {}
    groups = {"/".join(name.split("/")[:n]) for name in DATASETS for n in range(1, 6)}
    groups -= set(DATASETS)

    def note_attributes(name, holder):
        if name == "/":
            own = tuple(schema.ROOT_ATTRIBUTES)
        else:
            own = OWN_ATTRIBUTES if name in DATASETS else ()
        for attribute in holder.attrs:
            if attribute not in own:
                found[name, attribute] = plain_attribute(holder, attribute)

    def walk(group, prefix):
        for key in group:
            name, link = prefix + key, group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                found[name] = (type(link).__name__, link.path, getattr(link, "filename", None))
                continue
            item = group[key]
            if isinstance(item, h5py.Datatype):
                found[name] = ("type", str(item.dtype))
                continue
            if isinstance(item, h5py.Group):
                if name not in groups:
                    found[name] = "group"
                walk(item, f"{name}/")
            elif name not in DATASETS:
                empty = isinstance(item[()], h5py.Empty)
                values = "empty" if empty else repr(np.asarray(item[()]).tolist())
                packing = (item.chunks, item.compression, item.shuffle, item.fletcher32)
                found[name] = (str(item.dtype), item.shape, item.maxshape, *packing, values)
                found[name] += (item.id.get_create_plist().get_external_count(),)
            note_attributes(name, item)

    with h5py.File(path) as file:
        note_attributes("/", file)
        walk(file, "")
    return found


class Bystander:
    """A file that links point to, which nobody may open."""

    LONG_AGO = (1_000_000_000, 1_000_000_000)

    def __init__(self, folder):
        self.path = folder / "other.h5"
        with h5py.File(self.path, "w") as file:
            file["values"] = np.arange(12)
        self.content = self.path.read_bytes()
        os.utime(self.path, self.LONG_AGO)

    def require_untouched(self):
        # A file system that keeps times of access would have changed so old a one.
        status = self.path.stat()
        assert (status.st_atime, status.st_mtime) == self.LONG_AGO
        assert self.path.read_bytes() == self.content


def extended(path):
    extend(path)
    assert read_info(path).config.num_samples == 20


def extracted(path):
    """Other features: the file is written anew with as many samples."""
    assert extract_features(path, features=OTHER_FEATURES, progress=False).rewritten
    assert read_info(path).config.features == OTHER_FEATURES


@pytest.fixture(params=[extended, extracted], ids=lambda function: function.__name__)
def written_anew(request):
    return request.param


def decorated(made, folder):
    folder.mkdir(exist_ok=True)
    path = made.short(folder)
    with h5py.File(path, "r+") as file:
        add_everything(file)
    return path


def test_what_a_user_added_is_no_damage(made, tmp_path):
    path = decorated(made, tmp_path)
    read_info(path)
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures


def test_what_a_user_added_is_kept(made, tmp_path, written_anew):
    path = decorated(made, tmp_path)
    bystander = Bystander(tmp_path)
    before = additions(path)
    assert len(before) > 100
    written_anew(path)
    after = additions(path)
    custom = {k for k in after if (k if isinstance(k, str) else k[0]).startswith("features/custom")}
    assert {k: v for k, v in after.items() if k not in custom} == before
    bystander.require_untouched()
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures


def text_that_is_no_utf_8(file):
    value = np.array([b"gr\xf6\xdfe"], object)
    file.attrs.create("odd", value, dtype=h5py.string_dtype("utf-8"))


def large_attribute(file):
    file.attrs["odd"] = np.arange(20_000)


def opaque_attribute(file):
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 4)
    kind.set_tag(b"secret")
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(file.id, b"odd", kind, space)
    attribute.write(np.array(np.void(b"wxyz")), mtype=kind)


@pytest.mark.parametrize("add", [text_that_is_no_utf_8, large_attribute, opaque_attribute])
def test_odd_attributes_are_kept_or_refused(made, tmp_path, written_anew, add):
    path = made.short(tmp_path)
    copy_with(libver="latest")(path)
    with h5py.File(path, "r+", libver="latest") as file:
        add(file)
    before = path.read_bytes()
    if refusal(written_anew, path):
        require_untouched(path, before)
    else:
        with h5py.File(path) as file:
            assert "odd" in file.attrs


def test_samples_are_the_same_beside_what_a_user_added(made, tmp_path):
    path = decorated(made, tmp_path)
    extend(path)
    contents = dataset_contents_of_the_schema(path)
    assert contents == made.contents
    assert own_attributes(path) == made.attributes


def dataset_contents_of_the_schema(path):
    with h5py.File(path) as file:
        return {name: file[name][...].tobytes() for name in DATASETS}


def test_additions_survive_both_twice(made, tmp_path):
    """A longer life: other features, more samples, the old features again."""
    path = decorated(made, tmp_path)
    before = additions(path)
    extracted(path)
    longer = dataclasses.replace(WHOLE, features=OTHER_FEATURES)
    generate(longer, path, progress=False)
    extract_features(path, features="sdf", progress=False)
    assert additions(path) == before
    assert dataset_contents_of_the_schema(path) == made.contents


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o664])
def test_the_mode_of_the_file_is_kept(made, tmp_path, written_anew, mode):
    path = made.short(tmp_path)
    path.chmod(mode)
    written_anew(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_the_file_is_kept(made, tmp_path, written_anew):
    path = made.short(tmp_path)
    os.chown(path, 12345, 54321)
    path.chmod(0o640)
    written_anew(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (12345, 54321)
    assert stat.S_IMODE(status.st_mode) == 0o640


def test_the_new_file_is_never_more_open_than_the_old_one(made, tmp_path, monkeypatch):
    """What is private stays so, also while it is being written."""
    path, seen, plain = made.short(tmp_path), [], os.replace
    path.chmod(0o600)

    def watch(source, target, **options):
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        plain(source, target, **options)

    monkeypatch.setattr(os, "replace", watch)
    extend(path)
    assert seen
    assert set(seen) == {0o600}


def rows_in_a_dataset(file):
    file["predictions"] = np.zeros((12, 3))
    return "predictions"


def rows_in_a_group(file):
    file["mine/deep/predictions"] = np.arange(12)
    return "mine/deep/predictions"


def rows_beside_features(file):
    file.create_dataset("features/mine/features", (12, 4, 2), "f4", chunks=True, compression="gzip")
    return "features/mine/features"


def rows_that_grow(file):
    file.create_dataset("metadata/quality", data=np.arange(12), maxshape=(None,))
    return "metadata/quality"


def another_name_of_a_dataset(file):
    file["alias"] = file[schema.PARAMS]
    return "alias"


def another_name_of_a_group(file):
    file["alias"] = file["metadata"]
    return "alias"


ROWS = (
    rows_in_a_dataset,
    rows_in_a_group,
    rows_beside_features,
    rows_that_grow,
    another_name_of_a_dataset,
    another_name_of_a_group,
)


@pytest.mark.parametrize("add", ROWS)
def test_a_dataset_with_a_row_for_each_sample_is_refused(made, tmp_path, add):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        name = add(file)
    message = refused(path, re.escape(name))
    assert REMEDY.search(message)
    assert re.search(r"\b12\b", message)


@pytest.mark.parametrize("add", ROWS)
def test_a_dataset_with_a_row_for_each_sample_outlives_other_features(made, tmp_path, add):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        add(file)
    before = additions(path)
    extracted(path)
    after = additions(path)
    assert {k: v for k, v in after.items() if k in before} == before


def scalar_reference(file, holder):
    holder.attrs["source"] = file[schema.PARAMS].ref


def array_of_references(file, holder):
    refs = [file[schema.PARAMS].ref, file["inputs"].ref]
    holder.attrs.create("source", refs, dtype=h5py.ref_dtype)


def region_reference(file, holder):
    region = file[schema.PARAMS].regionref[2:4]
    holder.attrs.create("source", region, dtype=h5py.regionref_dtype)


def list_of_references(file, holder):
    value = np.empty(1, object)
    value[0] = np.array([file[schema.PARAMS].ref], h5py.ref_dtype)
    holder.attrs.create("source", value, dtype=h5py.vlen_dtype(h5py.ref_dtype))


def record_with_a_reference(file, holder):
    kind = np.dtype([("n", "<i4"), ("to", h5py.ref_dtype)])
    value = np.array([(1, file[schema.PARAMS].ref)], kind)
    holder.attrs.create("source", value, dtype=kind)


REFERENCES = (
    scalar_reference,
    array_of_references,
    region_reference,
    list_of_references,
    record_with_a_reference,
)


def references_refused(path, written_anew, match="refer"):
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=match) as caught:
        written_anew(path)
    require_untouched(path, before)
    assert REMEDY.search(str(caught.value))


@pytest.mark.parametrize("add", REFERENCES)
@pytest.mark.parametrize("holder", ["/", "metadata", schema.INPUTS])
def test_attributes_with_references_are_refused(made, tmp_path, written_anew, add, holder):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        add(file, file[holder])
    references_refused(path, written_anew, "source.* refer")


def test_dimension_scales_are_refused(made, tmp_path, written_anew):
    """HDF5 keeps them as attributes with references, on both sides."""
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["x"] = np.linspace(0, 1, 32)
        file["x"].make_scale("x")
        file[schema.INPUTS].dims[3].attach_scale(file["x"])
    references_refused(path, written_anew)


@pytest.mark.parametrize("add", REFERENCES)
@pytest.mark.parametrize("holder", ["mine/deep", "mine/data"])
def test_references_among_what_a_user_added_are_refused(made, tmp_path, written_anew, add, holder):
    """Copied as they are they would lead nowhere, or to something else."""
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["mine/data"] = np.arange(3)
        file.create_group("mine/deep")
        add(file, file[holder])
    references_refused(path, written_anew)


def test_references_as_values_are_refused(made, tmp_path, written_anew):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("pointers", data=[file[schema.PARAMS].ref], dtype=h5py.ref_dtype)
    references_refused(path, written_anew)


def test_a_group_that_holds_itself_is_kept(made, tmp_path, written_anew):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["mine/values"] = np.arange(3)
        file["mine/self"] = file["mine"]
    written_anew(path)
    with h5py.File(path) as file:
        assert file["mine/self/self/values"][...].tolist() == [0, 1, 2]


def test_data_in_other_files_are_not_read(made, tmp_path, written_anew):
    """A user's virtual dataset, and one with external storage, stay what they are."""
    path = made.short(tmp_path)
    bystander = Bystander(tmp_path)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(range(40)))
    os.utime(raw, Bystander.LONG_AGO)
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((4,), np.int64)
        layout[:] = h5py.VirtualSource("other.h5", "values", (12,))[:4]
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (5,), "i8", external=[("raw.bin", 0, 40)])
    written_anew(path)
    status = raw.stat()
    assert (status.st_atime, status.st_mtime) == Bystander.LONG_AGO
    bystander.require_untouched()
    with h5py.File(path) as file:
        assert file["virtual"].is_virtual
        assert [tuple(s)[1:3] for s in file["virtual"].virtual_sources()] == [
            ("other.h5", "values")
        ]
        assert file["external"].external == [("raw.bin", 0, 40)]


OWN_LOOKING = [(schema.GRID_SIZES, "names"), (schema.OUTPUTS, "sha256"), (schema.DIGESTS, "names")]


@pytest.mark.parametrize(("holder", "name"), OWN_LOOKING)
def test_attributes_that_only_look_like_the_schemas_do_not_vanish(
    made, tmp_path, written_anew, holder, name
):
    """The schema gives such an attribute to other datasets; here it is the user's."""
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file[holder].attrs[name] = "mine"
    before = path.read_bytes()
    if message := refusal(written_anew, path):
        assert re.search(rf"attributes|{name}", message)
        require_untouched(path, before)
    else:
        with h5py.File(path) as file:
            assert file[holder].attrs[name] == "mine"


def test_a_users_data_where_new_features_would_go_are_not_lost(made, tmp_path):
    path = made.short(tmp_path)
    name = "features/custom/per_timestep/features"
    with h5py.File(path, "r+") as file:
        file[name] = np.arange(5)
    before = path.read_bytes()
    with pytest.raises(DatasetError, match="features/custom"):
        extract_features(path, features=OTHER_FEATURES, progress=False)
    require_untouched(path, before)
