"""Damaged and misnamed shards never get into a dataset."""

import json
import re
import sys

import h5py
import pytest
import yaml

import spinlock.generation.build
from spinlock.__main__ import main as command_line
from spinlock.errors import DatasetError
from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.generation.shard_task import compute_shard
from spinlock.storage import schema
from spinlock.storage.shard_files import list_shards
from tests.storage.sabotage import (
    FIELDS,
    ThisThread,
    names,
)
from tests.storage.shard_damages import (
    MOVES,
    SHARDED,
    Shards,
    at_samples_2_and_3,
    emptied,
    fields_swapped,
    flipped_in,
    linked_in_the_place_of_another,
    made_a_folder,
    made_a_link,
    name_of,
    provenance_garbled,
    range_edited,
    removed,
    renamed_forward,
    replaced_by_a_dataset,
    replaced_by_another_dataset,
    replaced_by_another_dataset_in_disguise,
    replaced_by_another_range,
    replaced_by_another_range_in_disguise,
    rows_swapped,
    swapped_names,
    truncated,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return Shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a.h5"


@pytest.fixture
def fetched(shards, monkeypatch):
    """Shards that are to be computed are fetched from those that there are."""
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", shards.fetch)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("move", MOVES)
def test_shards_under_wrong_names_are_computed_again(shards, target, move):
    move(shards.lay_out(target, 0, 2, 4), shards)
    generate(SHARDED, target, progress=False)
    shards.require_whole(target)


SOME_MOVES = (
    renamed_forward,
    swapped_names,
    linked_in_the_place_of_another,
    at_samples_2_and_3(replaced_by_another_dataset_in_disguise),
    at_samples_2_and_3(rows_swapped),
)


@pytest.mark.parametrize("move", SOME_MOVES)
def test_shards_under_wrong_names_are_not_joined(shards, target, move):
    move(shards.lay_out(target, 0, 2, 4), shards)
    with pytest.raises(DatasetError, match=r"samples .* are missing"):
        assemble_parts(SHARDED, target)
    assert not target.exists()
    generate_part(SHARDED, target, 1, 1, progress=False)
    assemble_parts(SHARDED, target)
    shards.require_whole(target)


def test_a_shard_says_which_samples_it_holds(shards):
    for shard in list_shards(shards.folder):
        with h5py.File(shard.path) as file:
            assert file.attrs[schema.SAMPLES].tolist() == [shard.start, shard.stop]


SPOILED = (
    *(flipped_in(name) for name in (*FIELDS, schema.PARAMS, "parameters/values/dt")),
    *(flipped_in(name) for name in (schema.IC_TYPES, schema.PER_TIMESTEP, schema.DIGESTS)),
    truncated,
    emptied,
    removed,
    made_a_folder,
    replaced_by_another_range,
    replaced_by_another_range_in_disguise,
    replaced_by_another_dataset,
    replaced_by_another_dataset_in_disguise,
    replaced_by_a_dataset,
    rows_swapped,
    fields_swapped,
    range_edited,
    provenance_garbled,
    made_a_link,
)
SOME_SPOILED = (
    SPOILED[1],
    truncated,
    removed,
    replaced_by_another_range,
    replaced_by_another_dataset_in_disguise,
)


def and_spoil(compute, spoil, shards):
    """`compute_shard`, but the shard is spoiled right after it was published."""

    def compute_and_spoil(task, *args):
        # Without the argument that publishes in the background.
        report = compute(task, *args[:2])
        spoil(task.shard.path, shards)
        return report

    return compute_and_spoil


def require_nothing_made(target):
    assert not target.exists()
    assert not list(target.parent.rglob("*.tmp"))
    for folder in target.parent.rglob("shard-*"):
        if folder.is_dir():
            # Nothing that this package made: the user has to take it away.
            folder.rmdir()


def repaired(shards, target):
    """After a failure: no dataset, nothing half-written; and a plain run puts it right."""
    require_nothing_made(target)
    generate(SHARDED, target, progress=False)
    shards.require_whole(target)


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda function: function.__name__)
def test_a_shard_that_is_spoiled_after_it_was_written(shards, target, monkeypatch, spoil):
    shards.lay_out(target, 0, 4)
    spoiling = and_spoil(shards.fetch, spoil, shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    with pytest.raises(DatasetError):
        generate(SHARDED, target, progress=False)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", shards.fetch)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
@pytest.mark.parametrize("verified", [(0, 4), (0, 2)], ids=["of a worker", "verified before"])
def test_a_shard_that_is_spoiled_while_others_are_computed(shards, target, spoil, verified):
    folder = shards.lay_out(target, *verified)
    executor = ThisThread(lambda: spoil(folder / name_of(2), shards))
    with pytest.raises(DatasetError):
        generate(SHARDED, target, executor=executor, progress=False)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
def test_a_part_that_is_spoiled_after_it_was_written(shards, target, monkeypatch, spoil):
    shards.lay_out(target, 0, 4)
    spoiling = and_spoil(shards.fetch, spoil, shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    generate_part(SHARDED, target, 2, 3, progress=False)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", shards.fetch)
    with pytest.raises(DatasetError, match=r"samples 2\.\.3 are missing"):
        assemble_parts(SHARDED, target)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
def test_a_shard_that_is_spoiled_between_verification_and_assembly(
    shards, target, monkeypatch, spoil
):
    """While parts are joined nothing is computed, yet the disk may fail at any time."""
    folder, plain = shards.lay_out(target, 0, 2, 4), spinlock.generation.build.plan_assembly

    def plan_assembly(*args, **options):
        spoil(folder / name_of(2), shards)
        return plain(*args, **options)

    monkeypatch.setattr(spinlock.generation.build, "plan_assembly", plan_assembly)
    with pytest.raises(DatasetError):
        assemble_parts(SHARDED, target)
    monkeypatch.setattr(spinlock.generation.build, "plan_assembly", plain)
    repaired(shards, target)


def test_a_spoiled_shard_is_named(shards, target, monkeypatch):
    shards.lay_out(target, 0, 4)
    spoiling = and_spoil(compute_shard, SPOILED[1], shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    with pytest.raises(DatasetError, match=rf"{names(3)}.*{re.escape(name_of(2))}.*Run the same"):
        generate(SHARDED, target, progress=False)


@pytest.mark.parametrize("spoil", [SPOILED[1], removed, replaced_by_another_range])
def test_the_command_fails_where_a_shard_is_spoiled(shards, target, monkeypatch, spoil):
    shards.lay_out(target, 0, 4)
    run = {"data": {"path": str(target), "generation": json.loads(SHARDED.to_json())}}
    file = target.with_name("run.yaml")
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    monkeypatch.setattr(sys, "argv", ["spinlock", "generate", "--config", str(file)])
    spoiling = and_spoil(compute_shard, spoil, shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    with pytest.raises(SystemExit) as caught:
        command_line()
    # A text as the status is printed to the standard error stream, and the status is 1.
    assert isinstance(caught.value.code, str)
    assert not target.exists()
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", compute_shard)
    command_line()
    file.unlink()
    shards.require_whole(target)
