"""The page about a codebook: its content, its numbers, and what it refuses."""

import dataclasses
import html
import re
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from spinlock.codebook import token_gallery, write_codebook
from spinlock.codebook.token_groups import read_codebook
from spinlock.commands.command_line import main
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import generate
from spinlock.simulation.operator_family import OperatorFamily
from spinlock.storage import read_columns, read_info, read_tokens, schema
from spinlock.storage.token_file import write_tokens
from tests.helpers import small_config
from tests.test_report import BROWSER

CONFIG = small_config(
    24, grid_size=24, base_channels=(2, 3), probes_per_operator=2, num_realizations=1, dynamics=True
)
# Four of eight codes are used: by six, three, two and one of the twelve operators.
TOKENS = np.array([5, 2, 5, 5, 2, 5, 7, 5, 2, 5, 7, 0])
ROOT = Path(__file__).parents[2]
HOSTILE = '<img src=x onerror="alert(1)">'


def hostile_name(path):
    """A name of a file that is markup; it must not have a slash."""
    return path / "<b>&data.h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("codebook")
    generate(CONFIG, hostile_name(made), progress=False)
    rows = np.arange(24)
    latent = TOKENS[rows // 2, None] + 0.01 * rows[:, None]
    prototypes = np.full((8, 3), -1)
    for code in np.unique(TOKENS):
        own = np.flatnonzero(code == TOKENS)[:3]
        prototypes[code, : len(own)] = own
    columns = {
        "index": rows,
        "operator": rows // 2,
        "tokens": TOKENS[rows // 2],
        "latent": latent,
        "training": rows < 20,
        "prototypes": prototypes,
    }
    write(made / "tokens.h5", columns)
    several = np.stack([columns["tokens"], rows % 3], axis=1)
    write(made / "several.h5", {k: columns[k] for k in ("index", "latent")} | {"tokens": several})
    pooled = {"index": rows.reshape(12, 2), "tokens": TOKENS}
    write(made / "pooled.h5", pooled)
    return made


def write(path, columns, **attributes):
    known = {"dataset": HOSTILE, "fingerprint": CONFIG.fingerprint}
    write_tokens(path, columns, {"model": HOSTILE, "codebook_size": 8} | known | attributes)


def written(folder, name, out, **options):
    write_codebook(folder / name, hostile_name(folder), out, progress=False, **options)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(folder):
    return written(folder, "tokens.h5", folder / "page.html", num_prototypes=2)


def test_every_used_token_has_a_row_sorted_by_share(page):
    assert re.findall(r'<article class="row" id="token-(\d+)">', page) == ["5", "2", "7", "0"]
    shares = re.findall(r"<p>([\d.]+)%, (\d+) operators</p>", page)
    assert shares == [("50.00", "6"), ("25.00", "3"), ("16.67", "2"), ("8.33", "1")]
    prototypes = re.findall(r"<p>prototypes ([\d, –]+)</p>", page)
    assert prototypes == ["0, 2", "1, 4", "6, 10", "11"]


def test_the_gallery_has_the_most_frequent_tokens(folder):
    several = ["token 1.5 (50.0%)", "token 2.0 (33.3%)", "token 2.1 (33.3%)"]
    one = ["token 5 (50.0%)", "token 2 (25.0%)", "token 7 (16.7%)"]
    for name, expected in (("tokens.h5", one), ("several.h5", several)):
        axes = token_gallery(folder / name, hostile_name(folder), num_tokens=3).axes
        labels = [each.get_ylabel().splitlines()[0] for each in axes if each.get_ylabel()]
        assert labels == ["$u_0$", *expected]
        # Initial conditions, then fields and changes of each token, of four families.
        assert sum(len(each.images) for each in axes) == 4 * 7


def test_the_head_describes_the_codebook(page):
    tiles = dict(re.findall(r"<div><dt>([\w ]+)</dt><dd>(.*?)</dd></div>", page))
    assert tiles["codes"] == "8"
    assert tiles["used"] == "50%"
    shares = np.array([6, 3, 2, 1]) / 12
    assert tiles["perplexity"] == f"{np.exp(-(shares * np.log(shares)).sum()):.0f}"
    assert (tiles["operators"], tiles["tokenized samples"]) == ("12", "24")
    assert tiles["training share"] == "83%"
    assert CONFIG.fingerprint in page


def test_names_are_text_and_not_markup(page):
    assert HOSTILE not in page
    assert "<b>&" not in page
    assert html.escape(HOSTILE) in page
    assert "&lt;b&gt;&amp;data.h5" in page


def test_the_page_needs_nothing_else(page):
    assert "<script" not in page
    assert set(re.findall(r'(?:src|href)="([^"#][^":,;]*)', page)) == {"data"}
    assert "url(" not in page
    # The initial conditions, and a picture for each token.
    assert page.count("data:image/webp") == page.count("<img") == 5
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert {"dyn", "par"} <= anchors


def test_bars_are_the_quantiles_of_the_operators(page, folder):
    """One bar, computed again from the file: the token's operators on the axis noise_scale."""
    columns = read_columns(hostile_name(folder), [schema.PARAMS], 24)
    axis = CONFIG.space.names.index("noise_scale")
    points = columns[schema.PARAMS][::2][TOKENS == 5, axis].astype(float)
    low, middle, high = np.quantile(points, (0.1, 0.5, 0.9))
    article = re.search(r'id="token-5">.*?</article>', page, re.DOTALL)[0]
    panel = article.partition('href="#par"')[2]
    row = re.search(r"<g class=\"k\">((?:<text[^>]*>\w+</text>)*)</g>", page)[1]
    labels = re.findall(r">(\w+)</text>", row)
    y = labels.index("noise_scale") * 11 + 6
    start, length = map(int, re.search(rf"M(\d+) {y}h(\d+)", panel).groups())
    assert abs(start - (100 + 106 * low)) <= 1
    assert abs(length - max(106 * (high - low), 2)) <= 1
    assert re.search(rf"M{100 + 106 * middle:.0f} {y - 4}v8", panel)
    # The axis grid_size has one value and says nothing.
    assert "grid_size" not in labels


def test_several_codebooks_have_a_section_each(folder, tmp_path):
    text = written(folder, "several.h5", tmp_path / "page.html", num_prototypes=1, max_tokens=4)
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Tokens of codebook 1 of 2",
        "Tokens of codebook 2 of 2",
    ]
    assert re.findall(r'id="token-(\d\.\d)"', text) == ["1.5", "1.2", "2.0", "2.1"]
    assert text.count("The 2 most frequent of") == 2
    # Prototypes are sought by latents among the operators of the token.
    codebook = read_codebook(read_tokens(folder / "several.h5"), hostile_name(folder))
    for group in codebook.groups:
        own = codebook.operator[group.operators]
        assert set(group.prototypes) <= set(own.tolist())
        assert len(group.prototypes) == min(8, len(own))


def test_many_codes_and_codebooks_need_little(folder, tmp_path):
    """As many of both as a file may have, which is small otherwise."""
    random = np.random.default_rng(0)
    columns = {"index": np.arange(24), "tokens": random.integers(0, 2**16, (24, 64))}
    columns["latent"] = random.normal(size=(24, 4096))
    write(tmp_path / "many.h5", columns, codebook_size=2**16)
    tracemalloc.start()
    try:
        codebook = read_codebook(read_tokens(tmp_path / "many.h5"), hostile_name(folder))
        assert len(codebook.groups) > 1500
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    out, options = tmp_path / "page.html", {"num_prototypes": 1, "max_tokens": 3}
    write_codebook(tmp_path / "many.h5", hostile_name(folder), out, progress=False, **options)
    text = out.read_text(encoding="utf-8")
    assert re.findall(r'id="token-(\d+)\.\d+"', text) == ["1", "2", "3"]
    assert text.count("The 0 most frequent of") == 61
    curves = re.findall(r'<path class="curve" d="([^"]*)"', text)
    assert [curve.count("L") for curve in curves] == [499] * 64


def test_tokens_of_pooled_samples(folder, tmp_path):
    """Without latents, the first operators of a token stand for it."""
    text = written(folder, "pooled.h5", tmp_path / "page.html", num_prototypes=1)
    tiles = dict(re.findall(r"<div><dt>([\w ]+)</dt><dd>(.*?)</dd></div>", text))
    assert tiles["samples of a token"] == "2 pooled"
    assert tiles["tokenized samples"] == "24"
    assert re.findall(r"<p>prototypes (\d+)</p>", text) == ["0", "1", "6", "11"]


def test_tokens_of_another_dataset_are_refused(folder, tmp_path):
    columns = {"index": np.arange(24), "tokens": np.zeros(24)}
    write(tmp_path / "t.h5", columns, fingerprint="0" * 64)
    found = r"another dataset: <img.*fingerprint 000000000000; .*data\.h5 has the fingerprint "
    with pytest.raises(DatasetError, match=found + CONFIG.fingerprint[:12]):
        write_codebook(tmp_path / "t.h5", hostile_name(folder), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": np.arange(1, 25)}, r"tokens of sample 24, .* holds the samples 0\.\.23"),
        ({"operator": np.zeros(24)}, "its operators are not those of"),
        ({"prototypes": np.full((8, 1), 12)}, "its operators are not those of"),
    ],
)
def test_rows_that_the_dataset_lacks_are_refused(folder, tmp_path, change, message):
    columns = {"index": np.arange(24), "tokens": np.zeros(24)} | change
    write(tmp_path / "t.h5", columns)
    with pytest.raises(DatasetError, match=message):
        write_codebook(tmp_path / "t.h5", hostile_name(folder), tmp_path / "page.html")


@pytest.mark.parametrize("out", ["tokens.h5", "<b>&data.h5", "other.html"])
def test_no_other_file_is_replaced(folder, out, page):
    (folder / "other.html").write_text("<!DOCTYPE html>\nprecious")
    before = (folder / out).read_bytes()
    with pytest.raises(ConfigurationError, match="was left unchanged"):
        write_codebook(folder / "tokens.h5", hostile_name(folder), folder / out, force=True)
    assert (folder / out).read_bytes() == before


def test_the_command_replaces_a_page_of_its_own(folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    arguments = [str(folder / "pooled.h5"), "--dataset", str(hostile_name(folder))]
    options = ["--out", str(out), "--prototypes", "1", "--max-tokens", "1"]
    main(["codebook", *arguments, *options])
    assert "4 tokens in use" in capsys.readouterr().out
    first = out.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        main(["codebook", *arguments, *options])
    main(["codebook", *arguments, *options, "--force"])
    assert out.read_bytes() == first


class Foreign(OperatorFamily):
    def operator(self, values, *, seed, index, channels, precision, device):
        return lambda fields: fields / 2


def test_a_dataset_with_classes_and_without_dynamics(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        num_samples=8,
        operator={"class_path": f"{__name__}.Foreign", "init_args": {}},
        dynamics=False,
    )
    generate(config, tmp_path / "data.h5", progress=False)
    stored = read_info(tmp_path / "data.h5").config
    columns = {"index": np.arange(8), "tokens": np.arange(8) % 2}
    write(tmp_path / "t.h5", columns, fingerprint=stored.fingerprint)
    given = tmp_path / "t.h5", tmp_path / "data.h5", tmp_path / "page.html"
    with pytest.raises(ConfigurationError, match="trust"):
        write_codebook(*given, progress=False)
    assert not given[2].exists()
    write_codebook(*given, trust=[__name__], progress=False)
    text = given[2].read_text(encoding="utf-8")
    assert text.count('<article class="row short"') == 2
    assert 'href="#dyn"' not in text


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_a_browser_draws_the_page(folder, page, tmp_path):
    shutil.copy(folder / "page.html", tmp_path / "page.html")
    shot = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1400"]
    command = [BROWSER, *options, f"--screenshot={shot}", f"file://{tmp_path}/page.html"]
    subprocess.run(command, check=True, timeout=100, capture_output=True)
    assert shot.stat().st_size > 20_000


def test_the_example_of_the_documentation_runs(folder, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "data_format.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1]
    (tmp_path / "data").mkdir()
    shutil.copy(hostile_name(folder), tmp_path / "data" / "quickstart.h5")
    shutil.copy(folder / "tokens.h5", tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(example, namespace)
    assert namespace["predicted"].prototypes.tolist() == [[0, 2, 3], [6, 10, -1]]
    assert namespace["predicted"].fields.shape == (2, 3, 1, 1, 3, 24, 24)


def test_changed_columns_are_refused(folder, tmp_path):
    path = tmp_path / "data.h5"
    shutil.copy(hostile_name(folder), path)
    with h5py.File(path, "r+") as file:
        file[schema.DYNAMICS][0, 0] += 1
    with pytest.raises(DatasetError, match="differs from its digest"):
        write_codebook(folder / "tokens.h5", path, tmp_path / "page.html", progress=False)
