"""A virtual dataset of a stranger leads to its own shards only, whatever it says."""

import hashlib
import json
import os
import shutil

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError
from spinlock.storage import read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import require_seal
from spinlock.storage.feature_update import update_features
from spinlock.storage.shard_files import remove_shards
from spinlock.storage.shard_index import INDEX
from tests.storage import virtual_files
from tests.storage.forgeries import Victims
from tests.storage.forgery_entries import attempt
from tests.storage.virtual_files import SINGLE, copy, shards


@pytest.fixture(scope="session")
def files(made_once):
    return made_once("virtual", virtual_files.write)


@pytest.fixture
def path(files, tmp_path):
    return copy(files / "virtual.h5", tmp_path / "virtual.h5")


def rewrite_index(file, change):
    """Change the index, and make its digest agree."""
    data = file[INDEX]
    values = data[...]
    change(values)
    data[...] = values
    data.attrs.modify("sha256", hashlib.sha256(values.tobytes()).hexdigest())


def set_to(name, row, value):
    def change(file):
        rewrite_index(file, lambda values: values[name].__setitem__(row, value))

    return change


def huge_index(file):
    kind, attrs = file[INDEX].dtype, dict(file[INDEX].attrs)
    del file[INDEX]
    file.create_dataset(INDEX, (10**9,), kind).attrs.update(attrs)


def compressed_index(file):
    values, attrs = file[INDEX][...], dict(file[INDEX].attrs)
    del file[INDEX]
    file.create_dataset(INDEX, data=values, compression="gzip").attrs.update(attrs)


def named_index(file):
    """An index with a name of a file, which this package would never write."""
    values = file[INDEX][...]
    kinds = [(name, values.dtype[name]) for name in values.dtype.names]
    named = np.zeros(len(values), [*kinds, ("file", "S32")])
    named["file"] = b"/etc/passwd"
    del file[INDEX]
    file.create_dataset(INDEX, data=named)


def linked_index(file):
    del file[INDEX]
    file[INDEX] = h5py.ExternalLink("elsewhere.h5", "/shards")


def no_index(file):
    del file[INDEX]


def changed_index(file):
    """Without its digest."""
    values = file[INDEX][...]
    values["bytes"] += 1
    file[INDEX][...] = values


INDICES = {
    "huge": huge_index,
    "compressed": compressed_index,
    "named": named_index,
    "linked": linked_index,
    "missing": no_index,
    "changed": changed_index,
    "negative": set_to("start", 0, -4),
    "gap": set_to("first", 1, 5),
    "too many samples": set_to("stop", 2, 10**12),
    "too long": set_to("last", 2, 11),
    "edition": set_to("edition", 1, -1),
    "large edition": set_to("edition", 1, 2**62),
    "other shard": set_to("start", 1, 3),
    "other size": set_to("bytes", 1, 5),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_that_makes_no_sense_is_refused(path, name):
    with h5py.File(path, "r+") as file:
        INDICES[name](file)
    with pytest.raises(DatasetError, match=r"shard"):
        DatasetFile.open(path)
    report = check_dataset(path, replay=0, device="cpu", progress=False)
    assert not report.passed


def remapped(file, name, source, dataset=None, maxshape=None):
    data = file[name]
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    layout[...] = h5py.VirtualSource(str(source), dataset or name, data.shape)
    attrs = {key: value for key, value in data.attrs.items() if key != "DIMENSION_LIST"}
    del file[name]
    file.create_virtual_dataset(name, layout).attrs.update(attrs)


def unlimited(file, name, source):
    """A virtual dataset whose size depends on the files that there are."""
    data = file[name]
    layout = h5py.VirtualLayout(data.shape, data.dtype, (None, *data.shape[1:]))
    most = (None, *data.shape[1:])
    part = h5py.VirtualSource(str(source), name, data.shape, maxshape=most)
    layout[: h5py.h5s.UNLIMITED] = part[: h5py.h5s.UNLIMITED]
    del file[name]
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("name", [schema.INPUTS, schema.PER_TIMESTEP])
@pytest.mark.parametrize("how", ["absolute", "parent", "external link", "external", "unlimited"])
def test_sources_that_the_file_names_are_never_opened(path, tmp_path, name, how):
    (tmp_path / "home").mkdir()
    victims = Victims(tmp_path / "home")
    with h5py.File(path, "r+") as file:
        victim = victims.hdf5(file, name)
        match how:
            case "absolute":
                remapped(file, name, victim)
            case "parent":
                remapped(file, name, f"virtual.h5.shards/../home/{os.path.basename(victim)}")
            case "external link":
                del file[name]
                file[name] = h5py.ExternalLink(str(victim), name)
            case "external":
                shape, dtype = file[name].shape, file[name].dtype
                del file[name]
                file.create_dataset(name, shape, dtype, external=[(str(victim), 0, 10**9)])
            case "unlimited":
                unlimited(file, name, victim)
    victims.watch.events()
    report = check_dataset(path, full=True, replay=0, device="cpu", progress=False)
    assert any(name in row.measured for row in report.failures)
    for read in (
        lambda: DatasetFile.open(path).validate(),
        lambda: FieldReader(path, SINGLE).read(schema.INPUTS, np.arange(4)),
        lambda: require_seal(DatasetFile.open(path)) if "link" not in how else None,
    ):
        attempt(lambda *_, read=read: read(), path, tmp_path)
    assert victims.harm() == ""
    victims.watch.close()


def forged_shard(file, change):
    """Change a shard, but not its size or attributes."""
    size = file.stat().st_size
    with h5py.File(file, "r+") as shard:
        change(shard)
    with file.open("r+b") as out:
        out.truncate(max(size, file.stat().st_size))


@pytest.mark.parametrize("what", ["virtual", "external link"])
@pytest.mark.parametrize("which", [0, 1], ids=["columns", "shard"])
def test_a_shard_leads_nowhere_else(path, tmp_path, which, what):
    (tmp_path / "home").mkdir()
    victims = Victims(tmp_path / "home")
    shard = shards(path)[which]
    name = schema.PER_TIMESTEP if which == 0 else schema.INPUTS

    def change(file):
        victim = victims.hdf5(file, name)
        if what == "virtual":
            remapped(file, name, victim)
        else:
            del file[name]
            file[name] = h5py.ExternalLink(str(victim), name)

    forged_shard(shard, change)
    with h5py.File(path, "r+") as file:
        # The index agrees with the forgery.
        size = shard.stat().st_size
        if which == 0:
            file[INDEX].attrs.modify("columns_bytes", size)
        else:
            set_to("bytes", 0, size)(file)
    victims.watch.events()
    if which == 0:
        with pytest.raises(DatasetError, match=name):
            read_info(path)
    else:
        with pytest.raises(DatasetError, match=name):
            DatasetFile.open(path).initial(1)
        with pytest.raises(DatasetError, match=name):
            FieldReader(path, SINGLE)
    assert not check_dataset(path, full=True, replay=0, device="cpu", progress=False).passed
    assert victims.harm() == ""
    victims.watch.close()


@pytest.mark.parametrize("name", [b"other.h5.shards", b"\xff\xfe\x1b[2J"])
def test_another_name_of_the_folder_is_refused(path, name):
    """Also one that is no text; it is printed with its bytes escaped."""
    with h5py.File(path, "r+") as file:
        file[INDEX].attrs.modify("folder", np.bytes_(name))
    with pytest.raises(DatasetError, match="the file refers to shards in '") as caught:
        read_info(path)
    assert str(caught.value).isprintable()


def test_replacing_features_follows_no_link_of_a_shard(path, tmp_path):
    """Only shards that are rewritten are read for their columns."""
    (tmp_path / "home").mkdir()
    victims = Victims(tmp_path / "home")
    shard = shards(path)[1]

    def change(file):
        victim = victims.hdf5(file, schema.PARAMS)
        del file[schema.PARAMS]
        file[schema.PARAMS] = h5py.ExternalLink(str(victim), schema.PARAMS)

    forged_shard(shard, change)
    with h5py.File(path, "r+") as file:
        set_to("bytes", 0, shard.stat().st_size)(file)
    with DatasetFile.open(path) as dataset:
        config = dataset.config
        features = {name: dataset.column(name) for name in schema.feature_specs(config)}
        origins = {name: dataset.text(name) for name in schema.PROVENANCE}
    victims.watch.events()
    with pytest.raises(DatasetError, match=f"{shard.name}: {schema.PARAMS} is reached through"):
        update_features(path, config, features, origins, 10)
    assert victims.harm() == ""
    victims.watch.close()


def test_the_layout_of_the_configuration_decides(path, tmp_path):
    """A file that claims to hold everything itself must do so."""
    with h5py.File(path, "r+") as file:
        content = json.loads(file.attrs["configuration"])
        content["storage"]["layout"] = "single"
        file.attrs["configuration"] = json.dumps(content)
    with pytest.raises(DatasetError, match="inputs/fields is a virtual dataset"):
        DatasetFile.open(path).validate()
    single = tmp_path / "single.h5"
    shutil.copy(path, single)
    with h5py.File(single, "r+") as file:
        file.attrs["configuration"] = json.dumps(content | {"storage": {"layout": "virtual"}})
    with pytest.raises(DatasetError, match=r"single\.h5\.shards is missing|folder"):
        DatasetFile.open(single)


def test_removal_keeps_what_is_used_under_any_spelling_of_the_folder(path, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    folder = shards(path)[0].parent
    spelled = tmp_path / "link" / folder.relative_to(tmp_path)
    before = set(folder.iterdir())
    assert not remove_shards(spelled, 10, before)
    assert not remove_shards(folder, 10, {spelled / file.name for file in before})
    assert set(folder.iterdir()) == before
