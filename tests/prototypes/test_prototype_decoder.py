"""Predictions by prototypes: their fields, features and means."""

import numpy as np
import pytest
import torch

from spinlock.errors import ConfigurationError
from spinlock.features import extract_per_timestep
from spinlock.prototypes import PrototypeDecoder
from spinlock.simulation.operator_runs import NEW_NOISE, OperatorRunner, Run
from tests.helpers import simulate, small_config

CONFIG = small_config(12, grid_size=24, base_channels=(2, 4), num_realizations=2, num_timesteps=2)
PROTOTYPES = torch.tensor([[5, 2], [2, -1], [-1, -1]])


@pytest.fixture(scope="module")
def initial():
    return torch.from_numpy(simulate(CONFIG, 0, 3)["initial"])


@pytest.fixture(scope="module")
def predicted(initial):
    return PrototypeDecoder(CONFIG, "cpu")(PROTOTYPES, initial)


def test_each_prototype_runs_under_the_initial_condition_of_its_row(predicted, initial):
    assert predicted.fields.shape == (3, 2, 2, 2, 3, 24, 24)
    runner = OperatorRunner(CONFIG, "cpu")
    for row, rank in [(0, 0), (0, 1), (1, 0)]:
        run = Run(int(PROTOTYPES[row, rank]), [0])
        given = initial[row : row + 1], [NEW_NOISE + row]
        (expected,) = runner.run([run], *given, torch.clone)
        assert torch.equal(predicted.fields[row, rank], expected[0])
        features = extract_per_timestep(expected)[0]
        torch.testing.assert_close(
            predicted.features[row, rank], features, rtol=1e-4, atol=1e-5, equal_nan=True
        )


def test_missing_prototypes_are_nan(predicted):
    missing = PROTOTYPES < 0
    assert predicted.fields[missing].isnan().all()
    assert predicted.features[missing].isnan().all()
    assert not predicted.fields[~missing].isnan().any()


def test_means_are_those_of_the_prototypes_that_exist(predicted):
    def scale(features):
        return features.sign() * features.abs().log1p()

    mean = predicted.mean_features(scale, timestep=0)
    scaled = scale(predicted.features[:, :, 0])
    torch.testing.assert_close(mean[0], (scaled[0, 0] + scaled[0, 1]) / 2, equal_nan=True)
    torch.testing.assert_close(mean[1], scaled[1, 0], equal_nan=True)
    assert mean[2].isnan().all()


def test_results_do_not_depend_on_the_other_rows(predicted, initial):
    decode = PrototypeDecoder(CONFIG, "cpu")
    alone = decode(PROTOTYPES[1:2], initial[1:2], torch.tensor([1]), fields=False)
    assert alone.fields is None
    torch.testing.assert_close(
        alone.features, predicted.features[1:2], rtol=1e-4, atol=1e-5, equal_nan=True
    )
    other = decode(PROTOTYPES[1:2], initial[1:2], torch.tensor([9]))
    assert not torch.equal(other.fields[0, 0], predicted.fields[1, 0])


def test_an_initial_condition_of_no_family_is_fine():
    """Anything on the grid: here one bright pixel."""
    bright = torch.zeros(1, 3, 24, 24)
    bright[0, 1, 3, 4] = 5.0
    found = PrototypeDecoder(CONFIG, "cpu", num_realizations=1)(torch.tensor([[0, 1]]), bright)
    assert found.fields.shape[2] == 1
    assert not torch.equal(found.fields[0, 0], found.fields[0, 1])
    assert found.fields.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 3, 24, 12), (2, 2, 24, 24)])
def test_another_grid_is_refused(shape):
    with pytest.raises(ConfigurationError, match=r"24 x 24 pixels.*Draw initial conditions on"):
        PrototypeDecoder(CONFIG, "cpu")(PROTOTYPES[:2], torch.zeros(shape))


def test_rows_must_agree(initial):
    with pytest.raises(ConfigurationError, match=r"got the shapes \[3, 2\], \[2, 3, 24, 24\]"):
        PrototypeDecoder(CONFIG, "cpu")(PROTOTYPES, initial[:2])


def test_operators_that_the_dataset_lacks_are_refused(initial):
    """Before their design is computed, which would need all memory."""
    with pytest.raises(ConfigurationError, match=r"has 12 operators, got operator 1000000000000;"):
        PrototypeDecoder(CONFIG, "cpu")(torch.tensor([[0, 10**12]]), initial[:1])
    with pytest.raises(ConfigurationError, match=r"has 12 operators, got operator 12;"):
        PrototypeDecoder(CONFIG, "cpu")(torch.tensor([[12, -1]]), initial[:1])


def test_the_noise_of_a_row_is_seeded(predicted, initial):
    again = PrototypeDecoder(CONFIG, "cpu")(PROTOTYPES, initial)
    assert np.array_equal(again.fields, predicted.fields, equal_nan=True)
