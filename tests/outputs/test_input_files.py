"""No command overwrites its input or what belongs to it, by whatever name."""

import os

import pytest

from spinlock.errors import DatasetError
from spinlock.export.the_well import export_well
from spinlock.generation.build import shard_folder
from spinlock.runtime.output_files import belongs_to
from spinlock.storage.locking import dataset_lock
from tests.outputs.writing import CONFIG, KINDS, each_command, each_writer, refused, snapshot


def same_path(folder):
    return folder / "data.h5"


def relative_path(folder):
    (folder / "sub").mkdir()
    return "sub/../data.h5"


def symbolic_link(folder):
    (folder / "link.png").symlink_to("data.h5")
    return folder / "link.png"


def chain_of_links(folder):
    (folder / "first").symlink_to(symbolic_link(folder))
    return folder / "first"


def hard_link(folder):
    os.link(folder / "data.h5", folder / "hard.png")
    return folder / "hard.png"


def linked_folder(folder):
    (folder.parent / "linked").symlink_to(folder)
    return folder.parent / "linked" / "data.h5"


NAMES = [same_path, relative_path, symbolic_link, chain_of_links, hard_link, linked_folder]


@each_writer
@each_command
@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_no_output_by_any_name(folder, write, command, name):
    other = name(folder)
    message = "is the dataset .* that is read"
    refused(write, command, folder / "data.h5", other, message, folder.parent)
    refused(write, command, other, folder / "data.h5", message, folder.parent)


@each_writer
@each_command
@pytest.mark.parametrize("beside", ["data.h5.lock", "data.h5.parts", "data.h5.parts/new.png"])
@pytest.mark.parametrize("source", ["data.h5", "link.h5"])
def test_what_belongs_to_the_input_is_no_output(folder, write, command, beside, source):
    (folder / "link.h5").symlink_to("data.h5")
    refused(write, command, source, beside, "or belongs to it", folder)
    (folder / beside).parent.mkdir(exist_ok=True)
    (folder / beside).write_bytes(KINDS[command].start)
    refused(write, command, source, beside, "or belongs to it", folder)


def test_what_belongs_to_a_dataset_is_what_lies_beside_it(folder):
    path = folder / "data.h5"
    with dataset_lock(path):
        (lock,) = (one for one in folder.iterdir() if one != path)
    for own in (lock, shard_folder(CONFIG, path), path, path / "sub"):
        assert belongs_to(own, path)
    for other in ("data.h5.png", "data.lock", "more.data.h5", ".", "sub/data.h5", "data.h5.parts2"):
        assert not belongs_to(other, path)


@pytest.mark.parametrize("out", ["data.h5", "data.h5.parts", "data.h5.lock", "data.h5.parts/x"])
def test_an_export_is_no_part_of_the_dataset(folder, out):
    before = snapshot(folder)
    with pytest.raises(DatasetError, match=r"belongs to the dataset|exists already"):
        export_well("data.h5", out, progress=False)
    assert snapshot(folder) == before
