"""Rewritten files are extended by value, or refused."""

import h5py
import pytest

from spinlock.checks import check_dataset
from spinlock.generation.build import shard_folder
from spinlock.storage import schema
from tests.storage.extended_files import COMPRESSIONS, WHOLE, extend, extracted, whole_or_refused
from tests.storage.rewrites import (
    COLUMN_REWRITES,
    FILE_REWRITES,
    REWRITES,
    own_chunks,
    rewrite,
    values_of,
)
from tests.storage.sabotage import (
    FIELDS,
    replace_dataset,
)

pytestmark = pytest.mark.slow


def test_extending_equals_generating_at_once(made, tmp_path, compression):
    """Without shards at hand, as every user would."""
    path = made.short(tmp_path, compression, shards=False)
    extend(path, compression)
    made.require_whole(path, compression)


# Those that do what another one does, with other filters or by another program.
ALIKE = {
    "shuffle and gzip 9",
    "shuffle and lzf",
    "shuffle only",
    "fletcher32 only",
    "one contiguous",
    "columns in chunks",
    "columns through lzf",
    "h5repack -f GZIP=4",
    "h5repack -f SHUF -f GZIP=9",
    "h5repack -f NONE",
    "h5repack -f FLET",
    "h5repack -l CONTI",
}
CASES = [
    pytest.param(how, "deflate", marks=[pytest.mark.repeated] if how in ALIKE else [])
    for how in (*REWRITES, *COLUMN_REWRITES, *FILE_REWRITES)
]
# Where the configuration says that there are no filters.
CASES += [(how, "none") for how in ("lzf", "fletcher32 only", "contiguous", "big-endian")]
CASES += [
    pytest.param(how, "none", marks=pytest.mark.repeated)
    for how in (
        "gzip without shuffle",
        "shuffle and gzip 9",
        "shuffle only",
        "small chunks",
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


@pytest.mark.repeated
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


BY_VALUE = [*SOME, "small chunks"]
BY_VALUE += [
    pytest.param(how, marks=pytest.mark.repeated)
    for how in ("filters in another order", "h5repack -f GZIP=4")
]


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
