"""Operators are trained and evaluated on by their values on the axes."""

import numpy as np
import pytest

from spinlock.datamodules.operator_selection import OperatorSelection, _occurring
from spinlock.errors import ConfigurationError
from spinlock.simulation.sobol_design import make_design
from tests.datamodules import collect, ready
from tests.helpers import small_config

CONFIG = small_config(64, probes_per_operator=2)
VALUES = make_design(CONFIG).values


def mask(**axes):
    return OperatorSelection(axes).mask(CONFIG).numpy()


def test_values_and_bounds_select_operators():
    assert OperatorSelection(None).mask(CONFIG).all()
    relu = VALUES["activation"] == b"relu"
    assert (mask(activation=["relu"]) == relu).all()
    assert (mask(activation=["relu", "silu"]) == (VALUES["activation"] != b"gelu")).all()
    few = VALUES["num_layers"] <= 3
    assert (mask(num_layers={"high": 3}) == few).all()
    assert (mask(num_layers=[4, 5], activation=["relu"]) == (relu & ~few)).all()
    inside = (VALUES["alpha"] >= 0.25) & (VALUES["alpha"] <= 0.5)
    assert (mask(alpha={"low": 0.25, "high": 0.5}) == inside).all()
    assert 0 < inside.sum() < len(inside)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"activation": "relu"}, r"eval_operators.activation: must be a list .* got 'relu'"),
        ({"alpha": {"least": 1}}, r"alpha: must be a list of values, or numbers low and high"),
        ({"alpha": {"low": "1"}}, r"alpha: must be a list"),
        ({"alpha": []}, r"alpha: must be a list"),
        ({"alpha": [[0.5]]}, r"alpha: must be a list of values, .* got \[\[0.5\]\]"),
        (
            {"alpha": {"low": 5, "high": 3}},
            "alpha: low must not be above high, got low 5 and high 3",
        ),
        ({"depth": [1]}, r"unknown axis 'depth'; the dataset has num_layers, .*dt"),
        ({"activation": ["sine"]}, r"no operator has the value 'sine'; .* gelu, relu, silu"),
        ({"alpha": [7]}, r"no operator has the value 7; the dataset has values from 0"),
        ({"activation": {"low": 1}}, r"names, not numbers; give a list of some of gelu, relu"),
        ({"alpha": {"low": 5}}, r"selects no operator \(alpha at least 5\)"),
    ],
)
def test_errors_say_what_is_allowed(axes, message):
    with pytest.raises(ConfigurationError, match=message):
        OperatorSelection(axes, "eval_operators").mask(CONFIG)


def test_a_long_list_of_names_is_shortened():
    names = np.array([f"kind{i:02}" for i in range(15)])
    assert _occurring(names).endswith("kind10, kind11 and 3 others")
    assert _occurring(np.arange(15)) == "values from 0 to 14"


def test_training_and_evaluation_are_restricted(datasets):
    path, config = datasets["single"]
    whole = ready(path, config, val_fraction=0.3)
    axes = {"train_operators": {"activation": ["relu", "gelu"]}}
    axes["eval_operators"] = {"activation": ["silu"]}
    part = ready(path, config, val_fraction=0.3, **axes)
    silu = set(np.flatnonzero(make_design(config).values["activation"] == b"silu").tolist())
    for loader in ("train", "val"):
        rows, found = (
            set(collect(getattr(module, f"{loader}_dataloader")())["index"].tolist())
            for module in (whole, part)
        )
        assert found == (rows - silu if loader == "train" else rows & silu)
        assert 0 < len(found) < len(rows)
    assert len(part.predict_dataloader().dataset) == len(whole.predict_dataloader().dataset)
    assert "activation relu, gelu" in str(part)
    # Scalers see only operators that are trained on.
    assert part.state_dict()["scalers"] != whole.state_dict()["scalers"]
