"""The fields of each family have the documented properties."""

import math

import numpy as np
import pytest
import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig, Mixture
from spinlock.errors import ConfigurationError
from spinlock.simulation.initial_conditions import (
    BandLimited,
    GaussianBlobs,
    GaussianNoise,
    InitialCondition,
    Sinusoids,
)
from spinlock.simulation.randomness import Stream, uniform
from spinlock.simulation.variants import InitialConditions

MIXTURE = Mixture(InitialConditionConfig())


def drawing(config):
    return InitialConditions(GenerationConfig(1, initial_conditions=config))


VARIANTS = drawing(InitialConditionConfig()).variants
NOMINAL = [0.25, 0.5, 1, 2, 4, 1, 1, 1, 1, 1]


def sample(variant, grid_size=64, index=None, device="cpu"):
    index = torch.arange(8) if index is None else torch.as_tensor(index)
    return variant.fields(42, index.to(device), 3, grid_size)


def power(field):
    """|FFT|^2 over the full plane, and its squared frequency in cycles per pixel."""
    grid_size = field.shape[-1]
    f = np.fft.fftfreq(grid_size)
    spectrum = np.abs(np.fft.fft2(field.double().numpy())) ** 2
    return spectrum, f[:, None] ** 2 + f[None, :] ** 2


def test_names_families_and_weights():
    assert MIXTURE.names == (
        "gaussian_noise_0.25",
        "gaussian_noise_0.5",
        "gaussian_noise_1",
        "gaussian_noise_2",
        "gaussian_noise_4",
        "band_limited_low",
        "band_limited_mid",
        "band_limited_high",
        "sinusoids",
        "gaussian_blobs",
    )
    family_weight = dict.fromkeys(MIXTURE.families, 0.0)
    for family, weight in zip(MIXTURE.families, MIXTURE.weights, strict=True):
        family_weight[family] += weight
    assert list(family_weight) == ["gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs"]
    assert list(family_weight.values()) == pytest.approx([0.25] * 4)
    assert MIXTURE.weights[:5] == pytest.approx([0.05] * 5)


@pytest.mark.parametrize("grid_size", [32, 64, 128])
@pytest.mark.parametrize("which", range(10))
def test_every_field_has_zero_mean_and_its_nominal_variance(which, grid_size, device):
    fields = sample(VARIANTS[which], grid_size, device=device).cpu().double()
    variance = fields.var(dim=(1, 2, 3), correction=0)
    torch.testing.assert_close(
        variance, torch.full_like(variance, NOMINAL[which]), rtol=1e-6, atol=0
    )
    assert fields.mean(dim=(-2, -1)).abs().max() < 1e-6


@pytest.mark.parametrize("which", range(10))
def test_a_field_depends_on_its_index_alone(which):
    variant = VARIANTS[which]
    together = sample(variant, index=[3, 11, 4])
    torch.testing.assert_close(sample(variant, index=[11])[0], together[1], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_gaussian_noise_is_gaussian_and_white():
    fields = sample(GaussianNoise(), 128)
    z = fields.double().flatten()
    assert abs(float((z**3).mean())) < 0.02
    assert float((z**4).mean()) == pytest.approx(3, abs=0.05)
    spectrum, squared = power(fields)
    low = spectrum[..., (squared > 0) & (squared < 1 / 16)].mean()
    high = spectrum[..., squared > 3 / 16].mean()
    assert low / high == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("band", BandLimited.PASSBANDS)
@pytest.mark.parametrize("grid_size", [32, 64, 128])
def test_bands_are_disjoint_annuli(band, grid_size):
    spectrum, squared = power(sample(BandLimited(band), grid_size))
    low, high = BandLimited.PASSBANDS[band]
    inside = (squared >= low**2) & (squared <= high**2)
    leak = spectrum[..., ~inside].sum(axis=-1) / spectrum.sum(axis=(-2, -1))
    assert leak.max() < 1e-11
    # Every mode inside takes part.
    assert (spectrum[..., inside].mean(axis=(0, 1)) > 0).all()


def test_bands_have_guard_gaps():
    edges = [edge for band in BandLimited.PASSBANDS.values() for edge in band]
    assert edges == sorted(edges)
    assert edges[1] < 1 / 16 < edges[2]
    assert edges[3] < 1 / 4 < edges[4]


def test_sinusoids_are_three_plane_waves_in_each_channel():
    spectrum, _ = power(sample(Sinusoids(), index=range(20)))
    for plane in spectrum.reshape(-1, 64, 64):
        modes = np.argwhere(plane > 1e-6 * plane.max())
        assert len(modes) == 6, "three wavevectors and their mirror images"
        assert np.abs(np.where(modes > 32, modes - 64, modes)).max() <= Sinusoids.MAX_WAVENUMBER
        strongest = np.sort(plane.ravel())[::-1][:6]
        assert strongest[0] / strongest[-1] < 9.01, "amplitudes differ by at most three"


def test_sinusoids_use_all_wavevectors():
    spectrum, _ = power(sample(Sinusoids(), 32, index=range(600)))
    used = (spectrum > 1e-6 * spectrum.max(axis=(-2, -1), keepdims=True)).sum(axis=(0, 1))
    k = Sinusoids.MAX_WAVENUMBER
    expected = np.zeros((32, 32), dtype=bool)
    expected[np.ix_(range(-k, k + 1), range(-k, k + 1))] = True
    expected[0, 0] = False
    assert ((used > 0) == expected).all()


def test_blobs_agree_with_a_loop_over_images():
    """Oracle that sums every blob over 7 x 7 periodic images, pixel by pixel."""
    grid_size, index = 32, 5
    drawn = uniform(42, Stream.INITIAL_CONDITION, index, 3 * 5 * 5).double().view(3, 5, 5)
    expected = torch.zeros(3, grid_size, grid_size, dtype=torch.float64)
    pixel = torch.arange(grid_size, dtype=torch.float64) / grid_size
    for channel, blob in np.ndindex(3, 5):
        y, x, width, amplitude, sign = drawn[channel, blob].tolist()
        width = (5 + 10 * width) / 128
        height = (0.5 + amplitude) * (-1 if sign < 0.5 else 1)
        for a in range(-3, 4):
            for b in range(-3, 4):
                squared = (pixel - y - a)[:, None] ** 2 + (pixel - x - b)[None, :] ** 2
                expected[channel] += height * torch.exp(-squared / (2 * width**2))
    expected -= expected.mean(dim=(-2, -1), keepdim=True)
    expected /= expected.square().mean().sqrt()
    field = sample(GaussianBlobs(), grid_size, index=[index])[0].double()
    torch.testing.assert_close(field, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", [GaussianNoise(), Sinusoids(), GaussianBlobs()])
def test_families_are_symmetric_in_sign(variant):
    skewness = (sample(variant, 32, index=range(400)).double() ** 3).mean(dim=(1, 2, 3))
    standard_error = float(skewness.std()) / math.sqrt(400)
    assert abs(float(skewness.mean())) < 4 * standard_error


def test_variants_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(ConfigurationError, match=r"band_limited_low: a grid of 16 .* >= 22"):
        drawing(InitialConditionConfig()).check_grid(16)
    with pytest.raises(ConfigurationError, match="sinusoids: wavenumbers up to 8 need"):
        drawing(InitialConditionConfig(weights={"sinusoids": 1.0})).check_grid(16)
    drawing(InitialConditionConfig(weights={"gaussian_noise_1": 1.0})).check_grid(8)


def test_assignment_cuts_the_coordinate_by_weight():
    coordinate = np.array([0.0, 0.0499, 0.05, 0.2499, 0.25, 0.5, 0.7499, 0.75, 0.999999])
    names = [MIXTURE.names[i] for i in MIXTURE.assign(coordinate)]
    assert names == [
        "gaussian_noise_0.25",
        "gaussian_noise_0.25",
        "gaussian_noise_0.5",
        "gaussian_noise_4",
        "band_limited_low",
        "sinusoids",
        "sinusoids",
        "gaussian_blobs",
        "gaussian_blobs",
    ]


class Stripes(InitialCondition):
    """A user-defined initial condition."""

    def __init__(self, wavenumber: int, variance: float = 1.0) -> None:
        super().__init__(variance)
        self.wavenumber = wavenumber

    def raw(self, seed, index, channels, grid_size):
        phase = uniform(seed, Stream.INITIAL_CONDITION, index, channels, device=index.device)
        x = torch.arange(grid_size, device=index.device) / grid_size
        wave = torch.cos(2 * math.pi * (self.wavenumber * x + phase[..., None]))
        return wave[:, :, None, :].expand(-1, -1, grid_size, -1)


def test_a_custom_variant_comes_in_by_class_path():
    spec = {
        "class_path": f"{__name__}.Stripes",
        "init_args": {"wavenumber": 3, "variance": 2.0},
        "family": "stripes",
    }
    config = InitialConditionConfig(
        weights={"sinusoids": 1.0, "stripes_3": 1.0}, custom={"stripes_3": spec}
    )
    mixture = Mixture(config)
    assert mixture.names == ("sinusoids", "stripes_3")
    assert mixture.families == ("sinusoids", "stripes")
    index, variant = torch.arange(4), np.array([0, 1, 1, 0])
    fields = drawing(config).fields(42, index, variant, 3, 32)
    torch.testing.assert_close(
        fields.var(dim=(1, 2, 3), correction=0), torch.tensor([1.0, 2, 2, 1])
    )
