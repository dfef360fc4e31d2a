"""Kernels that draw random numbers, against the plain versions and NumPy's Philox."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from spinlock.kernels import draw_check, philox_kernel, weight_draws
from spinlock.kernels.draw_check import draws_agree
from spinlock.kernels.operands import read_operands
from spinlock.kernels.random_draws import DISTRIBUTIONS, draw_numbers, signed
from spinlock.kernels.weight_draws import WEIGHT_TILE, LayerRow, draw_weights, weight_tiles
from spinlock.simulation import randomness
from spinlock.simulation.randomness import Stream, normal, symmetric_uniform, uniform

# The kernels need a GPU, or else Triton's interpreter, which reads tensors of the CPU.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DRAWS = {"uniform": uniform, "normal": normal, "symmetric_uniform": symmetric_uniform}
ADDRESSES = [(0, 0), (7, 3), (2**40 + 1, (5 << 16) + 2)]
SEEDS = [0, 42, 2**63 + 12345, 2**64 - 1]


def launched(addresses, seed, stream, count, distribution, scale=1.0):
    addresses = torch.tensor(addresses, device=DEVICE)
    launch = philox_kernel.launch_draw_numbers
    return launch(addresses, signed(seed), stream, count, distribution, scale).cpu()


def assert_same(distribution, drawn, expected):
    if distribution == "normal":
        # Logarithms, sines and cosines may differ in the last bits.
        torch.testing.assert_close(drawn, expected, rtol=1e-6, atol=2e-6)
    else:
        assert torch.equal(drawn, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_kernel_draws_the_numbers_of_the_public_functions(distribution, seed):
    # More than a program draws, and no multiple of a Philox block.
    count = 2 * 4 * DISTRIBUTIONS[distribution][0] * philox_kernel.DRAW_BLOCKS + 3
    scale = {"scale": 0.37} if distribution == "symmetric_uniform" else {}
    drawn = launched(ADDRESSES, seed, Stream.FORCING, count, distribution, **scale)
    assert drawn.shape == (len(ADDRESSES), count)
    for row, (index, substream) in zip(drawn, ADDRESSES, strict=True):
        expected = DRAWS[distribution](
            seed, Stream.FORCING, index, count, substream=substream, **scale
        )
        assert_same(distribution, row, expected)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    stream=st.sampled_from(Stream),
    address=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
    count=st.integers(1, 40),
)
def test_words_are_those_of_numpy(seed, stream, address, count):
    """Uniform numbers have 23 bits of each half of a word; symmetric ones have all bits."""
    counter = np.array([0, address[1], address[0], stream], dtype=np.uint64)
    key = np.array([seed, 0], dtype=np.uint64)
    raw = np.random.Philox(counter=counter, key=key).random_raw(count)
    drawn = launched([address], seed, stream, 4 * count, "symmetric_uniform", 2.0**15)
    levels = raw.astype("<u8").view("<i2")
    assert torch.equal(drawn[0], torch.from_numpy(levels.astype(np.float32) + 0.5))
    drawn = launched([address], seed, stream, 2 * count, "uniform")
    cells = (raw.astype("<u8").view("<u4") ^ 0x80000000) >> 9
    assert torch.equal(drawn[0].double(), torch.from_numpy((cells + 0.5) / 2**23))


@pytest.mark.parametrize(("addresses", "count"), [([], 5), ([(1, 2)], 0)])
def test_nothing_is_drawn_of_nothing(addresses, count):
    empty = torch.tensor(addresses, dtype=torch.int64, device=DEVICE).view(-1, 2)
    drawn = philox_kernel.launch_draw_numbers(empty, 1, 1, count, "normal", 1.0)
    assert drawn.shape == (len(addresses), count)


def group(dtype):
    """A table of layers whose sizes are no multiples of a tile, and an arena for them."""
    sizes = [(5, 7, 9), (48, 33, 9), (1, 1, 1), (64, 64, 1)]
    rows, offset = [], 32
    for number, (fan_in, fan_out, taps) in enumerate(sizes, 1):
        padded_in, padded_out = -(-fan_in // 16) * 16, -(-fan_out // 16) * 16
        operator = 2**40 + number // 3
        rows.append(
            LayerRow(operator, number, fan_in, fan_out, taps, padded_in, padded_out, offset)
        )
        offset += taps * padded_in * padded_out
    layers = np.array(rows)
    high = torch.zeros(offset, dtype=dtype, device=DEVICE)
    low = torch.zeros(offset if dtype == torch.float16 else 0, dtype=torch.float16, device=DEVICE)
    tables = [torch.from_numpy(part).to(DEVICE) for part in (layers, *weight_tiles(layers))]
    return rows, high, low, tables


def rounded(weights, dtype):
    """Weights as the arithmetic of a dtype has them, float64; float16 has two exact parts."""
    if dtype == torch.float32:
        # To 11 significant bits, halves away from zero.
        fraction, exponent = np.frexp(weights.double().numpy())
        steps = np.sign(fraction) * np.floor(np.abs(fraction) * 2**11 + 0.5)
        return torch.from_numpy(np.ldexp(steps, exponent - 11))
    return weights.to(torch.bfloat16).double() if dtype == torch.bfloat16 else weights.double()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("draw", ["kernel", "operation"])
def test_weights_of_a_group_are_those_of_its_operators(draw, dtype):
    seed = 2**64 - 5
    rows, high, low, tables = group(dtype)
    if draw == "kernel":
        philox_kernel.launch_draw_weights(high, low, *tables, signed(seed))
    else:
        draw_weights(high, low, *tables, seed)
    arena = high.cpu()
    if dtype == torch.float16:
        arena = read_operands(arena, low.cpu())
    arena = arena.double()
    for row in rows:
        shape = row.taps, row.fan_in, row.fan_out
        drawn = symmetric_uniform(
            seed, Stream.WEIGHTS, row.operator, row.weights, substream=row.substream
        )
        place = arena[row.offset :][: row.taps * row.padded_in * row.padded_out]
        place = place.view(row.taps, row.padded_in, row.padded_out)
        inside = place[:, : row.fan_in, : row.fan_out]
        assert torch.equal(inside, rounded(drawn, dtype).view(shape))
        inside.zero_()
    # The padding, and what lies before the first layer, stay zero.
    assert not arena.any()


def test_tiles_cover_each_layer_once():
    layers = group(torch.float32)[0]
    tile_layer, tile_index = weight_tiles(np.array(layers))
    for number, row in enumerate(layers):
        tiles = tile_index[tile_layer == number].tolist()
        assert tiles == list(range(len(tiles)))
        assert 16 * WEIGHT_TILE * (len(tiles) - 1) < row.weights <= 16 * WEIGHT_TILE * len(tiles)


def test_the_stream_of_weights_is_that_of_operators():
    assert weight_draws.WEIGHT_STREAM == Stream.WEIGHTS


class Counter(TorchDispatchMode):
    """Counts the operations that draw."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("draw", DRAWS.values())
def test_the_meta_device_counts_one_operation_for_a_draw(draw):
    index = torch.arange(6, device="meta").view(2, 3)
    with Counter() as counter:
        drawn = draw(42, Stream.FORCING, index, 7, substream=3, device="meta")
        alone = draw(42, Stream.FORCING, 5, 7, device="meta")
    assert drawn.shape == (2, 3, 7)
    assert alone.shape == (7,)
    assert drawn.device.type == alone.device.type == "meta"
    assert [name for name in counter.names if "spinlock" in name] == 2 * [
        "spinlock.draw_numbers.default"
    ]


@pytest.mark.skipif(DEVICE.type == "cpu", reason="CUDA alone synchronizes")
def test_a_draw_does_not_wait_for_the_device():
    index = torch.arange(6, device=DEVICE)
    uniform(42, Stream.FORCING, index, 7, device=DEVICE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for where in (index, index.cpu(), 5):
            normal(42, Stream.FORCING, where, 7, substream=3, device=DEVICE)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def unchecked():
    """Lets each test check the device anew."""
    draws_agree.cache_clear()
    yield
    draws_agree.cache_clear()


def test_a_kernel_that_agrees_is_used(unchecked, recwarn):
    assert draws_agree(DEVICE)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("no compiler"), "no compiler"),
        (2.0**-23, "differs"),
        (float("nan"), "differs"),
    ],
)
def test_a_kernel_that_fails_or_differs_is_not_used(fault, message, unchecked, monkeypatch):
    calls = []

    def drawn(addresses, *arguments):
        # The first draw of each pair is that of the CPU.
        calls.append(len(calls))
        if calls[-1] % 2 == 0:
            return draw_numbers(addresses, *arguments)
        if isinstance(fault, Exception):
            raise fault
        return draw_numbers(addresses, *arguments) + fault

    monkeypatch.setattr(draw_check, "draw_numbers", drawn)
    with pytest.warns(UserWarning, match=message):
        assert not draws_agree(DEVICE)


def test_without_triton_the_host_draws(unchecked, monkeypatch):
    monkeypatch.setattr(draw_check, "triton_available", lambda: False)
    assert not draws_agree(DEVICE)


def test_the_operation_equals_the_host_path_without_triton():
    """The words that threads draw for devices without Triton give the same numbers."""
    addresses = torch.tensor(ADDRESSES)
    words = randomness._words_from_host(42, Stream.FORCING, addresses, 9, torch.device("cpu"))
    for name, (per_word, convert) in DISTRIBUTIONS.items():
        out = torch.empty(len(addresses), 9 * per_word)
        convert(words, out, 0.5)
        drawn = draw_numbers(addresses, 42, Stream.FORCING, 9 * per_word - 1, name, 0.5)
        assert torch.equal(drawn, out[:, :-1])
