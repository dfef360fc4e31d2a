"""Addressed random numbers: known values, an oracle in Python integers, independence."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from spinlock.kernels.random_draws import philox_words, to_normal, to_uniform
from spinlock.simulation.randomness import (
    Stream,
    _numbers_from_host,
    _words_from_host,
    normal,
    symmetric_uniform,
    uniform,
)

DRAWS = [uniform, symmetric_uniform, normal]
WORD = 1 << 64


def reference_philox(counter, key):
    """Philox4x64-10 as defined by Salmon et al., in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2E7470EE14C6C93, WORD)
        high1, low1 = divmod(c[2] * 0xCA5A826395121157, WORD)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) % WORD, (k[1] + 0xBB67AE8584CAA73B) % WORD]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (
            (WORD - 1,) * 4,
            (WORD - 1,) * 2,
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
    ],
)
def test_the_oracle_gives_the_known_answers_of_random123(counter, key, expected):
    assert reference_philox(counter, key) == [int(word, 16) for word in expected.split()]


def reference_words(seed, stream, index, substream, count):
    """The documented layout of counter and key."""
    blocks = range(1, 1 + -(-count // 4))
    words = [w for b in blocks for w in reference_philox((b, substream, index, stream), (seed, 0))]
    return words[:count]


@settings(max_examples=50, deadline=None)
@given(
    address=st.tuples(
        st.integers(0, WORD - 1),
        st.sampled_from(Stream),
        st.integers(0, WORD - 1),
        st.integers(0, WORD - 1),
    ),
    start=st.integers(0, 50).map(lambda blocks: 4 * blocks),
    count=st.integers(1, 20),
)
def test_words_are_those_of_the_oracle(address, start, count):
    words = philox_words(address, start, count).view(np.uint64).tolist()
    assert words == reference_words(*address, start + count)[start:]


@pytest.mark.parametrize("inference", [False, True])
def test_a_device_is_given_the_same_words(inference):
    addresses = torch.tensor([(7, substream) for substream in range(3)])
    # Simulation draws in inference mode, which belongs to a thread; the pool's are outside.
    with torch.inference_mode(inference):
        words = _words_from_host(42, Stream.FORCING, addresses, 70_001, torch.device("cpu"))
    assert words.shape == (3, 70_001)
    for substream, row in enumerate(words):
        address = 42, Stream.FORCING, 7, substream
        assert torch.equal(row, torch.from_numpy(philox_words(address, 0, 70_001)))


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("count", [1, 7, 70_001])
def test_a_device_is_given_the_same_numbers(draw, count):
    """The way to devices that do not draw themselves, on a CPU."""
    index, substream = torch.tensor([5, 0]), torch.tensor([2, 3])
    addresses = torch.stack([index, substream], 1)
    at = (draw.__name__, 42, Stream.FORCING, addresses, count, torch.device("cpu"))
    scales = {"symmetric_uniform": (1.0, 0.25)}
    for scale in scales.get(draw.__name__, (1.0,)):
        options = {"scale": scale} if scale != 1.0 else {}
        drawn = draw(42, Stream.FORCING, index, count, substream=substream, **options)
        assert torch.equal(_numbers_from_host(*at, scale), drawn)


@pytest.mark.parametrize("draw", DRAWS)
def test_default_of_the_substream(draw):
    first = draw(42, Stream.FORCING, 5, 9, substream=0)
    assert torch.equal(draw(42, Stream.FORCING, 5, 9), first)


def test_address_is_seed_stream_index_substream_position():
    """The documented conversion gives the same numbers: little-endian halves of the words."""
    seed = 0x1234567890ABCDEF
    words = reference_words(seed, Stream.FORCING, 77, (3 << 16) + 9, 6)
    drawn = uniform(seed, Stream.FORCING, 77, 12, substream=(3 << 16) + 9)
    halves = np.array(words, dtype="<u8").view("<i4").tolist()
    assert drawn.tolist() == [((half >> 9) + 2**22 + 0.5) / 2**23 for half in halves]
    drawn = symmetric_uniform(seed, Stream.FORCING, 77, 24, substream=(3 << 16) + 9, scale=0.25)
    quarters = np.array(words, dtype="<u8").view("<i2").tolist()
    assert drawn.tolist() == [0.25 * (quarter + 0.5) / 2**15 for quarter in quarters]
    drawn = normal(seed, Stream.FORCING, 77, 12, substream=(3 << 16) + 9).tolist()
    for position, word in enumerate(words):
        radius = math.sqrt(-2 * math.log(((word & 0x7FFFFFFF) + 1) / 2**31))
        angle = math.pi * halves[2 * position + 1] / 2**31
        assert drawn[2 * position] == pytest.approx(radius * math.cos(angle), abs=2e-6)
        assert drawn[2 * position + 1] == pytest.approx(radius * math.sin(angle), abs=2e-6)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_number_does_not_depend_on_what_it_is_drawn_with(draw, device):
    index = torch.tensor([5, 0, 12345, 2**32 - 1], device=device)
    whole = draw(42, Stream.WEIGHTS, index, 70_000, substream=3, device=device)
    alone = draw(42, Stream.WEIGHTS, 12345, 100, substream=3, device=device)
    assert torch.equal(whole[2, :100], alone)
    substreams = torch.tensor([2, 3], device=device)
    both = draw(42, Stream.WEIGHTS, 5, 11, substream=substreams, device=device)
    assert torch.equal(both[1], whole[0, :11])


@pytest.mark.parametrize("draw", DRAWS)
def test_every_coordinate_of_the_address_matters(draw):
    base = {"seed": 42, "stream": Stream.WEIGHTS, "index": 1, "count": 64, "substream": 1}
    first = draw(**base)
    changes = {"seed": 43, "stream": Stream.FORCING, "index": 2, "substream": 2}
    for name, value in changes.items():
        assert not torch.equal(first, draw(**{**base, name: value})), name
    assert not torch.equal(first, draw(**{**base, "seed": 42 + 2**40})), "high half of the seed"


def test_distributions():
    count = 200_000
    u = uniform(1, Stream.FORCING, 0, count).double().numpy()
    s = symmetric_uniform(1, Stream.FORCING, 0, count).double().numpy()
    z = normal(1, Stream.FORCING, 0, count).double().numpy()
    assert 0 < u.min() < u.max() < 1
    assert -1 < s.min() < s.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert stats.kstest(s, stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert stats.kstest(z, "norm").pvalue > 0.01
    # Neighboring positions and indices are uncorrelated (4 standard errors).
    bound = 4 / math.sqrt(count)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < bound
    other = normal(1, Stream.FORCING, 1, count).double().numpy()
    assert abs(np.corrcoef(z, other)[0, 1]) < bound


def test_extreme_words_reach_no_end_of_the_interval():
    words = torch.from_numpy(
        np.array(
            [0x0000000000000000, 0x7FFFFFFF7FFFFFFF, 0x8000000080000000, 0xFFFFFFFFFFFFFFFF],
            dtype=np.uint64,
        ).view(np.int64)
    )
    numbers = torch.empty(8)
    to_uniform(words, numbers)
    assert 0 < numbers.min() < numbers.max() < 1
    assert numbers.min() + numbers.max() == 1
    to_normal(words, numbers)
    assert numbers.isfinite().all()
    assert 6 < numbers.abs().max() < 6.57


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for draw in DRAWS:
        draw(42, Stream.WEIGHTS, 0, 1000)
    assert torch.equal(before, torch.get_rng_state())
