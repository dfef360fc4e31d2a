"""The script that makes the plot in the README."""

from pathlib import Path

from scripts.gallery import examples, gallery_png, main
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.simulation.sobol_design import make_design
from tests.helpers import small_config

PLOT = Path(__file__).parents[1] / "docs" / "images" / "gallery.png"


def test_there_is_an_example_of_each_variant():
    config = GenerationConfig(400)
    names = Mixture(config.initial_conditions).names
    chosen = examples(config)
    assert tuple(chosen) == names
    design = make_design(config)
    assert [names[design.variant[index]] for index in chosen.values()] == list(names)


def test_the_plot_is_small_and_reproducible(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.gallery.GenerationConfig", small_config)
    main([str(tmp_path / "gallery.png")])
    content = (tmp_path / "gallery.png").read_bytes()
    assert content == gallery_png(small_config(400))
    assert content.startswith(b"\x89PNG")
    assert PLOT.stat().st_size < 200_000
