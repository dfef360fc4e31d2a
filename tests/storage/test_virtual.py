"""A virtual dataset is read like the single file with the same samples, and fails loudly."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest

from spinlock import SpinlockDataModule
from spinlock.checks import check_dataset
from spinlock.commands.command_line import main
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError
from spinlock.export.the_well import export_well
from spinlock.generation.build import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_columns, read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.shard_index import INDEX, ShardIndex
from spinlock.storage.verify import require_intact
from tests.helpers import dataset_contents
from tests.storage import virtual_files
from tests.storage.virtual_files import DAMAGES, SINGLE, VIRTUAL, copy, shards

pytestmark = pytest.mark.slow

SCHEMA = [spec.name for spec in schema.dataset_specs(SINGLE)]


@pytest.fixture(scope="session")
def files(made_once):
    return made_once("virtual", virtual_files.write)


@pytest.fixture
def path(files, tmp_path):
    return copy(files / "virtual.h5", tmp_path / "virtual.h5")


def scales(path):
    with h5py.File(path) as file:
        return {
            name: [[each.name for each in dimension.values()] for dimension in file[name].dims]
            for name in SCHEMA
        }


def attributes(path):
    found = {}
    with h5py.File(path) as file:
        for name in ("/", *SCHEMA):
            found[name] = {
                key: np.asarray(value).tolist()
                for key, value in file[name].attrs.items()
                if key not in ("DIMENSION_LIST", "run_summary", "configuration")
                and key != "attributes_digest"
            }
    return found


def test_other_programs_read_the_same(files):
    one, two = files / "single.h5", files / "virtual.h5"
    held = dataset_contents(two)
    assert held.pop("shards")
    assert held == dataset_contents(one)
    assert attributes(one) == attributes(two)
    assert scales(one) == scales(two)
    assert SINGLE.fingerprint == VIRTUAL.fingerprint
    with h5py.File(two) as file:
        assert all(file[name].is_virtual for name in SCHEMA)
        assert {"sha256", "edition", "columns_bytes", "folder"} <= set(file["shards"].attrs)


def batches(path, view):
    module = SpinlockDataModule(
        path, SINGLE, view=view, progress=False, batch_size=4, val_fraction=0.0, test_fraction=0.0
    )
    module.setup()
    return [
        {key: np.asarray(value).tolist() for key, value in batch.items()}
        for batch in module.predict_dataloader()
    ]


def test_a_dataset_that_is_replaced_while_it_is_opened_is_read(path, monkeypatch):
    """The old file refers to columns that are gone."""
    plain = ShardIndex.read

    def late(*arguments):
        monkeypatch.setattr(ShardIndex, "read", plain)
        generate(dataclasses.replace(VIRTUAL, num_samples=12), path, progress=False)
        return plain(*arguments)

    monkeypatch.setattr(ShardIndex, "read", late)
    with DatasetFile.open(path) as dataset:
        assert len(dataset.column(schema.DIGESTS)) == 12


def test_this_package_reads_the_same(files, tmp_path, capsys):
    results = {}
    for name in ("single", "virtual"):
        path, out = files / f"{name}.h5", tmp_path / name
        info = read_info(path)
        names = [spec.name for spec in schema.dataset_specs(SINGLE) if spec.chunk is None]
        columns = read_columns(path, names, 10)
        export_well(path, out, progress=False)
        main(["plot", str(path), "--sample", "7", "--out", f"{out}.png"])
        main(["check", str(path), "--full", "--replay", "1"])
        checked = capsys.readouterr().out.splitlines()
        assert "0 failed" in checked[-1] or not any("FAIL" in line for line in checked)
        rows = np.array([9, 0, 4, 3, 7, 4])
        reader = FieldReader(path, SINGLE)
        results[name] = (
            info.digest,
            info.fingerprint,
            {key: values.tobytes() for key, values in columns.items()},
            [batches(path, view) for view in ("features", "fields", "probes")],
            [reader.read(name, rows).tobytes() for name in (schema.INPUTS, schema.OUTPUTS)],
            [dataset_contents(file) for file in sorted((out / "data").rglob("*.hdf5"))],
            out.with_suffix(".png").read_bytes(),
            [line for line in checked if "/" not in line and "GB/s" not in line],
            extract_features(path, progress=False),
        )
    for one, two in zip(*results.values(), strict=True):
        assert one == two
    assert not results["virtual"][-1].rewritten


def test_the_file_and_its_folder_may_move(path, tmp_path):
    before = dataset_contents(path)
    moved = tmp_path / "some where" / "virtual.h5"
    moved.parent.mkdir()
    shutil.move(path, moved)
    shutil.move(f"{path}.shards", f"{moved}.shards")
    assert dataset_contents(moved) == before
    require_intact(moved, "")
    # Through a link to the file, too.
    link = tmp_path / "link.h5"
    link.symlink_to(moved)
    assert read_info(link).digest == read_info(moved).digest


def test_a_file_that_was_renamed_with_its_folder_is_refused(path, tmp_path):
    """Its virtual datasets would have fill values only."""
    renamed = tmp_path / "renamed.h5"
    path.rename(renamed)
    (tmp_path / "virtual.h5.shards").rename(tmp_path / "renamed.h5.shards")
    with h5py.File(renamed) as file:
        assert np.isnan(file[schema.OUTPUTS][:]).all()
    with pytest.raises(DatasetError, match=r"'virtual\.h5\.shards', .* 'renamed\.h5\.shards'"):
        read_info(renamed)
    assert not check_dataset(renamed, replay=0, device="cpu", progress=False).passed
    # The name is covered by the digest of the attributes, and none is opened.
    with h5py.File(renamed, "r+") as file:
        file[INDEX].attrs["folder"] = np.bytes_("renamed.h5.shards")
    with pytest.raises(DatasetError, match="attributes"):
        require_intact(renamed, "")


@pytest.mark.parametrize("which", [0, 1, 3], ids=["columns", "first", "last"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_missing_file_is_named_by_every_reader(files, path, tmp_path, damage, which):
    file = shards(path)[which]
    damage(path, file, files / "other.h5")
    more = dataclasses.replace(SINGLE, num_samples=12)
    readers = {
        "read_info": lambda: read_info(path),
        "columns": lambda: read_columns(path, [schema.PARAMS], 10),
        "fields": lambda: FieldReader(path, SINGLE),
        "extract": lambda: extract_features(path, progress=False),
        "extend": lambda: generate(more, path, progress=False),
        "export": lambda: export_well(path, tmp_path / "out", progress=False),
        "module": lambda: batches(path, "features"),
    }
    before = path.read_bytes()
    for name, read in readers.items():
        with pytest.raises(DatasetError, match=DAMAGES[damage]) as refusal:
            read()
        named = file.parent.parent if "folder" in damage.__name__ else file
        assert str(named) in str(refusal.value), name
    report = check_dataset(path, replay=0, device="cpu", progress=False)
    assert DAMAGES[damage] in report.failures[0].measured
    assert path.read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", [0, 2], ids=["columns", "second"])
@pytest.mark.parametrize(
    "swap", [virtual_files.of_another_dataset, virtual_files.with_other_samples]
)
def test_another_file_of_the_same_size_is_never_read(files, path, swap, which):
    file = shards(path)[which]
    swap(path, file, files / "other.h5")
    for read in (
        lambda: FieldReader(path, SINGLE).read(schema.INPUTS, np.array([5])),
        lambda: DatasetFile.open(path).trajectory(5),
        lambda: require_intact(path, ""),
        lambda: batches(path, "fields"),
        lambda: generate(dataclasses.replace(SINGLE, num_samples=12), path, progress=False),
    ):
        with pytest.raises(DatasetError) as refusal:
            read()
        reasons = (
            "is not the file that the dataset lists",
            "samples 4, 5, 6, 7 differ",
            "is not a readable HDF5 file",
        )
        assert any(reason in str(refusal.value) for reason in reasons)
    report = check_dataset(path, full=True, replay=0, device="cpu", progress=False)
    assert not report.passed


def test_a_changed_byte_of_a_shard_is_found(path):
    with DatasetFile.open(path) as dataset:
        (holder, rows), *_ = dataset.stored_rows(range(5, 6))
        chunk = holder.file[schema.OUTPUTS].id.get_chunk_info_by_coord((rows[0], 0, 1, 0, 0))
        file = holder.path
    with file.open("r+b") as out:
        out.seek(chunk.byte_offset + chunk.size // 2)
        byte = out.read(1)
        out.seek(-1, 1)
        out.write(bytes([byte[0] ^ 1]))
    with pytest.raises(DatasetError, match="samples 5 differ"):
        require_intact(path, "")
    report = check_dataset(path, full=True, replay=0, device="cpu", progress=False)
    assert any("sample 5" in row.measured for row in report.failures)
    with pytest.raises(DatasetError, match=f"{file.name}: outputs/fields of sample 5 is damaged"):
        FieldReader(path, SINGLE).read(schema.OUTPUTS, np.array([5]))


@pytest.mark.parametrize("name", [schema.PARAMS, schema.DIGESTS])
def test_a_damaged_copy_of_a_column_is_found_before_the_dataset_is_extended(path, name):
    file = shards(path)[2]
    with h5py.File(file) as shard:
        place = shard[name].id.get_offset() + 5
    with file.open("r+b") as out:
        out.seek(place)
        byte = out.read(1)
        out.seek(place)
        out.write(bytes([byte[0] ^ 1]))
    report = check_dataset(path, full=True, replay=0, device="cpu", progress=False)
    assert [row.measured for row in report.failures] == [f"1: {name} in the shard {file}"]
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=f"{name} in the shard {file} differs .* Restore"):
        generate(dataclasses.replace(SINGLE, num_samples=12), path, progress=False)
    assert path.read_bytes() == before


def test_other_programs_see_no_plausible_values_where_a_shard_is_missing(path):
    columns, *_, last = shards(path)
    columns.unlink()
    last.unlink()
    with h5py.File(path) as file:
        assert np.isnan(file[schema.OUTPUTS][8:]).all()
        assert np.isfinite(file[schema.OUTPUTS][:8]).all()
        assert (file[schema.OPERATOR_INDEX][:] == np.iinfo(np.int64).min).all()
        assert np.isnan(file[schema.PER_TIMESTEP][:]).all()
