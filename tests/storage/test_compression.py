"""Chunks: stock h5py must read what is compressed outside of it."""

import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from spinlock.storage.compression import FILTERS, decode_chunk, encode_chunk, shuffle


@pytest.mark.parametrize("compression", FILTERS)
@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    array=arrays(
        np.float32, array_shapes(min_dims=1, max_dims=4), elements=st.floats(-10, 10, width=32)
    )
)
def test_h5py_reads_encoded_chunks(compression, array, tmp_path_factory):
    path = tmp_path_factory.mktemp("chunk") / "chunk.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "x", array.shape, array.dtype, chunks=array.shape, **FILTERS[compression]
        )
        data.id.write_direct_chunk((0,) * array.ndim, encode_chunk(array, compression))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][...], array)


@pytest.mark.parametrize("compression", FILTERS)
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i2", "u1"])
def test_decoding_undoes_encoding(compression, dtype):
    array = np.random.default_rng(1).integers(0, 256, 24 * 8, np.uint8).view(dtype)
    chunk = encode_chunk(array, compression)
    array = array.reshape(4, -1)
    decoded = decode_chunk(chunk, compression, array.shape, array.dtype)
    assert decoded.dtype == array.dtype
    # As bytes: random floats may be NaN.
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()
    with pytest.raises(ValueError, match=r"expand|reshape"):
        decode_chunk(chunk, compression, (5, array.shape[1]), array.dtype)


def test_shuffle_groups_bytes_by_significance():
    array = np.array([0x03020100, 0x13121110], dtype=np.uint32)
    assert shuffle(array).ravel().tolist() == [0x00, 0x10, 0x01, 0x11, 0x02, 0x12, 0x03, 0x13]


def test_deflate_makes_smooth_fields_smaller():
    x = np.linspace(0, 1, 128, dtype=np.float32)
    field = np.sin(7 * x)[:, None] * np.cos(5 * x)[None, :]
    assert len(encode_chunk(field, "deflate")) < 0.9 * len(encode_chunk(field, "none"))


@pytest.mark.parametrize("planes", [(), (0,), (0, 1, 2), (0, 1, 2, 3)])
def test_bytes_that_do_not_shrink_are_stored(planes):
    """Whichever planes are noise, and longer than a stored block, of which zlib knows 64 KiB."""
    rng = np.random.default_rng(0)
    bytes_of = np.zeros((150_000, 4), np.uint8)
    bytes_of[:, planes] = rng.integers(0, 256, (150_000, len(planes)))
    array = bytes_of.reshape(-1).view("<f4")
    chunk = encode_chunk(array, "deflate")
    assert zlib.decompress(chunk) == shuffle(array).tobytes()
    assert len(chunk) < 150_000 * len(planes) + 2_000
