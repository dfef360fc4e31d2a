"""The first notebook and the first script that a new user runs."""

import json
import re
from pathlib import Path

import h5py
import pytest
import torch

from scripts.run_notebook import NOTEBOOK, executed, for_storage
from spinlock.storage import read_info, read_tokens
from tests.helpers import shortened

pytestmark = pytest.mark.slow

SCRIPT = NOTEBOOK.with_suffix(".py")
SMALL = """
NUM_OPERATORS = 20
GRID_SIZE = 24
MAX_EPOCHS = 2
FOLDER = Path("files")
"""


RATE = re.compile(r"it/s|s/it|\d\d:\d\d")


def outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def pictures(notebook):
    shown = [output.get("data", {}) for output in outputs(notebook)]
    return [data["image/png"] for data in shown if "image/png" in data]


def printed(notebook):
    return "".join("".join(output.get("text", "")) for output in outputs(notebook))


def test_the_notebook_runs(tmp_path):
    notebook = executed(NOTEBOOK, tmp_path, SMALL)
    text = printed(notebook)
    # A bar for the data, and one for the epochs, with scores.
    assert re.search(r"dataset\.h5: 100%\|.*80/80", text)
    assert re.search(r"Epoch 1: 100%\|.*r2=", text)
    assert "\x1b" not in text
    # Neither advertisements nor warnings of the libraries that draw bars.
    assert not re.search("Tip|IProgress|ipywidgets|Deprecat", text)
    assert re.search(r"same-token rate +-?\d\.\d{3} ", text)
    assert len(pictures(notebook)) == 3
    files = tmp_path / "files"
    assert read_info(files / "dataset.h5").config.num_samples == 80
    assert len(read_tokens(files / "tokens.h5").tokens) == 80
    assert (files / "codebook.html").stat().st_size > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
    stored = for_storage(notebook)
    assert "80/80" not in printed(stored)
    assert re.search(r"it/s|s/it", text)
    assert not RATE.search(printed(stored))
    assert re.search(r"Epoch 1: 100%\|.*\[loss=[\d.]+, r2=", printed(stored))
    assert len(pictures(stored)) == 3
    assert len(json.dumps(stored)) < len(json.dumps(notebook))


def test_the_stored_notebook_is_one_run_of_all_cells():
    text = NOTEBOOK.read_text()
    assert len(text) < 500_000
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds == {"stream", "execute_result"}
    assert len(pictures(notebook)) == 3
    assert "same-token rate" in printed(notebook)
    assert not re.search(r"/(tmp|home|root|work)/", printed(notebook))
    assert not RATE.search(printed(notebook))


def test_the_script_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = SCRIPT.read_text()
    assert len(script.splitlines()) < 40
    changes = {
        '"num_samples": 600': '"num_samples": 80',
        '"grid_size": [32]': '"grid_size": [24]',
        "max_epochs=30": "max_epochs=1",
    }
    script = shortened(script, changes)
    for run in range(2):
        with torch.random.fork_rng():
            exec(script, {})
        assert "same-token rate" in capsys.readouterr().out, f"run {run}"
    with h5py.File("data/small-tokens.h5") as file:
        assert file["tokens"].shape == (80,)
    assert Path("data/small-codebook.html").stat().st_size > 10_000
