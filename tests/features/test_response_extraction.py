"""Batches, chunks, devices, dtypes and error messages of the extraction of responses."""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spinlock.features.response import (
    NOISE_NAMES,
    RESPONSE_FEATURES,
    TRANSPORT_NAMES,
    ResponseFeatures,
    divergence_names,
    extract_responses,
    response_extraction,
    response_names,
)

aten = torch.ops.aten
RELATIVE = {"rtol": 1e-4, "atol": 1e-4}


def samples(count, realizations, steps, channels, side=16, seed=0, dtype=torch.float32):
    """Initial conditions, and trajectories of a nonlinear map with noise."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, channels, side, side, generator=generator)

    initial = noise(count)
    field = initial[:, None].expand(-1, realizations, -1, -1, -1)
    fields = []
    for _ in range(steps):
        mixed = 0.6 * field + 0.3 * field.roll((1, 2), (-2, -1)).flip(2)
        field = torch.tanh(mixed) + 0.1 * field.square() + 0.2 * noise(count, realizations)
        fields.append(field)
    return initial.to(dtype), torch.stack(fields, dim=2).to(dtype)


def joined(features):
    """All columns of all samples, [N, ...] each flattened."""
    return torch.cat([values.flatten(1) for values in features], dim=1)


@pytest.mark.parametrize(("realizations", "steps", "channels"), [(1, 1, 1), (5, 1, 3), (2, 4, 9)])
def test_shapes_dtypes_and_names(realizations, steps, channels):
    features = extract_responses(*samples(2, realizations, steps, channels))
    assert isinstance(features, ResponseFeatures)
    columns = steps if steps > 1 else 0
    shapes = [(2, steps, 13 + channels), (2, steps, 5), (2, 6), (2, columns)]
    assert [tuple(values.shape) for values in features] == shapes
    assert all(values.dtype == torch.float32 for values in features)
    assert len(response_names(channels)) == 13 + channels
    assert len(NOISE_NAMES) == 6
    assert len(divergence_names(steps)) == columns


def test_registry_rows_stand_in_column_order():
    rows = {"response": [], "transport": [], "noise": [], "divergence": []}
    for row in RESPONSE_FEATURES:
        rows[row.group].append(row.name)
    assert tuple(rows["response"]) == tuple(
        name.replace("channel_mean_0", "channel_mean_c") for name in response_names(1)
    )
    assert tuple(rows["transport"]) == TRANSPORT_NAMES
    assert tuple(rows["noise"]) == NOISE_NAMES
    assert tuple(rows["divergence"]) == tuple(
        name.replace("divergence_1", "divergence_t") for name in divergence_names(2)
    )


def test_names_are_unique_and_channels_stand_together():
    names = response_names(12)
    others = (*TRANSPORT_NAMES, *NOISE_NAMES, *divergence_names(5))
    assert len({*names, *others}) == len(names) + 5 + 6 + 5
    first = names.index("channel_mean_0")
    assert names[first : first + 12] == tuple(f"channel_mean_{c}" for c in range(12))


@pytest.mark.parametrize(
    ("realizations", "steps", "channels", "side"),
    [(3, 1, 3, 16), (1, 4, 9, 16), (5, 2, 1, 8), (1, 1, 1, 128), (1, 2, 3, 128), (2, 1, 2, 96)],
)
def test_batching_changes_nothing(realizations, steps, channels, side):
    initial, fields = samples(4, realizations, steps, channels, side)
    together = joined(extract_responses(initial, fields))
    alone = [
        joined(extract_responses(initial[row : row + 1], fields[row : row + 1])) for row in range(4)
    ]
    assert torch.equal(together.nan_to_num(), torch.cat(alone).nan_to_num())


class Products(TorchDispatchMode):
    """Records the dtypes of the factors of matrix products."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Inference mode does not decompose matmul before it arrives here.
        kinds = (aten.matmul, aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv)
        if function.overloadpacket in kinds:
            self.dtypes |= {factor.dtype for factor in args}
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("channels", [3, 9])
def test_products_do_not_depend_on_the_setting_of_tf32(channels):
    """The setting reduces the precision of float32 and complex64 factors."""
    with Products() as products:
        extract_responses(*samples(2, 3, 2, channels))
    assert products.dtypes == {torch.float64, torch.complex128}


def test_chunks_change_only_rounding(monkeypatch):
    initial, fields = samples(5, 3, 4, 2)
    whole = joined(extract_responses(initial, fields))
    sizes = []
    spectra = response_extraction.step_spectra

    def counted(u, w):
        sizes.append(len(u))
        return spectra(u, w)

    monkeypatch.setattr(response_extraction, "step_spectra", counted)
    # Three steps of 2 x 2 x 16 x 16 pixels fit, but not one sample of all realizations.
    monkeypatch.setattr(response_extraction, "_CPU_CHUNK", 3 * 2 * 2 * 16 * 16)
    split = joined(extract_responses(initial, fields))
    assert sizes == [2, 2, 1] + [3] * 15
    torch.testing.assert_close(split, whole, **RELATIVE)


def test_steps_of_a_longer_trajectory_are_the_same():
    initial, fields = samples(2, 3, 5, 2)
    whole = extract_responses(initial, fields)
    start = extract_responses(initial, fields[:, :, :2])
    torch.testing.assert_close(start.per_timestep, whole.per_timestep[:, :2], **RELATIVE)
    torch.testing.assert_close(start.noise, whole.noise, **RELATIVE)
    torch.testing.assert_close(start.divergence[:, 0], whole.divergence[:, 0], **RELATIVE)


def test_extraction_never_waits_for_a_device():
    """Tensors of the meta device have no values, so nothing can depend on them."""
    initial, fields = (values.to("meta") for values in samples(2, 3, 3, 2))
    features = extract_responses(initial, fields)
    assert [tuple(values.shape) for values in features] == [(2, 3, 15), (2, 3, 5), (2, 6), (2, 3)]


def test_fields_are_neither_changed_nor_differentiated():
    initial, fields = samples(2, 3, 2, 2)
    copies = initial.clone(), fields.clone()
    features = extract_responses(initial.requires_grad_(), fields.requires_grad_())
    assert not any(values.requires_grad for values in features)
    assert torch.equal(initial, copies[0])
    assert torch.equal(fields, copies[1])


def test_strided_and_double_fields_give_the_same():
    initial, fields = samples(2, 3, 2, 2)
    wanted = joined(extract_responses(initial, fields))
    strided = fields.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(joined(extract_responses(initial, strided)), wanted)
    assert torch.equal(joined(extract_responses(initial.double(), fields.double())), wanted)


@pytest.mark.parametrize("channels", [1, 3, 8, 12])
@pytest.mark.parametrize("side", [8, 17, 32])
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e4])
def test_all_values_are_finite(channels, side, scale):
    initial, fields = samples(1, 2, 2, channels, side)
    features = joined(extract_responses(scale * initial, scale * fields))
    assert features.isfinite().all()
    # From a constant field, and to one.
    assert joined(extract_responses(0 * initial + scale, scale * fields)).isfinite().all()
    assert joined(extract_responses(scale * initial, 0 * fields + scale)).isfinite().all()


def test_a_rectangular_grid():
    """Swapping the axes of a grid swaps the displacement and changes nothing else."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(1, 2, 24, 40, generator=generator)
    w = (0.5 * u.roll((1, 2), (-2, -1)) + 0.2 * u.roll(1, -1).square())[:, None, None]
    row = extract_responses(u, w).per_timestep[0, 0]
    swapped = extract_responses(u.mT, w.mT).per_timestep[0, 0]
    torch.testing.assert_close(swapped, row, **RELATIVE)


def shaped(initial, fields):
    return torch.zeros(initial), torch.zeros(fields)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (shaped((2, 3, 16), (2, 1, 1, 3, 16, 16)), ValueError, "expected [N, C, H, W]"),
        (shaped((2, 3, 16, 16), (2, 1, 3, 16, 16)), ValueError, "expected [N, M, T, C, H, W]"),
        (shaped((2, 3, 16, 16), (3, 1, 1, 3, 16, 16)), ValueError, "shape (3, 3, 16, 16)"),
        (shaped((2, 2, 16, 16), (2, 1, 1, 3, 16, 16)), ValueError, "shape (2, 3, 16, 16)"),
        (shaped((2, 3, 16, 8), (2, 1, 1, 3, 16, 16)), ValueError, "shape (2, 3, 16, 16)"),
        (shaped((2, 3, 16, 7), (2, 1, 1, 3, 16, 7)), ValueError, "at least 8 per side"),
        (shaped((2, 3, 16, 16), (2, 0, 1, 3, 16, 16)), ValueError, "may be empty"),
        (
            (torch.zeros(2, 3, 16, 16), torch.zeros(2, 1, 1, 3, 16, 16, device="meta")),
            ValueError,
            "on cpu and fields on meta",
        ),
        (
            (torch.zeros(2, 3, 16, 16).long(), torch.zeros(2, 1, 1, 3, 16, 16)),
            TypeError,
            "torch.int64",
        ),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        extract_responses(*arguments)
