"""Operators: agreement with a float64 oracle, calibration, symmetry and bounds."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spinlock.simulation import convolutional_operator as operators
from spinlock.simulation.calibration import calibration_fields
from spinlock.simulation.convolution import periodic_convolution
from spinlock.simulation.convolutional_operator import (
    OUTPUT_BOUND,
    ConvOperator,
)
from spinlock.simulation.network_layers import Layer, hidden_widths, variance_preserving_gain
from spinlock.simulation.operator_weights import OperatorDrawing
from spinlock.simulation.parameter_count import parameter_count
from tests.helpers import values
from tests.reference_operator import ReferenceOperator

SEED, INDEX = 42, 7


def make(v, device="cpu", index=INDEX):
    return ConvOperator(v, seed=SEED, index=index, channels=3, device=device)


def batch(v, device="cpu"):
    return calibration_fields(SEED, 3, v.grid_size, v.kernel_size, torch.device(device))


def fields(num=2, size=32, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num, 3, size, size, generator=generator)


def root_mean_square(x):
    return float(x.double().square().mean().sqrt())


@pytest.mark.parametrize(
    ("num_layers", "normalization", "activation", "kernel_size"),
    [
        *itertools.product((2, 3, 4, 5), ("none", "instance", "batch"), ("gelu",), (3,)),
        (2, "none", "relu", 5),
        (5, "batch", "silu", 7),
        (3, "instance", "relu", 1),
    ],
)
def test_agrees_with_the_oracle(num_layers, normalization, activation, kernel_size, device):
    v = values(
        num_layers=num_layers,
        normalization=normalization,
        activation=activation,
        kernel_size=kernel_size,
        dropout_rate=0.25,
        grid_size=16,
    )
    u = fields(size=16, scale=2.0)
    reference = ReferenceOperator(v, SEED, INDEX, 3, batch(v).numpy())
    expected = torch.from_numpy(reference(u.numpy())).float()
    torch.testing.assert_close(make(v, device)(u.to(device)).cpu(), expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("normalization", ["none", "instance", "batch"])
@pytest.mark.parametrize("num_layers", [2, 5])
def test_preactivations_and_output_have_unit_rms_on_the_calibration_batch(
    num_layers, normalization
):
    v = values(num_layers=num_layers, normalization=normalization, dropout_rate=0.3)
    reference = ReferenceOperator(v, SEED, INDEX, 3, batch(v).numpy())
    reference(batch(v).numpy())
    assert len(reference.preactivations) == num_layers * (2 if num_layers > 3 else 1)
    for preactivation in reference.preactivations:
        # Normalization divides by sqrt(variance + 1e-5), and on 8 x 8 pixels misses a little.
        assert np.sqrt(np.mean(preactivation**2)) == pytest.approx(1, abs=2e-3)
    assert root_mean_square(make(v)(batch(v))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("num_layers", "widths"), [(2, [8, 16]), (3, [8, 16, 32]), (5, [8, 16, 32, 32, 32])]
)
def test_widths(num_layers, widths):
    assert hidden_widths(values(num_layers=num_layers)) == widths


@pytest.mark.parametrize("num_layers", [2, 3, 5])
def test_flops_are_those_of_the_weights(num_layers):
    v = values(num_layers=num_layers)
    reference = ReferenceOperator(v, SEED, INDEX, 3, batch(v)[:1].numpy())
    weights = reference.input.size + reference.output.size
    for block in reference.blocks:
        weights += sum(convolution["weight"].size for convolution in block["convolutions"])
        weights += 0 if block["projection"] is None else block["projection"].size
    assert parameter_count(v, 3) == weights


@pytest.mark.parametrize("grid_size", [32, 64, 128])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_calibration_costs_an_eighth_of_an_application(grid_size, kernel_size):
    v = values(grid_size=grid_size, kernel_size=kernel_size)
    calibration = batch(v)
    assert calibration[:, 0].numel() <= grid_size**2 / 8
    variance = calibration.square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(variance, torch.ones_like(variance))


def test_gain_preserves_variance():
    """relu halves the second moment; other gains are compared with Monte Carlo estimates."""
    assert variance_preserving_gain("relu") == pytest.approx(2**0.5, rel=1e-6)
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, function in {"gelu": torch.nn.GELU(), "silu": torch.nn.SiLU()}.items():
        second_moment = float(function(z).square().mean())
        assert variance_preserving_gain(name) == pytest.approx(second_moment**-0.5, rel=5e-3)


@pytest.mark.parametrize("normalization", ["none", "instance", "batch"])
def test_commutes_with_translation(normalization, device):
    """Periodic convolutions and pointwise maps commute with shifts."""
    operator = make(values(num_layers=4, kernel_size=5, normalization=normalization), device)
    u = fields().to(device)
    shifted = operator(u.roll((5, -9), dims=(-2, -1)))
    torch.testing.assert_close(
        shifted, operator(u).roll((5, -9), dims=(-2, -1)), rtol=1e-3, atol=2e-5
    )


@pytest.mark.parametrize("normalization", ["none", "instance", "batch"])
def test_a_field_does_not_feel_the_others(normalization):
    """Batch statistics are frozen, so F maps each field independently."""
    operator = make(values(normalization=normalization))
    u = fields(num=3)
    torch.testing.assert_close(operator(u)[1:2], operator(u[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
@pytest.mark.parametrize("normalization", ["none", "instance", "batch"])
def test_output_is_bounded_and_finite(scale, normalization):
    output = make(values(num_layers=5, normalization=normalization))(fields(scale=scale))
    assert output.isfinite().all()
    assert output.abs().max() <= OUTPUT_BOUND


def test_the_argument_is_left_alone():
    u = fields()
    before = u.clone()
    make(values(num_layers=5))(u)
    assert torch.equal(u, before)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.3])
def test_dropout_silences_the_stated_share(rate):
    silenced = []
    for index in range(40):
        v = values(base_channels=20, dropout_rate=rate)
        reference = ReferenceOperator(v, SEED, index, 3, batch(v)[:1].numpy())
        for block in reference.blocks:
            mask = block["convolutions"][0]["mask"].ravel()
            count = int((mask == 0).sum())
            assert abs(count - rate * len(mask)) < 1
            assert np.unique(mask[mask > 0]) == pytest.approx(1 / (1 - rate))
            silenced.append(count / len(mask))
    assert np.mean(silenced) == pytest.approx(rate, abs=0.01)


def test_index_and_seed_address_the_operator():
    u, v = fields(), values()
    first = make(v)(u)
    assert torch.equal(first, make(v)(u))
    assert not torch.allclose(first, make(v, index=8)(u), atol=0.1)
    other_seed = ConvOperator(v, seed=43, index=INDEX, channels=3)
    assert not torch.allclose(first, other_seed(u), atol=0.1)


@pytest.mark.parametrize("num_layers", [2, 5])
def test_bfloat16_is_near_float32_and_not_equal(num_layers, device):
    v = values(num_layers=num_layers, grid_size=16, normalization="none")
    u = fields(size=16).to(device)
    outputs = {
        precision: ConvOperator(v, seed=SEED, index=INDEX, precision=precision, device=device)(u)
        for precision in ("float32", "bfloat16")
    }
    error = root_mean_square(outputs["bfloat16"] - outputs["float32"])
    # Each of up to 12 layers rounds twice to 8 bits.
    assert 2**-10 < error / root_mean_square(outputs["float32"]) < 2**-4


@pytest.mark.parametrize(("num_layers", "count"), [(2, 4), (5, 14)])
def test_every_convolution_is_rounded_to_bfloat16(num_layers, count, monkeypatch):
    """Input, output and hidden convolutions, and the projections of residual networks."""
    operator = ConvOperator(
        values(num_layers=num_layers, grid_size=16), seed=SEED, index=INDEX, precision="bfloat16"
    )
    seen = []

    def recorded(x, weight, bias=None, *, tf32=False):
        seen.append((weight.dtype, tf32))
        return periodic_convolution(x, weight, bias)

    monkeypatch.setattr(operators, "periodic_convolution", recorded)
    operator(torch.ones(1, 3, 16, 16))
    assert seen == [(torch.bfloat16, False)] * count


class Convolutions(TorchDispatchMode):
    """Records dtype and arithmetic of the convolutions of a device."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "conv" not in str(func):
            return func(*args, **(kwargs or {}))
        named = dict(zip([a.name for a in func._schema.arguments], args, strict=False))
        tf32 = (named | (kwargs or {}))["allow_tf32"]
        # In torch 2.6, the meta device has this convolution alone.
        result = torch.ops.aten.convolution(*args[:9])
        self.seen.append((result.dtype, tf32))
        return result


@pytest.mark.parametrize(
    ("precision", "applied"),
    [
        ("float32", (torch.float32, False)),
        ("tf32", (torch.float32, True)),
        ("bfloat16", (torch.bfloat16, False)),
    ],
)
@pytest.mark.parametrize("layers", [2, 5])
def test_calibration_on_a_device_is_float32_in_every_precision(layers, precision, applied):
    """The meta device takes the way of an accelerator, without computing."""
    drawn = values(num_layers=layers, grid_size=16, normalization="batch")
    with torch.inference_mode(), Convolutions() as calibration:
        operator = ConvOperator(drawn, seed=SEED, index=INDEX, precision=precision, device="meta")
    with torch.inference_mode(), Convolutions() as application:
        operator(torch.empty(1, 3, 16, 16, device="meta"))
    assert len(calibration.seen) == len(application.seen) == {2: 4, 5: 14}[layers]
    assert set(calibration.seen) == {(torch.float32, False)}
    assert set(application.seen) == {applied}


def test_calibration_fields_run_from_white_to_smooth():
    """Spectra f^0, f^-1, f^-2, f^-3 in turn, of unit variance without a mean."""
    batch = calibration_fields(SEED, 3, 512, 7, torch.device("cpu")).double()
    assert batch.shape == (8, 3, 64, 64)
    assert batch.mean(dim=(2, 3)).abs().max() < 1e-6
    f = np.hypot.outer(np.fft.fftfreq(64), np.fft.rfftfreq(64))[:, 1:32]
    power = np.abs(np.fft.rfft2(batch.numpy()))[..., 1:32] ** 2
    for number, spectra in enumerate(power):
        slope = np.polyfit(np.log(f).ravel(), np.log(spectra.mean(axis=0)).ravel(), 1)[0]
        assert slope == pytest.approx(-(number % 4), abs=0.15)
    assert len({field.numpy().tobytes() for field in batch}) == 8


def test_drawn_weights_have_the_stated_variance():
    layer = Layer(number=1, fan_in=32, fan_out=64, kernel=5, gain=1.5)
    weight = OperatorDrawing(SEED, INDEX, values(), torch.device("cpu")).weight(layer)
    assert weight.shape == (64, 32, 5, 5)
    assert float(weight.var()) == pytest.approx(1.5**2 / (32 * 25), rel=0.02)
    inputs = torch.tensor([3, 0, 31])
    drawing = OperatorDrawing(SEED, INDEX, values(), torch.device("cpu"))
    assert torch.equal(drawing.weight(layer, inputs), weight[:, inputs])
