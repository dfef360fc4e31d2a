"""Token files: what is written is read, and nothing else is accepted."""

import h5py
import numpy as np
import pytest

from spinlock.errors import DatasetError, DatasetNotFoundError
from spinlock.storage import read_tokens
from spinlock.storage.token_file import TOKEN_COLUMNS, write_tokens

RANDOM = np.random.default_rng(0)
COLUMNS = {
    "index": np.arange(3, 9),
    "operator": np.arange(6) // 2,
    "tokens": np.array([3, 0, 1, 1, 3, 2]),
    "latent": RANDOM.normal(size=(6, 2)),
    "token_sequence": RANDOM.integers(0, 4, (6, 5)),
    "training": np.array([True, False, True, True, False, False]),
    "codes": RANDOM.normal(size=(4, 2)),
    "prototypes": np.array([[0, 1, -1]] * 4),
    "prototype_distances": np.array([[0.5, 0.6, np.inf]] * 4),
}
ATTRIBUTES = {"model": "M", "codebook_size": 4, "dataset": "a.h5", "fingerprint": "f" * 64}


@pytest.fixture
def path(tmp_path):
    written = tmp_path / "tokens.h5"
    write_tokens(written, COLUMNS, ATTRIBUTES)
    return written


def test_what_is_written_is_read(path):
    found = read_tokens(path)
    assert COLUMNS.keys() == TOKEN_COLUMNS.keys()
    for name, values in COLUMNS.items():
        expected = np.asarray(values, dtype=TOKEN_COLUMNS[name].dtype)
        assert getattr(found, name).dtype == expected.dtype
        assert np.array_equal(getattr(found, name), expected)
    assert {name: getattr(found, name) for name in ATTRIBUTES} == ATTRIBUTES
    assert found.path == path


def test_a_file_of_tokens_alone_is_read(tmp_path):
    """As earlier versions wrote them; here of two codebooks and two pooled samples."""
    columns = {"index": [[0, 1], [2, 3]], "tokens": [[0, 1], [1, 1]]}
    write_tokens(tmp_path / "t.h5", columns, {"model": "M", "codebook_size": 2})
    found = read_tokens(tmp_path / "t.h5")
    assert found.tokens.tolist() == columns["tokens"]
    assert found.latent is found.prototypes is found.fingerprint is None


def replace(name, values, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, data=values, **options)

    return change


def unwritten(file):
    """A petabyte that is nowhere."""
    del file["latent"]
    file.create_dataset("latent", (6, 2**45), np.float32, chunks=(1, 2**20))


def elsewhere(how):
    def change(file):
        with h5py.File(f"{file.filename}.victim", "w") as victim:
            victim["latent"] = COLUMNS["latent"].astype(np.float32)
        del file["latent"]
        name = f"{file.filename}.victim"
        if how == "link":
            file["latent"] = h5py.ExternalLink(name, "latent")
        elif how == "storage":
            file.create_dataset("latent", (6, 2), np.float32, external=[(name, 0, 48)])
        else:
            layout = h5py.VirtualLayout((6, 2), np.float32)
            layout[:] = h5py.VirtualSource(name, "latent", (6, 2))
            file.create_virtual_dataset("latent", layout)

    return change


DAMAGES = {
    "no tokens": (lambda file: file.pop("tokens"), "is no token file: it lacks tokens"),
    "type": (replace("tokens", COLUMNS["tokens"].astype(np.int32)), "tokens is int32, expected"),
    "text": (replace("tokens", [b"a"] * 6), "tokens is |S1, expected int64"),
    "objects": (
        lambda file: replace("latent", [file.ref] * 6, dtype=h5py.ref_dtype)(file),
        "latent is not a dataset of numbers",
    ),
    "group": (lambda file: (file.pop("latent"), file.create_group("latent")), "not a dataset"),
    "dimensions": (replace("latent", np.zeros(6, np.float32)), r"shape \(6,\), expected \[N, D\]"),
    "rows": (replace("operator", np.zeros(5, np.int64)), "operator has 5 entries along N"),
    "codes": (replace("codes", np.zeros((5, 2), np.float32)), "codes has 5 entries along K"),
    "compressed": (
        replace("latent", np.zeros((6, 2), np.float32), compression="gzip"),
        "latent is compressed, chunked or not written completely",
    ),
    "unwritten": (unwritten, "latent is compressed, chunked or not written completely"),
    "link": (elsewhere("link"), "latent is reached through a link"),
    "external storage": (elsewhere("storage"), "latent is stored in another file"),
    "virtual": (elsewhere("virtual"), "latent is a virtual dataset"),
    "token": (replace("tokens", np.array([0, 1, 2, 3, 4, 0])), r"tokens must lie in 0\.\.3, got"),
    "prototype": (replace("prototypes", np.full((4, 3), -2)), r"prototypes must lie in -1\.\."),
    "order": (replace("index", np.array([0, 1, 1, 3, 4, 5])), "must be ascending"),
    "nan": (replace("latent", np.full((6, 2), np.nan, np.float32)), "latent has NaN"),
    "size": (lambda file: file.attrs.update(codebook_size=0), "codebook_size must be an integer"),
    "sizes": (lambda file: file.attrs.update(codebook_size=[4]), "codebook_size must be an int"),
    "too many codes": (lambda file: file.attrs.update(codebook_size=2**16 + 1), r"1\.\.65536, got"),
    "too many codebooks": (
        replace("tokens", np.zeros((6, 65), np.int64)),
        "tokens has 65 entries along Q, and at most 64 are accepted",
    ),
    "too many dimensions": (
        replace("latent", np.zeros((6, 4097), np.float32)),
        "latent has 4097 entries along D, and at most 4096 are accepted",
    ),
    "no samples": (
        replace("index", np.zeros((6, 0), np.int64)),
        "index has no samples in its rows",
    ),
    "no codebooks": (replace("tokens", np.zeros((6, 0), np.int64)), "tokens has no codebooks"),
    "size is text": (lambda file: file.attrs.update(codebook_size="4"), "codebook_size must be"),
    "model": (lambda file: file.attrs.update(model="\x1b[2J"), "model must be printable text"),
    "no model": (lambda file: file.attrs.pop("model"), "model must be printable text"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_content_is_refused(path, damage):
    change, message = DAMAGES[damage]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DatasetError, match=message):
        read_tokens(path)


@pytest.mark.parametrize("index", [np.zeros(0), np.zeros((0, 2))])
def test_a_file_without_rows_is_refused(tmp_path, index):
    columns = {"index": index, "tokens": np.zeros(0)}
    write_tokens(tmp_path / "t.h5", columns, {"model": "M", "codebook_size": 2})
    with pytest.raises(DatasetError, match="index has no rows"):
        read_tokens(tmp_path / "t.h5")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        read_tokens(tmp_path / "nothing.h5")
    (tmp_path / "text").write_text("text")
    with pytest.raises(DatasetError, match="is not a readable HDF5 file"):
        read_tokens(tmp_path / "text")
