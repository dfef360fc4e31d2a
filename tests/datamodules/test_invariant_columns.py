"""The selection of columns that depend on the operator and not on the variant."""

import math

import pytest
import torch

from spinlock.datamodules.invariant_columns import InvariantColumns
from spinlock.errors import ConfigurationError
from spinlock.features.response import NOISE_NAMES, TRANSPORT_NAMES, response_names
from spinlock.features.response.response_names import INVARIANT_COLUMNS
from spinlock.metrics import variance_shares

NAMES = ("operator", "variant", "both", "noise", "constant", "wide")


def samples(operators=150, probes=3, seed=0):
    """Columns whose dependence is known, with variants and operators."""
    generator = torch.Generator().manual_seed(seed)
    operator = torch.arange(operators).repeat_interleave(probes)
    variant = torch.randint(4, operator.shape, generator=generator)
    own = torch.randn(operators, generator=generator)[operator]
    noise = torch.randn(operators * probes, 3, generator=generator)
    columns = [
        own + 0.2 * noise[:, 0],
        variant + 0.1 * noise[:, 1],
        own + 0.5 * variant,
        noise[:, 2],
        torch.full_like(own, 7.0),
        (3 * own + 0.2 * noise[:, 0]).exp(),
    ]
    return torch.stack(columns, dim=1), variant, operator


def test_columns_of_the_operator_are_selected():
    features, variant, operator = samples()
    columns = InvariantColumns.fit(features, variant, operator, NAMES)
    assert columns.selected == ("operator", "wide")
    assert torch.equal(columns.select(features), features[:, [0, 5]])
    shares = variance_shares(features, variant, operator)
    assert columns.operator == tuple(shares.operator.tolist())
    assert columns.variant == tuple(shares.variant.tolist())
    # Either share alone would not refuse this column, or that one.
    assert columns.variant[2] > 0.05
    assert columns.operator[2] > 0.6
    assert abs(columns.variant[3]) < 0.05


def test_shares_of_several_timesteps_are_averaged():
    features, variant, operator = samples()
    # The first column is good at both timesteps, the last one only at the first.
    steps = torch.stack([features, features[:, [0, 2, 1, 4, 3, 3]]], dim=1)
    columns = InvariantColumns.fit(steps, variant, operator, NAMES)
    first, second = (variance_shares(step, variant, operator) for step in steps.unbind(1))
    for name in ("variant", "operator"):
        mean = (getattr(first, name) + getattr(second, name)) / 2
        assert getattr(columns, name) == pytest.approx(mean.tolist(), abs=1e-12)
    assert columns.selected == ("operator",)


def test_a_selection_of_timesteps_keeps_their_dimension():
    features, variant, operator = samples()
    steps = features[:, None].expand(-1, 4, -1)
    columns = InvariantColumns.fit(steps, variant, operator, NAMES)
    assert columns.selected == ("operator", "wide")
    assert torch.equal(columns.select(steps), steps[..., [0, 5]])


def test_one_probe_leaves_the_fixed_list():
    names = (
        *response_names(4),
        *TRANSPORT_NAMES,
        *NOISE_NAMES,
        "power_spectrum",
        "beta_of_something",
    )
    features = torch.randn(20, len(names), generator=torch.Generator().manual_seed(0))
    columns = InvariantColumns.fit(features, torch.arange(20) % 3, torch.arange(20), names)
    assert not columns.operator
    assert {"persistence", "channel_mean_0", "channel_mean_3", "noise_rel"} <= {*columns.selected}
    refused = {*TRANSPORT_NAMES, "power_spectrum", "beta_of_something"}
    refused |= {"band_gain_2", "noise_kurtosis"}
    assert not refused & {*columns.selected}
    found = "a fixed list, since fewer than 30 operators have two training samples"
    assert found in columns.describe()


def test_few_operators_leave_the_fixed_list():
    """Operators with one sample, of which there may be many, do not count."""
    features, variant, operator = samples(100, 2)
    features, names = features[:, :2], ("kurtosis", "beta")
    for repeated, chosen in ((29, "beta"), (30, "kurtosis")):
        used = (operator < repeated) | (torch.arange(200) % 2 == 0)
        columns = InvariantColumns.fit(features[used], variant[used], operator[used], names)
        assert columns.selected == (chosen,)
        assert bool(columns.operator) == (repeated == 30)


def test_the_fixed_list_names_existing_columns():
    """Of any number of channels."""
    names = (*response_names(2), *NOISE_NAMES)
    for fixed in INVARIANT_COLUMNS:
        assert any(name.startswith(fixed) for name in names), fixed
        assert fixed.endswith("_") or fixed in names


def test_no_column_is_an_error_that_shows_the_shares():
    features, variant, operator = samples()
    with pytest.raises(ConfigurationError, match=r"no column is invariant.*\n.*\nvariant +0\.8"):
        InvariantColumns.fit(features[:, 1:4], variant, operator, NAMES[1:4])
    with pytest.raises(ConfigurationError, match=r"no column is invariant[^*]*kurtosis +- +-"):
        InvariantColumns.fit(features[::3, :1], variant[::3], operator[::3], ("kurtosis",))


def test_the_selection_is_described():
    features, variant, operator = samples()
    columns = InvariantColumns.fit(features, variant, operator, NAMES)
    lines = columns.describe().splitlines()
    assert lines[0].startswith("2 of 6 columns (*): operator share > 0.8, variant share < 0.05;")
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == list(NAMES)
    assert [row[0] for row in rows if row[-1] == "*"] == ["operator", "wide"]
    assert float(rows[2][1]) == pytest.approx(columns.variant[2], abs=1e-3)
    assert float(rows[2][2]) == pytest.approx(columns.operator[2], abs=1e-3)


def test_state_is_plain_data_and_restores_the_selection():
    features, variant, operator = samples()
    for columns in (
        InvariantColumns.fit(features, variant, operator, NAMES),
        InvariantColumns.fit(features[::3], variant[::3], operator[::3], ("beta", *NAMES[1:])),
    ):
        state = columns.state_dict()
        assert all(type(value) is list for value in state.values())
        again = InvariantColumns.from_state_dict(state)
        assert again == columns
        assert again.describe() == columns.describe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["a"]}, r"one entry a column, .* got \[1, 2, 2, 2\] entries"),
        ({"operator": []}, r"got \[2, 2, 2, 0\] entries"),
        ({"chosen": [False, False]}, "no column is invariant"),
        ({"names": [], "chosen": [], "variant": [], "operator": []}, "no column is invariant"),
        ({"chosen": [1, 0]}, r"invariant columns.chosen\[0\]: must be of type bool, got 1"),
        ({"names": ["a", 3]}, r"names\[1\]: must be of type str, got 3"),
        ({"variant": ["1", 0.0]}, r"variant\[0\]: must be of type float, got '1'"),
        ({"operator": 0.5}, "operator: must be a list of values"),
        ({"other": 0.5}, "other: unknown key"),
        ({"variant": [10**400, 0.0]}, r"variant\[0\]"),
    ],
)
def test_a_forged_state_is_refused(changes, message):
    state = {"names": ["a", "b"], "chosen": [True, False], "variant": [0.0, math.nan]}
    state["operator"] = [0.9, 0.1]
    InvariantColumns.from_state_dict(state)
    with pytest.raises(ConfigurationError, match=message):
        InvariantColumns.from_state_dict(state | changes)


@pytest.mark.parametrize("state", [None, [], "names", {"names": ["a"]}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ConfigurationError, match="invariant columns"):
        InvariantColumns.from_state_dict(state)
