"""Section 5 of features.md: what must, and what must not, change the features.

No oracle here: the package is compared with itself on transformed fields, within the tolerances
of section 8, and exactly where the specification leaves no room for rounding.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from spinlock.features import batches, extract, extract_per_timestep, temporal

from . import oracle
from .helpers import Recipe, package_extract, random_fields

SPATIAL_AXES = (-2, -1)
T_AXIS = 2
SWAPPED_BY_TRANSPOSITION = ("gradient_{}_mean", "dominant_freq_{}", "spectral_centroid_{}")
UNCHANGED_BY_A_STATIC_BACKGROUND = (
    "temporal_freq_dominant",
    "oscillation_amplitude",
    "oscillation_period",
    "autocorr_decay_time",
    "lyapunov_approx",
    "trajectory_smoothness",
    "trend_strength",
    "detrended_variance",
)

# The device fixture holds for a whole test, as intended.
few = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["white", "red", "mixture", "sparse", "drifting"])
grids = st.sampled_from([(8, 8), (9, 12), (16, 15), (11, 17), (20, 14), (32, 32)])
lengths = st.integers(1, 9)
one_or_two = st.integers(1, 2)


@st.composite
def fields_of(draw, grids=grids, lengths=lengths, channels=one_or_two):
    """Recipes of float32 fields [2, 2, T, C, H, W]."""
    shape = (2, 2, draw(lengths), draw(channels), *draw(grids))
    return Recipe(draw(kinds), shape, draw(seeds))


def on_a_lattice(fields):
    """Round to multiples of 2⁻⁸ within ±128, so that adding such multiples is exact in float32."""
    return (np.round(np.clip(fields, -128, 128) * 256) / 256).astype(np.float32)


def copy(features):
    return {key: value.astype(np.float64) for key, value in features.items()}


def per_timestep_columns(*names):
    return [oracle.PER_TIMESTEP.index(name) for name in names]


def trajectory_columns(*names):
    return [oracle.PER_TRAJECTORY.index(name) for name in names]


# --------------------------------------------------------------------------------- symmetries


@few
@given(sample=fields_of(), rows=st.integers(-40, 40), columns=st.integers(-40, 40))
def test_periodic_roll_changes_nothing(device, sample, rows, columns):
    u = sample.fields()
    rolled = np.roll(u, (rows, columns), axis=SPATIAL_AXES)
    oracle.assert_agreement(package_extract(rolled, device), package_extract(u, device), rolled)


@few
@given(sample=fields_of(), axis=st.sampled_from(SPATIAL_AXES))
def test_reflection_changes_nothing(device, sample, axis):
    u = sample.fields()
    mirrored = np.flip(u, axis=axis)
    oracle.assert_agreement(package_extract(mirrored, device), package_extract(u, device), mirrored)


def with_x_and_y_swapped(features):
    swapped = copy(features)
    rows = features["per_timestep"]
    for pattern in SWAPPED_BY_TRANSPOSITION:
        x, y = per_timestep_columns(pattern.format("x"), pattern.format("y"))
        swapped["per_timestep"][..., x] = rows[..., y]
        swapped["per_timestep"][..., y] = rows[..., x]
    return swapped


@few
@given(sample=fields_of())
def test_transposition_swaps_x_and_y(device, sample):
    u = sample.fields()
    transposed = np.swapaxes(u, -1, -2)
    expected = with_x_and_y_swapped(package_extract(u, device))
    oracle.assert_agreement(package_extract(transposed, device), expected, transposed)


@few
@given(sample=fields_of(), turns=st.sampled_from([1, 2, 3]))
def test_rotation_by_right_angles(device, sample, turns):
    u = sample.fields()
    rotated = np.rot90(u, turns, axes=SPATIAL_AXES)
    expected = package_extract(u, device)
    if turns % 2:
        expected = with_x_and_y_swapped(expected)
    oracle.assert_agreement(package_extract(rotated, device), expected, rotated)


@few
@given(sample=fields_of())
def test_sign_flip(device, sample):
    u = sample.fields()
    before = package_extract(u, device)
    expected = copy(before)
    odd = per_timestep_columns("spatial_mean", "spatial_skewness")
    low, high = per_timestep_columns("spatial_min", "spatial_max")
    expected["per_timestep"][..., odd] *= -1
    expected["per_timestep"][..., low] = -before["per_timestep"][..., high]
    expected["per_timestep"][..., high] = -before["per_timestep"][..., low]
    oracle.assert_agreement(package_extract(-u, device), expected, -u)


@few
@given(sample=fields_of(), decades=st.floats(-6, 2))
def test_scaling_follows_the_exponents(device, sample, decades):
    u = sample.fields()
    scaled = (10.0**decades * u).astype(np.float32)
    a = np.float64(10.0**decades)
    expected = copy(package_extract(u, device))
    powers = np.array([oracle.EXPONENT[name] for name in oracle.PER_TIMESTEP])
    expected["per_timestep"] *= a**powers
    powers = np.array([oracle.EXPONENT[name] for name in oracle.PER_TRAJECTORY])
    expected["per_trajectory"] *= a**powers
    expected["aggregated"] *= a ** np.concatenate([powers, powers, 0 * powers])
    oracle.assert_agreement(package_extract(scaled, device), expected, scaled, f"a={a:g}")


@few
@given(sample=fields_of(), steps=st.integers(-(2**18), 2**18))
def test_additive_constant(device, sample, steps):
    """Only the "+c" rows move, by c. Exact in float32, up to |c| = 1024 on fields of order one."""
    u = on_a_lattice(sample.fields())
    c = steps / 256
    expected = copy(package_extract(u, device))
    expected["per_timestep"][..., per_timestep_columns(*oracle.SHIFTED_BY_A_CONSTANT)] += c
    shifted = u + np.float32(c)
    lines = oracle.disagreements(
        {"per_timestep": package_extract(shifted, device)["per_timestep"]},
        expected,
        oracle.allowed_deviation(shifted, expected),
        f"c={c:g}",
    )
    # A field is flat relative to its own mean: far from zero a quiet field may become flat.
    assert not any(oracle.is_flat(field) for field in shifted.reshape(-1, *u.shape[-2:]))
    assert not lines, "\n" + "\n".join(lines)


@few
@given(sample=fields_of(lengths=st.integers(2, 9)), seed=seeds, height=st.sampled_from([1.0, 30.0]))
def test_time_constant_background(device, sample, seed, height):
    """Whatever does not move is invisible to eight temporal features."""
    u = on_a_lattice(sample.fields())
    background = height * random_fields("red", (2, 2, 1, u.shape[3], *u.shape[-2:]), seed)
    total = u + (np.round(np.clip(background, -512, 512) * 256) / 256).astype(np.float32)
    before, after = package_extract(u, device), package_extract(total, device)
    columns = trajectory_columns(*UNCHANGED_BY_A_STATIC_BACKGROUND)
    # Compare these columns, and the means over M that follow from them.
    expected = copy(after)
    expected["per_trajectory"][..., columns] = before["per_trajectory"][..., columns]
    expected["aggregated"][..., columns] = before["aggregated"][..., columns]
    oracle.assert_agreement(after, expected, u)


@few
@given(sample=fields_of(lengths=st.integers(2, 9), channels=st.just(1)))
def test_time_reversal(device, sample):
    u = sample.fields()
    before = package_extract(u, device)["per_trajectory"].astype(np.float64)
    backwards = np.flip(u, axis=T_AXIS)
    after = package_extract(backwards, device)
    odd = trajectory_columns("energy_growth_rate", "variance_growth_rate", "lyapunov_approx")
    ratio = trajectory_columns("final_to_initial_ratio")
    before[..., odd] *= -1
    before[..., ratio] = 1 / before[..., ratio]  # holds for one channel, not for a mean over some
    expected = {
        "per_timestep": package_extract(u, device)["per_timestep"][:, ::-1],
        "per_trajectory": before,
        "aggregated": oracle.aggregate(before),
    }
    oracle.assert_agreement(after, expected, backwards)


# --------------------------------------------------------------------------------- identities


@few
@given(sample=fields_of(channels=st.just(1), lengths=st.integers(1, 3)))
def test_identities_of_a_single_field(device, sample):
    """Parseval, the partition of power, and the redundancies that section 5 lists."""
    u = sample.fields()[:, :1]
    H, W = u.shape[-2:]
    n = H * W
    rows = package_extract(u, device)["per_timestep"].astype(np.float64)
    f = dict(zip(oracle.PER_TIMESTEP, np.moveaxis(rows, -1, 0), strict=True))
    variance = f["spatial_variance"]
    bins, power = [], []
    fx, fy = oracle.frequencies(H, W)
    f2 = (fx**2 + fy**2).ravel()[1:]
    for b in range(5):
        inside = (f2 >= oracle.BAND_EDGES[b] ** 2) & (f2 < oracle.BAND_EDGES[b + 1] ** 2)
        bins.append(inside.sum())
        power.append(bins[b] * f[f"fft_power_scale_{b}_mean"] / n)
    close = {"rtol": 1e-4, "atol": 1e-5 * float(variance.max())}
    np.testing.assert_allclose(sum(power), variance, err_msg="Parseval", **close)
    np.testing.assert_allclose(f["spatial_std"] ** 2, variance, **close)
    np.testing.assert_allclose(f["laplacian_std"] ** 2, f["laplacian_energy"], **close)
    np.testing.assert_allclose(
        f["spatial_range"], f["spatial_max"] - f["spatial_min"], rtol=1e-4, atol=1e-4
    )
    ratios = [f["low_freq_ratio"], f["mid_freq_ratio"], f["high_freq_ratio"]]
    np.testing.assert_allclose(sum(ratios), 1.0, atol=1e-5)
    for ratio, bands in zip(ratios, ((0, 1), (2, 3), (4,)), strict=True):
        np.testing.assert_allclose(ratio, sum(power[b] for b in bands) / variance, atol=1e-4)


@few
@given(sample=fields_of(lengths=st.integers(4, 9)))
def test_values_lie_in_their_ranges(device, sample):
    u = sample.fields()
    features = package_extract(u, device)
    T, H, W = u.shape[2], *u.shape[-2:]
    n = H * W
    ranges = {
        "spatial_variance": (0, np.inf),
        "spatial_std": (0, np.inf),
        "spatial_skewness": (-np.sqrt(n), np.sqrt(n)),
        "spatial_kurtosis": (-2, n),
        "spatial_iqr": (0, np.inf),
        "spatial_mad": (0, np.inf),
        "gradient_anisotropy": (0, 1),
        "dominant_freq_x": (0, 0.5),
        "dominant_freq_y": (0, 0.5),
        "spectral_centroid_x": (0, 0.5),
        "spectral_centroid_y": (0, 0.5),
        "spectral_bandwidth": (0, 0.36),
        "low_freq_ratio": (0, 1),
        "mid_freq_ratio": (0, 1),
        "high_freq_ratio": (0, 1),
        "spectral_flatness": (1e-9, 1),
        "spectral_rolloff": (1 / max(H, W), np.sqrt(0.5)),
        "spectral_anisotropy": (0, 1),
        "energy_growth_rate": (-28, 28),
        "variance_growth_rate": (-28, 28),
        "temporal_freq_dominant": (1 / T, 0.5),
        "oscillation_amplitude": (0, np.inf),
        "oscillation_period": (2, T),
        "autocorr_decay_time": (0.3, T),
        "lyapunov_approx": (-15, 15),
        "trajectory_smoothness": (0, 1),
        "regime_switches": (0, 1),
        "final_to_initial_ratio": (1e-6, 1e6),
        "trend_strength": (0, 1),
        "detrended_variance": (0, np.inf),
    }
    for key in ("per_timestep", "per_trajectory"):
        for column, name in enumerate(oracle.COLUMNS[key]):
            low, high = ranges.get(name, (-np.inf, np.inf))
            values = features[key][..., column]
            slack = 1e-6 * max(1.0, abs(low) if np.isfinite(low) else 1.0)
            assert np.all(np.isfinite(values)), name
            assert values.min() >= low - slack, name
            assert values.max() <= high + slack * max(1.0, high), name
    std, cv = features["aggregated"][:, 13:26], features["aggregated"][:, 26:]
    assert std.min() >= 0
    assert cv.min() >= 0
    assert cv.max() <= 100


def test_rounding_oversteps_no_end_of_a_range(device):
    """Fields and trajectories whose features lie on the ends, many times over, without slack."""
    i, j = np.mgrid[:16, :12]
    rng = np.random.default_rng(12)
    waves = [2 * np.pi * (kx * j / 12 + ky * i / 16) for kx in (1, 2) for ky in (1, 2, 3)]
    fields = np.stack(
        [
            (-1.0) ** (i + j),
            np.where(j < 6, 1.0, -1.0),
            np.cos(2 * np.pi * 2 * j / 12),
            np.where(i + j == 0, 1.0, 0.0),
            np.cos(2 * np.pi * (j / 12 + 3 * i / 16) + 0.4),
            *(np.cos(wave) + np.cos(2 * wave) / 3 for wave in waves),
        ]
    )
    size, shift = 10.0 ** rng.uniform(-3, 3, (60, 1, 1, 1)), rng.uniform(-1, 1, (60, 1, 1, 1))
    t = np.arange(6) - 2.5
    motions = np.stack([t, t**2, (-1.0) ** t.astype(int), np.cos(2 * np.pi * t / 6)])
    u = np.einsum("ashw,mt->asmthw", size * (fields + shift), motions)
    rows = package_extract(u.reshape(-1, 4, 6, 1, 16, 12), device)
    field = package_extract(u[:, :, 0, 0].reshape(-1, 1, 1, 1, 16, 12), device)
    named = dict(zip(oracle.PER_TIMESTEP, field["per_timestep"][:, 0].T, strict=True))
    named |= dict(zip(oracle.PER_TRAJECTORY, rows["per_trajectory"].reshape(-1, 13).T, strict=True))
    ranges = {
        "spatial_kurtosis": (-2, 192),
        "gradient_anisotropy": (0, 1),
        "spectral_flatness": (0, 1),
        "spectral_anisotropy": (0, 1),
        "trajectory_smoothness": (0, 1),
        "trend_strength": (0, 1),
    }
    for name, (low, high) in ranges.items():
        assert named[name].min() >= low, name
        assert named[name].max() <= high, name


# ------------------------------------------------------------------------------- independence


@few
@given(sample=fields_of(), other=fields_of(), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_a_row_does_not_depend_on_the_others(device, sample, other, scale):
    """Bit for bit: the second operator's fields are exchanged, the first one's features stay."""
    u = sample.fields()
    exchanged = u.copy()
    exchanged[1] = scale * np.resize(other.fields(), u[1].shape)
    before, after = package_extract(u, device), package_extract(exchanged, device)
    for key in before:
        np.testing.assert_array_equal(before[key][0], after[key][0], err_msg=key)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_spoils_no_other(device, value):
    u = random_fields("drifting", (3, 1, 5, 2, 12, 10), 13)
    expected = package_extract(u, device)
    u[1] = value
    u[2, 0, 3, 1, 4, 5] = value
    found = package_extract(u, device)
    for key in expected:
        np.testing.assert_array_equal(found[key][0], expected[key][0], err_msg=key)


@few
@given(sample=fields_of(lengths=st.integers(2, 6)), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_a_timestep_does_not_depend_on_the_others(device, sample, scale):
    u = sample.fields()
    exchanged = u.copy()
    exchanged[:, :, 1:] = scale * u[:, :, :1]
    before, after = package_extract(u, device), package_extract(exchanged, device)
    np.testing.assert_array_equal(before["per_timestep"][:, 0], after["per_timestep"][:, 0])


def test_realizations_do_not_depend_on_each_other(device):
    u = random_fields("drifting", (2, 3, 6, 2, 12, 12), 1)
    exchanged = u.copy()
    exchanged[:, 1:] = random_fields("sparse", (2, 2, 6, 2, 12, 12), 2)
    before, after = package_extract(u, device), package_extract(exchanged, device)
    np.testing.assert_array_equal(before["per_trajectory"][:, 0], after["per_trajectory"][:, 0])


def test_work_is_cut_into_pieces_invisibly(device):
    """One call on many fields gives what calls on single rows give, to rounding."""
    u = random_fields("drifting", (10, 2, 16, 3, 32, 32), 3)
    whole = package_extract(u, device)
    for row in range(0, len(u), 3):
        alone = package_extract(u[row : row + 1], device)
        part = {key: value[row : row + 1] for key, value in whole.items()}
        oracle.assert_agreement(part, alone, u[row : row + 1], f"row {row}")


def test_a_trajectory_larger_than_a_piece_is_read_in_rows(device, monkeypatch):
    """9 rows of 5 x 12 pixels, 3 at a time and 4 at a time: with and without a rest."""
    u = random_fields("drifting", (1, 2, 5, 2, 9, 12), 14)
    expected = oracle.oracle_extract(u)
    sizes, original = [], temporal._block_sums

    def spy(pixels, mean):
        sizes.append(pixels.numel())
        return original(pixels, mean)

    monkeypatch.setattr(temporal, "_block_sums", spy)
    for piece, blocks in ((3 * 60, [180, 180, 180]), (5 * 60 - 1, [240, 240, 60])):
        sizes.clear()
        for name in ("CPU_CHUNK", "DEVICE_CHUNK"):
            monkeypatch.setattr(batches, name, piece)
        oracle.assert_agreement(package_extract(u, device), expected, u, f"{piece} pixels")
        assert sizes == 4 * blocks


def test_a_single_field_is_computed_with_a_second_one(monkeypatch):
    """torch splits a sum to one number over its threads, so rounding would depend on them."""
    sizes = []

    def of_fields(fields):
        sizes.append(len(fields))
        return fields.mean((-2, -1))[:, None]

    one = torch.from_numpy(random_fields("white", (1, 1, 1, 1, 16, 16), 11))
    batches.field_averages(one, of_fields, 1)
    monkeypatch.setattr(batches, "CPU_CHUNK", 1)
    batches.field_averages(one.expand(2, -1, -1, -1, -1, -1), of_fields, 1)
    assert sizes == [2, 2, 2]


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


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 8, 8), (3, 1, 4, 1, 8, 8), (1, 4, 2, 5, 9, 8)])
def test_channels_and_realizations_are_averaged(device, shape):
    """The mean of minima, not the minimum: averaging comes after everything else."""
    u = random_fields("sparse", shape, 7)
    N, M, T, C, H, W = shape
    together = package_extract(u, device)
    apart = package_extract(np.moveaxis(u, 3, 1).reshape(N * C * M, 1, T, 1, H, W), device)
    rows = apart["per_timestep"].reshape(N, C * M, T, -1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(together["per_timestep"], rows, rtol=1e-4, atol=1e-5)
    trajectories = apart["per_trajectory"].reshape(N, C, M, -1).astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(together["per_trajectory"], trajectories, rtol=1e-4, atol=1e-5)
