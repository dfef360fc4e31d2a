"""The script that makes the plots of docs/concepts.md."""

import re

import numpy as np
import pytest
from PIL import Image

from scripts.concept_plots import QUICKSTART, simulated_plots, trained_plots, write
from spinlock.generation import generate
from spinlock.storage.token_file import write_tokens
from tests.helpers import small_config
from tests.pages import ROOT

IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset of two probes, and tokens of its operators."""
    folder = tmp_path_factory.mktemp("concepts")
    config = small_config(64, grid_size=24, base_channels=(2, 3), probes_per_operator=2)
    generate(config, folder / "data.h5", progress=False)
    operator = np.arange(64) // 2
    columns = {
        "index": np.arange(64),
        "operator": operator,
        "tokens": operator % 4,
        "latent": operator[:, None] % 4,
        "training": operator < 28,
        "prototypes": np.arange(4)[:, None] + 4 * np.arange(3),
    }
    attributes = {"model": "none", "codebook_size": 4, "fingerprint": config.fingerprint}
    write_tokens(folder / "tokens.h5", columns, attributes)
    return folder / "data.h5", folder / "tokens.h5"


def test_the_page_shows_all_plots(trained):
    page = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    shown = re.findall(r"\]\(images/(\w+)\.png\)", page)
    assert shown == [
        name for plots in (simulated_plots(8, 32), trained_plots(*trained)) for name, _ in plots
    ]
    assert all((IMAGES / f"{name}.png").stat().st_size < 200_000 for name in shown)
    assert QUICKSTART.exists()


@pytest.mark.repeated
def test_plots_of_simulated_samples(tmp_path):
    chosen = [plot for plot in simulated_plots(8, 32) if plot[0] in ("design", "noise", "spectra")]
    write(iter(chosen), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"design", "noise", "spectra"}
    # Three channels, whose rows have one height.
    assert Image.open(tmp_path / "noise.png").size[1] > 300


@pytest.mark.repeated
def test_plots_of_tokens(trained, tmp_path):
    write(trained_plots(*trained), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"variance", "tokens", "prototypes"}
    # Four tokens, each under four families, with fields and changes.
    width, height = Image.open(tmp_path / "prototypes.png").size
    assert width > 1.5 * height
