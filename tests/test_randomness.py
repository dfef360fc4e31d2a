"""Addressed randomness: known answers, an oracle in plain integers, and independence of company."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from spinlock.randomness import (
    Stream,
    _to_normal,
    _to_symmetric,
    _to_uniform,
    normal,
    philox4x32,
    symmetric_uniform,
    uniform,
)

DRAWS = [uniform, symmetric_uniform, normal]
WORDS_PER_NUMBER = {uniform: 1, symmetric_uniform: 0.5, normal: 1}


def reference_philox(counter, key):
    """Philox4x32-10 as Salmon et al. write it, on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2511F53, 1 << 32)
        high1, low1 = divmod(c[2] * 0xCD9E8D57, 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return c


def run_philox(counter, key, device="cpu"):
    words = philox4x32(tuple(torch.tensor([c], device=device) for c in counter), key)
    return [int(word) for word in words]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected, device):
    words = [int(word, 16) for word in expected.split()]
    assert run_philox(counter, key, device) == words
    assert reference_philox(counter, key) == words


def test_agrees_with_integer_oracle():
    rng = np.random.default_rng(0)
    for _ in range(50):
        counter = tuple(int(x) for x in rng.integers(0, 1 << 32, 4))
        key = tuple(int(x) for x in rng.integers(0, 1 << 32, 2))
        assert run_philox(counter, key) == reference_philox(counter, key)


def test_address_is_seed_stream_index_substream_position():
    """The documented counter layout, so that another implementation can find the same numbers."""
    seed = 0x1234567890ABCDEF
    drawn = uniform(seed, Stream.FORCING, 77, 12, substream=(3 << 16) + 9)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    words = [w for b in range(3) for w in reference_philox((b, (3 << 16) + 9, 77, 4), key)]
    expected = [((word >> 9) + 0.5) / 2**23 for word in words]
    assert drawn.tolist() == expected


@pytest.mark.parametrize("draw", DRAWS)
def test_a_number_does_not_depend_on_what_it_is_drawn_with(draw, device):
    index = torch.tensor([5, 0, 12345, 2**32 - 1], device=device)
    whole = draw(42, Stream.WEIGHTS, index, 70_000, substream=3, device=device)
    alone = draw(42, Stream.WEIGHTS, 12345, 100, substream=3, device=device)
    assert torch.equal(whole[2, :100], alone)
    both = draw(42, Stream.WEIGHTS, 5, 11, substream=torch.tensor([2, 3], device=device))
    assert torch.equal(both[1], whole[0, :11].cpu())


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
    # Neighbouring positions and indices are uncorrelated (4 standard errors).
    bound = 4 / math.sqrt(count)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < bound
    other = normal(1, Stream.FORCING, 1, count).double().numpy()
    assert abs(np.corrcoef(z, other)[0, 1]) < bound


def test_extreme_words_reach_no_end_of_the_interval():
    zeros, ones = torch.zeros(1, dtype=torch.int64), torch.full((1,), 2**32 - 1)
    for convert, low, high in ((_to_uniform, 0, 1), (_to_symmetric, -1, 1)):
        ends = torch.cat([convert((zeros,) * 4).flatten(), convert((ones,) * 4).flatten()])
        assert low < ends.min() < ends.max() < high
    assert _to_normal((zeros, zeros, ones, ones)).isfinite().all()


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for draw in DRAWS:
        draw(42, Stream.WEIGHTS, 0, 1000)
    assert torch.equal(before, torch.get_rng_state())
