"""The number of weights of an operator equals the number of weights that are drawn."""

import numpy as np
import pytest

from spinlock.configuration.parameter_space import typed_row
from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.operator_weights import OperatorDrawing
from spinlock.simulation.parameter_count import parameter_count, parameter_counts
from spinlock.simulation.sobol_design import make_design
from tests.helpers import small_config, values


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("kernel_size", "channels"), [(3, 3), (5, 2)])
def test_every_weight_that_is_drawn_counts(num_layers, kernel_size, channels, monkeypatch):
    drawn, weight = [], OperatorDrawing.weight

    def record(self, *layer):
        result = weight(self, *layer)
        drawn.append(result.numel())
        return result

    monkeypatch.setattr(OperatorDrawing, "weight", record)
    given = values(num_layers=num_layers, kernel_size=kernel_size, dropout_rate=0.0)
    ConvOperator(given, seed=0, index=0, channels=channels)
    assert parameter_count(given, channels) == sum(drawn)


def test_rows_are_counted_one_by_one():
    rows = make_design(small_config(200)).values
    expected = [parameter_count(typed_row(row), 3) for row in rows]
    np.testing.assert_array_equal(parameter_counts(rows, 3), expected)
    assert len(set(expected)) > 30
    assert parameter_counts(rows[:0], 3).tolist() == []
