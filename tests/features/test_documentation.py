"""docs/features.md is what the registry says, and its examples run."""

import re
from pathlib import Path

import pytest

from spinlock.features import FEATURES
from spinlock.features.documentation import features_markdown, main
from spinlock.features.redundancy import REDUNDANCIES, is_redundant

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def table_rows(text):
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and re.fullmatch(r"`[a-z_0-9]+`", cells[0]):
            yield cells


def test_the_page_in_the_repository_is_the_one_that_the_registry_makes():
    assert PAGE.read_text(encoding="utf-8") == features_markdown(), (
        "docs/features.md is out of date: run python -m spinlock.features.documentation"
    )


def test_every_feature_has_one_row_with_all_that_the_registry_knows():
    rows = list(table_rows(features_markdown()))
    assert [row[0].strip("`") for row in rows] == [feature.name for feature in FEATURES]
    for cells, feature in zip(rows, FEATURES, strict=True):
        text = [cell.replace("\\|", "|") for cell in cells]
        assert text[1:4] == [feature.formula, feature.unit, feature.range]
        assert text[4] == f"{feature.exponent}" + (", +c" if feature.shifts else "")
        assert text[-1] == feature.reference
        if feature.group == "temporal":
            static = "T" if feature.static == "T" else f"{feature.static:g}"
            assert text[5:7] == [str(feature.min_timesteps), static]


def test_tables_are_rectangular():
    for block in re.findall(r"(?:^\|.*\n)+", features_markdown(), re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_examples_run(monkeypatch):
    first, custom = re.findall(r"```python\n(.*?)```", features_markdown(), re.DOTALL)
    namespace = {}
    exec(first, namespace)
    shapes = [tuple(getattr(namespace["features"], name).shape) for name in ARRAYS]
    assert shapes == [(8, 10, 46), (8, 5, 13), (8, 39)]
    exec(custom, namespace)
    assert namespace["mean_modulus"](namespace["fields"][:, 0, 0, 0]).shape == (8,)
    assert namespace["energy_gain"](namespace["fields"][:, 0, :, 0]).shape == (8,)


ARRAYS = ("per_timestep", "per_trajectory", "aggregated")


def test_main_writes_the_page(tmp_path):
    main([str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == features_markdown()


@pytest.mark.parametrize("known", REDUNDANCIES, ids=lambda known: known.relation)
def test_redundancies_name_features(known):
    assert set(known.names) <= {feature.name for feature in FEATURES}
    assert is_redundant(known.names[0], known.names[-1]) == known.pairwise


def test_pairs_that_differ_are_not_called_redundant():
    assert not is_redundant("spatial_mean", "spatial_std")
    assert not is_redundant("spatial_min", "spatial_max")
    assert not is_redundant("laplacian_mean", "laplacian_energy")
