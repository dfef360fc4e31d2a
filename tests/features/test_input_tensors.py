"""Memory layout, data type and gradients of the input, and what is done with it."""

import numpy as np
import pytest
import torch

from spinlock.features import extract, extract_per_timestep

from . import oracle
from .helpers import package_extract, random_fields


def test_same_input_same_bits(device):
    u = random_fields("mixture", (2, 2, 5, 2, 16, 15), 4)
    first, second = package_extract(u, device), package_extract(u, device)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


def test_memory_layout_does_not_matter(device):
    """A strided view (time first in memory, columns reversed) holds the same fields."""
    u = torch.from_numpy(random_fields("red", (2, 2, 5, 2, 12, 16), 5)).to(device)
    strided = u.permute(2, 5, 0, 1, 3, 4).contiguous().permute(2, 3, 0, 4, 5, 1)
    assert not strided.is_contiguous()
    expected = package_extract(u.cpu().numpy(), device)
    record = extract(strided)
    for key, value in expected.items():
        np.testing.assert_allclose(
            getattr(record, key).cpu().numpy(), value, rtol=1e-4, atol=1e-5, err_msg=key
        )


def test_input_is_left_alone(device):
    u = torch.from_numpy(random_fields("mixture", (2, 2, 5, 2, 12, 16), 6)).to(device)
    kept = u.clone()
    extract(u)
    extract_per_timestep(u)
    assert torch.equal(u, kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_types_are_what_they_round_to(device, dtype):
    u = 1.0 + 1e-3 * random_fields("drifting", (2, 2, 5, 2, 12, 16), 8).astype(np.float64)
    # Of float64, a range above a millionth; of float32, below, thus flat in all its features.
    u[0, 0, 1] = 1.0
    u[0, 0, 1, :, 3, 4] += 1.005e-6
    u = torch.from_numpy(u).to(device, dtype)
    found, expected = extract(u), extract(u.float())
    for key in oracle.COLUMNS:
        assert torch.equal(getattr(found, key), getattr(expected, key)), key
    assert torch.equal(extract_per_timestep(u), found.per_timestep)


def test_no_gradient_is_traced(device):
    u = torch.from_numpy(random_fields("white", (1, 2, 4, 1, 8, 9), 9)).to(device)
    expected = extract(u)
    found = extract(u.requires_grad_())
    for key in oracle.COLUMNS:
        assert not getattr(found, key).requires_grad
        assert torch.equal(getattr(found, key), getattr(expected, key)), key


def test_every_field_is_transformed_once_and_sorted_once(monkeypatch):
    counts = {"rfft2": 0, "sort": 0}

    def counted(owner, name):
        original = getattr(owner, name)

        def count(values, *args, **options):
            counts[name] += len(values)
            return original(values, *args, **options)

        monkeypatch.setattr(owner, name, count)

    counted(torch.fft, "rfft2")
    counted(np, "sort")
    counted(torch, "sort")
    extract(torch.from_numpy(random_fields("red", (3, 2, 2, 2, 16, 12), 10)))
    assert counts == {"rfft2": 24, "sort": 24}
