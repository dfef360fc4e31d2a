"""The tables of docs/features.md match the registry, and the examples run."""

import re
from pathlib import Path

from scripts.fill_tables import filled
from spinlock.features import FEATURES, SDF_VERSION
from spinlock.features.response import RESPONSE_FEATURES

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


def table_rows(text):
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(r"`[a-z_0-9]+`", cells[0]):
            yield cells


def test_tables_are_up_to_date():
    assert filled(PAGE) == PAGE, "out of date: run python -m scripts.fill_tables"
    assert PAGE.startswith(f"# Summary Descriptor Features {SDF_VERSION}\n")


def test_an_outdated_table_is_filled_again():
    assert filled(PAGE.replace("median\\|u", "mean\\|u")) == PAGE


def test_every_feature_has_one_row_with_its_registry_entry():
    rows = list(table_rows(PAGE))
    features = (*FEATURES, *RESPONSE_FEATURES)
    assert [row[0].strip("`") for row in rows] == [feature.name for feature in features]
    for cells, feature in zip(rows, features, strict=True):
        text = [cell.replace("\\|", "|") for cell in cells]
        assert text[1:4] == [feature.formula, feature.unit, feature.range]
        kind = (", +c" if feature.shifts else "") + (", lg" if feature.logarithmic else "")
        assert text[4] == f"{feature.exponent}{kind}"
        assert text[-1] == feature.reference
        if feature.group == "temporal":
            static = "T" if feature.static == "T" else f"{feature.static:g}"
            assert text[5:7] == [str(feature.min_timesteps), static]


def test_tables_are_rectangular():
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_examples_run():
    first, responses, custom = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    namespace = {}
    exec(first, namespace)
    arrays = ("per_timestep", "per_trajectory", "aggregated")
    shapes = [tuple(getattr(namespace["features"], name).shape) for name in arrays]
    assert shapes == [(8, 10, 46), (8, 5, 13), (8, 39)]
    exec(responses, namespace)
    arrays = ("per_timestep", "transport", "noise", "divergence")
    shapes = [tuple(getattr(namespace["responses"], name).shape) for name in arrays]
    assert shapes == [(8, 10, 16), (8, 10, 5), (8, 6), (8, 10)]
    exec(custom, namespace)
    assert namespace["mean_modulus"](namespace["fields"][:, 0, 0, 0]).shape == (8,)
    assert namespace["energy_gain"](namespace["fields"][:, 0, :, 0]).shape == (8,)


def test_redundancies_name_features():
    section = PAGE.partition("## Known redundancies\n")[2].partition("\n## ")[0]
    bullets = section.partition("\n- ")[2]
    named = {name.replace("_b_", "_0_") for name in re.findall(r"`([a-z_0-9]+)`", bullets)}
    assert len(named) > 15
    assert named <= {feature.name for feature in FEATURES}
