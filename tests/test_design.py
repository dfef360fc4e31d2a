"""The design is a prefix-stable Sobol sequence over operators and initial conditions."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig, Mixture
from spinlock.simulation.discrepancy import centered_discrepancy
from spinlock.simulation.sobol_design import design_quality, make_design

BASELINE = GenerationConfig(10_000)


@pytest.fixture(scope="module")
def baseline():
    return make_design(BASELINE)


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize(("start", "stop"), [(0, 10), (10, 20), (7, 8), (100, 233)])
def test_a_row_depends_on_its_index_alone(start, stop, probes):
    config = GenerationConfig(300, probes_per_operator=probes)
    whole, part = make_design(config), make_design(config, start, stop)
    for name in ("params", "values", "variant", "operator_index"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[start:stop])
        sliced = whole.rows(start, stop)
        np.testing.assert_array_equal(getattr(part, name), getattr(sliced, name))
    longer = make_design(GenerationConfig(1000, probes_per_operator=probes))
    np.testing.assert_array_equal(longer.params[:300], whole.params)


def test_seed_fixes_and_changes_the_design():
    same = make_design(GenerationConfig(64)).params
    np.testing.assert_array_equal(same, make_design(GenerationConfig(64)).params)
    assert not np.array_equal(same, make_design(GenerationConfig(64, seed=43)).params)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_variant_counts_are_within_three_of_nominal(seed):
    config = GenerationConfig(10_000, seed=seed)
    mixture = Mixture(config.initial_conditions)
    counts = np.bincount(make_design(config).variant, minlength=len(mixture.names))
    assert np.abs(counts - 10_000 * mixture.weights).max() <= 3


def test_variants_are_independent_of_the_parameters(baseline):
    for axis in range(15):
        thirds = np.minimum((baseline.params[:, axis] * 3).astype(int), 2)
        table = np.zeros((10, 3))
        np.add.at(table, (baseline.variant, thirds), 1)
        assert stats.chi2_contingency(table).pvalue > 0.01, axis


def test_quality_of_the_baseline(baseline):
    quality = design_quality(baseline.params)
    assert quality["centered_l2_discrepancy"] <= 0.00052
    assert quality["max_abs_correlation"] <= 0.0025
    assert quality["min_stratum_count"] >= 3330
    assert quality["min_pair_stratum_count"] >= 1090


def test_quality_distinguishes_good_from_bad():
    rng = np.random.default_rng(0)
    random = design_quality(rng.random((1000, 15), dtype=np.float32))
    sobol = design_quality(make_design(GenerationConfig(1000)).params)
    assert sobol["centered_l2_discrepancy"] < 0.5 * random["centered_l2_discrepancy"]
    assert sobol["max_abs_correlation"] < 0.5 * random["max_abs_correlation"]
    repeated = np.repeat(rng.random((1000, 1), dtype=np.float32), 15, axis=1)
    assert design_quality(repeated)["max_abs_correlation"] == pytest.approx(1)
    assert design_quality(repeated)["min_pair_stratum_count"] == 0


def test_quality_of_few_points_by_hand():
    """Points in the middle of the 9 strata of a pair of axes, twice in some of them."""
    middle = np.array([1, 3, 5]) / 6
    lattice = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(9, 2)
    quality = design_quality(lattice)
    assert (quality["min_stratum_count"], quality["min_pair_stratum_count"]) == (3, 1)
    assert quality["max_abs_correlation"] == pytest.approx(0, abs=1e-12)
    assert quality["discrepancy_points"] == 9
    # The ends of the cube belong to the outer strata, and a point on a border to the upper one.
    ends = np.array([[0, 1], [1, 0], [0.5, 0.5], [1, 1], [0, 0], [2 / 3, 0.5]])
    quality = design_quality(ends)
    assert (quality["min_stratum_count"], quality["min_pair_stratum_count"]) == (1, 0)
    assert design_quality(lattice[[0, 1, 4, 8]])["min_stratum_count"] == 1
    # Strata without points count, the last ones, too.
    shifted = np.add(lattice[:3], [[0, 0], [0.05, 0], [0.02, 0]])
    assert design_quality(shifted)["min_stratum_count"] == 0
    assert design_quality(lattice[:8])["min_pair_stratum_count"] == 0
    pairs = lattice[[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8]]
    assert design_quality(pairs)["min_pair_stratum_count"] == 1
    # Of two points, and of opposite axes, the correlation is whole; of one point it is none.
    opposite = design_quality(np.array([[0.1, 0.8], [0.2, 0.7], [0.4, 0.5]]))
    assert opposite["max_abs_correlation"] == pytest.approx(1)
    assert design_quality(lattice[[0, 8]])["max_abs_correlation"] == pytest.approx(1)
    assert design_quality(lattice[:1])["max_abs_correlation"] == 0


def test_quality_of_damaged_points_is_that_of_the_nearest_in_the_cube():
    """`spinlock check` measures the points that a file holds."""
    points = np.random.default_rng(0).random((20, 3))
    inside, outside = points.copy(), points.copy()
    inside[3, 1], outside[3, 1] = 1.0, 1.3
    inside[7, 2], outside[7, 2] = 0.0, -0.1
    expected, found = design_quality(inside), design_quality(outside)
    del expected["max_abs_correlation"], found["max_abs_correlation"]
    assert found == expected


@pytest.mark.parametrize("probes", [2, 3, 4])
def test_probes_share_the_operator_and_differ_in_family(probes):
    config = GenerationConfig(probes * 200, probes_per_operator=probes)
    design = make_design(config)
    families = np.array(Mixture(config.initial_conditions).families)[design.variant]
    assert (design.operator_index == np.arange(probes * 200) // probes).all()
    for rows in np.arange(probes * 200).reshape(-1, probes):
        assert len(np.unique(design.params[rows], axis=0)) == 1
        assert len(set(families[rows])) == probes
    alone = make_design(GenerationConfig(200))
    np.testing.assert_array_equal(design.params[::probes], alone.params)
    np.testing.assert_array_equal(design.variant[::probes], alone.variant)


def test_weights_decide_the_mixture():
    weights = {"sinusoids": 3.0, "gaussian_blobs": 0.0, "band_limited_low": 1.0}
    config = GenerationConfig(1024, initial_conditions=InitialConditionConfig(weights=weights))
    mixture = Mixture(config.initial_conditions)
    assert mixture.names == ("sinusoids", "band_limited_low")
    counts = np.bincount(make_design(config).variant)
    assert np.abs(counts - [768, 256]).max() <= 1


@pytest.mark.parametrize(("number", "dim"), [(1, 3), (16, 1), (17, 2), (100, 15)])
def test_discrepancy_is_that_of_scipy(number, dim):
    points = np.random.default_rng(number).random((number, dim))
    expected = qmc.discrepancy(points, method="CD")
    assert centered_discrepancy(points) == pytest.approx(expected, rel=1e-10)
