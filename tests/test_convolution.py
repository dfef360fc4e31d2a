"""Periodic convolution: both methods agree with explicit sums in float64."""

import inspect

import numpy as np
import pytest
import torch

from spinlock.simulation import fourier_tiles
from spinlock.simulation.convolution import (
    choose_tile,
    direct_convolution,
    periodic_convolution,
    prepared,
    select_outputs,
)
from spinlock.simulation.fourier_tiles import tiled_convolution
from tests.reference_operator import convolve

KERNELS = (3, 5, 7, 9)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(y, expected):
    """Root mean square of the error, relative to that of the expected values."""
    return float((y.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def fields(kind, *shape):
    white = normal(*shape)
    if kind == "white":
        return white
    smooth = torch.fft.rfft2(white)
    smooth[..., 3:-3, :] = 0
    smooth[..., 3:] = 0
    return torch.fft.irfft2(smooth, s=shape[-2:]) + 100


@pytest.mark.parametrize("method", ["direct", "tiles", "chosen"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(1, 4, 9, 9), (5, 3, 32, 32), (2, 7, 17, 23), (1, 20, 40, 24)])
def test_agrees_with_sums_in_float64(method, kernel, shape):
    x, weight, bias = normal(*shape), normal(6, shape[1], kernel, kernel, seed=1), normal(6, seed=2)
    expected = torch.from_numpy(convolve(x.double().numpy(), weight.double().numpy()))
    if method == "direct":
        y, shifted = direct_convolution(x, weight), direct_convolution(x, weight, bias)
    elif method == "tiles":
        tile = kernel + 7
        y, shifted = (tiled_convolution(x, weight, b, tile=tile) for b in (None, bias))
    else:
        y, shifted = periodic_convolution(x, weight), periodic_convolution(x, weight, bias)
    assert y.shape == shifted.shape == (len(x), 6, *shape[2:])
    assert relative_error(y, expected) < 1e-6
    assert relative_error(shifted, expected + bias[:, None, None]) < 1e-6


@pytest.mark.parametrize("kind", ["white", "smooth on a large mean"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("valid", [2, 8, 16])
def test_tiles_agree_with_direct_at_the_widths_that_use_them(kind, kernel, valid):
    x, weight = fields(kind, 1, 64, 64, 64), normal(64, 64, kernel, kernel, seed=1)
    expected = direct_convolution(x.double(), weight.double())
    y = tiled_convolution(x, prepared(weight), tile=kernel - 1 + valid)
    assert relative_error(y, expected) < 1e-6
    # No pixel is singled out: the largest error of 260,000 is a few root mean squares.
    assert (y - expected).abs().max() < 1e-5 * expected.square().mean().sqrt()


@pytest.mark.parametrize("size", [8, 10])
@pytest.mark.parametrize("tile", [8, 14, 22, 32])
def test_tiles_larger_than_the_field(size, tile):
    x, weight = normal(3, 2, size, size), normal(4, 2, 7, 7, seed=1)
    expected = torch.from_numpy(convolve(x.double().numpy(), weight.double().numpy()))
    assert relative_error(tiled_convolution(x, weight, tile=tile), expected) < 1e-6


@pytest.mark.parametrize("kernel", KERNELS)
def test_is_linear_and_commutes_with_translation(kernel):
    x, z = normal(1, 5, 30, 26), normal(1, 5, 30, 26, seed=1)
    weight = normal(6, 5, kernel, kernel, seed=2)

    def apply(field):
        return tiled_convolution(field, weight, tile=kernel + 7)

    torch.testing.assert_close(apply(2 * x - z), 2 * apply(x) - apply(z), rtol=1e-4, atol=1e-3)
    shifted = apply(x.roll((7, -11), dims=(2, 3)))
    torch.testing.assert_close(
        shifted, apply(x).roll((7, -11), dims=(2, 3)), rtol=1e-4, atol=1e-4 * kernel
    )


def test_repeats_bit_for_bit_whatever_ran_before():
    x, weight = normal(2, 24, 40, 40), normal(32, 24, 5, 5, seed=1)
    first = tiled_convolution(x, weight, tile=12)
    tiled_convolution(normal(5, 40, 64, 64), normal(16, 40, 7, 7), tile=22)
    assert torch.equal(tiled_convolution(x, weight, tile=12), first)
    assert torch.equal(tiled_convolution(x, prepared(weight), tile=12), first)


def test_memory_made_in_inference_mode_serves_outside():
    x, weight = normal(1, 4, 16, 16), normal(4, 4, 3, 3)
    with torch.inference_mode():
        first = tiled_convolution(normal(1, 90, 32, 32), normal(90, 90, 3, 3), tile=10)
    assert first.shape == (1, 90, 32, 32)
    assert tiled_convolution(x, weight, tile=10).shape == x.shape


def test_fields_in_one_pass_are_bounded(monkeypatch):
    """Many fields are processed in groups, with the same result up to rounding."""
    x, weight = normal(5, 8, 32, 32), normal(8, 8, 5, 5, seed=1)
    whole = tiled_convolution(x, weight, tile=12)
    monkeypatch.setattr(fourier_tiles, "MAX_TILE_BYTES", 1)
    torch.testing.assert_close(tiled_convolution(x, weight, tile=12), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("largest_part", [0, 1 << 30])
def test_weights_made_in_parts_give_the_same_result(monkeypatch, largest_part):
    x, weight = normal(2, 12, 32, 32), normal(10, 12, 5, 5, seed=1)
    monkeypatch.setattr(fourier_tiles, "_WHOLE_ROW_BYTES", 1 << 30)
    whole = tiled_convolution(x, weight, tile=20)
    monkeypatch.setattr(fourier_tiles, "_WHOLE_ROW_BYTES", 0)
    monkeypatch.setattr(fourier_tiles, "_PART_BYTES", largest_part)
    assert fourier_tiles._bins_at_once(20, 120) == (20 if largest_part else 10)
    torch.testing.assert_close(tiled_convolution(x, weight, tile=20), whole, rtol=1e-6, atol=1e-6)


def test_workspace_stays_bounded():
    """For the largest layer of the baseline: weights transformed along rows, and a few tiles."""
    workspace = fourier_tiles._Workspace()
    original, fourier_tiles._workspace = fourier_tiles._workspace, workspace
    try:
        x, weight = normal(1, 256, 128, 128), normal(256, 256, 7, 7)
        tiled_convolution(x, weight, tile=choose_tile(7, 256, 256, (1, 128, 128)))
    finally:
        fourier_tiles._workspace = original
    held = sum(part.numel() * 4 for part in workspace._parts.values())
    assert held < 200 * 2**20


def test_choice_depends_on_shapes_alone():
    assert list(inspect.signature(choose_tile).parameters) == [
        "kernel",
        "fan_in",
        "fan_out",
        "fields",
    ]
    threads = torch.get_num_threads()
    cases = [
        (kernel, fan_in, fan_out, (n, size, size))
        for kernel in (1, 3, 5, 7, 9)
        for fan_in in (3, 16, 130, 256)
        for fan_out in (3, 64, 256)
        for n in (1, 5)
        for size in (8, 32, 128)
    ]
    chosen = [choose_tile(*case) for case in cases]
    try:
        torch.set_num_threads(1)
        assert [choose_tile(*case) for case in cases] == chosen
    finally:
        torch.set_num_threads(threads)
    for (kernel, *_), tile in zip(cases, chosen, strict=True):
        assert tile is None or (tile % 2 == 0 and tile > kernel)
        assert kernel > 1 or tile is None
    assert choose_tile(7, 256, 256, (1, 128, 128)) is not None
    assert choose_tile(3, 3, 16, (1, 128, 128)) is None


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_preparing_and_selecting_change_no_value(kernel, device):
    weight, outputs = normal(6, 5, kernel, kernel).to(device), torch.tensor([0, 2, 5])
    assert torch.equal(prepared(weight), weight)
    selected = select_outputs(prepared(weight), outputs.to(device))
    assert torch.equal(selected, weight[outputs.to(device)])


def test_gradients_of_the_field_still_flow():
    x = normal(1, 64, 32, 32).requires_grad_()
    weight = normal(64, 64, 7, 7)
    periodic_convolution(x, weight)[0, 0, 0, 0].backward()
    np.testing.assert_allclose(x.grad[0, :, 0, 0], weight[0, :, 3, 3], rtol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_bfloat16_rounds_operands_and_results(kernel, device):
    x, weight, bias = (
        normal(2, 20, 16, 16),
        normal(6, 20, kernel, kernel, seed=1),
        normal(6, seed=2),
    )
    rounded = [value.bfloat16().double().numpy() for value in (x, weight)]
    expected = torch.from_numpy(convolve(*rounded)).bfloat16().double()
    weight = prepared(weight.to(device)).to(torch.bfloat16)
    y = periodic_convolution(x.to(device), weight, bias.to(device))
    assert y.dtype == torch.float32
    unbiased = (y.cpu() - bias[:, None, None]).double()
    # Sums in another order may round to the neighboring number, 2^-8 apart. Few do.
    assert torch.allclose(unbiased, expected, rtol=2**-7, atol=1e-5)
    assert ((unbiased - expected).abs() > 1e-5).double().mean() < 0.02
