"""The report: content of the page, that it is self-contained, and its look in a browser."""

import html
import json
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest

from spinlock.checks import CheckReport, CheckRow, check_dataset
from spinlock.commands.plot import plot_sample
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError, DatasetError, DatasetNotFoundError
from spinlock.generation import generate
from spinlock.report import write_report
from spinlock.report.page import render_page
from spinlock.report.plot_data import ReportSource
from spinlock.report.report_plots import report_plots
from spinlock.storage import read_info, schema
from tests.helpers import small_config

pytestmark = pytest.mark.slow

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MIXTURE = InitialConditionConfig({"gaussian_noise_4": 1.0, "band_limited_low": 1.0})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "a<b>.h5"
    config = small_config(
        12,
        grid_size=24,
        num_realizations=2,
        num_timesteps=2,
        channels=2,
        initial_conditions=MIXTURE,
    )
    generate(config, path, progress=False)
    return path


@pytest.fixture(scope="module")
def page(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "folder" / "report.html"
    checks = check_dataset(dataset, replay=1, progress=False)
    assert write_report(dataset, out, checks=checks, progress=False) is checks
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(page):
    assert "<script" not in page
    assert set(re.findall(r'(?:src|srcset|href)="([^"#][^":,;]*)', page)) == {"data"}
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_holds_all_that_it_should(page, dataset):
    sections = re.findall(r"<h2>(.*?)</h2>", page)
    assert sections == [
        "Checks",
        "Gallery",
        "Distribution",
        "Spectra",
        "Design",
        "Features",
        "Trajectories",
        "Time and size",
        "Configuration",
    ]
    assert page.count("<img") == page.count("data:image/png") == 2 + 2 + 1 + 1 + 2 + 1
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'<section id="{anchor}">' in page
    info = read_info(dataset)
    for text in (info.fingerprint, info.digest, "24 × 24", "&quot;num_timesteps&quot;: 2"):
        assert text in page
    assert "a&lt;b&gt;.h5" in page
    assert "<b>" not in page
    assert all(alt for alt in re.findall(r'alt="([^"]*)"', page))


def test_every_row_of_the_checks_is_on_the_page(page, dataset):
    report = check_dataset(dataset, replay=1, progress=False)
    for row in report.rows:
        assert html.escape(row.claim) in page
        assert html.escape(row.measured) in page
    assert html.escape(report.summary()) in page


def test_what_fails_is_seen_at_once(dataset, tmp_path):
    path = shutil.copy(dataset, tmp_path / "bad.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = "0"
    text = render_page(read_info(path), check_dataset(path, replay=0, progress=False), [], [])
    assert '<p class="verdict fail">FAILED' in text
    failing = re.findall(r"<details open><summary>(\w+): \d+ of \d+ claims hold, 2 FAIL", text)
    assert failing == ["integrity"]
    assert text.count('<tr class="fail">') == 2


def test_what_is_measured_is_text_and_not_markup(dataset):
    row = CheckRow("a", "b", "<i>", "<u>", "<b>", None, passed=True)
    text = render_page(read_info(dataset), CheckReport((row,)), [], [])
    assert not any(markup in text for markup in ("<i>", "<u>", "<b>"))
    assert "<td>&lt;i&gt;</td><td>&lt;u&gt;</td><td>&lt;b&gt;</td>" in text


def test_without_fields_the_page_says_so(tmp_path):
    path = tmp_path / "none.h5"
    storage = StorageConfig(fields="none", shard_size=8)
    config = small_config(6, num_timesteps=4, storage=storage, initial_conditions=MIXTURE)
    generate(config, path, progress=False)
    with ReportSource.open(path) as source:
        plots = list(report_plots(source))
        sections = ["Distribution", "Distribution", "Design", *["Features"] * 4]
        assert [plot.section for plot in plots] == sections
        for plot in plots[2:4]:
            assert plot.draw().axes
    report = check_dataset(path, replay=0, progress=False)
    text = render_page(read_info(path), report, [], [])
    assert "This file does not store fields" in text
    assert f"{len(report.not_measurable)} are not measurable" in text


def test_variance_and_dynamics_are_shown(tmp_path):
    path = tmp_path / "transport.h5"
    config = small_config(
        24,
        grid_size=24,
        num_realizations=2,
        channels=1,
        probes_per_operator=2,
        operator="transport",
        dynamics=True,
        storage=StorageConfig(fields="none", shard_size=8),
    )
    generate(config, path, progress=False)
    with ReportSource.open(path) as source:
        plots = [plot for plot in report_plots(source) if plot.section in ("Variance", "Dynamics")]
        assert [plot.section for plot in plots] == ["Variance", "Dynamics", "Dynamics"]
        bars, histograms, scatter = (plot.draw() for plot in plots)
        dynamics, names = source.features(schema.DYNAMICS)
        assert dynamics.shape == (12, len(names))
    titles = [axes.get_title() for axes in bars.axes]
    assert titles == ["Features of u_1", "Response of u_1", "Transport to u_1", "Noise group"]
    assert [len(axes.get_yticks()) for axes in bars.axes] == [46, 14, 5, 6]
    assert [axes.get_title() for axes in histograms.axes[: len(names)]] == list(names)
    panels = {axes.get_title(): axes for axes in scatter.axes[:4]}
    assert list(panels) == ["diffusion", "growth", "shift_x", "shift_y"]
    points = panels["diffusion"].collections[0].get_offsets()
    true = dynamics[:, names.index("true_diffusion")]
    np.testing.assert_allclose(points[:, 0], true)


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        write_report(tmp_path / "none.h5", tmp_path / "out.html", progress=False)
    assert list(tmp_path.iterdir()) == []


MEASURE = """<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, style = frame.contentWindow.getComputedStyle(page.body);
  const images = [...page.images];
  document.title = JSON.stringify({
    width: page.documentElement.scrollWidth,
    broken: images.filter(one => !one.complete || one.naturalWidth === 0).length,
    images: images.length,
    outside: images.filter(one => one.getBoundingClientRect().right > WIDTH
      && !one.closest(".scroll")).length,
    background: style.backgroundColor,
    card: frame.contentWindow.getComputedStyle(images[0]).backgroundColor,
    color: style.color,
    smallest: Math.min(...images.map(one => one.getBoundingClientRect().width)),
  });
};
</script>"""


def measured(page, folder, width, theme):
    """Measure the page in a browser, in a frame of a width that a window may not have."""
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}">'
    text = f"<!DOCTYPE html><html><body>{frame}</iframe>{MEASURE.replace('WIDTH', str(width))}"
    path = folder / f"{width}-{theme}.html"
    path.write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    if theme == "dark":
        command.append("--blink-settings=preferredColorScheme=0")
    run = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    title = re.search(r"<title>(.*?)</title>", run.stdout[-(len(run.stdout)) :], re.DOTALL)
    assert title, run.stderr[-2000:]
    return json.loads(html.unescape(title[1]))


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the page is not shown in a browser")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page(page, tmp_path, width, theme):
    found = measured(page, tmp_path, width, theme)
    assert found["width"] <= width, "the page scrolls sideways"
    assert found["broken"] == found["outside"] == 0
    assert found["images"] == 9
    assert found["smallest"] >= 300
    assert found["card"] == "rgb(255, 255, 255)", "plots are dark on white"
    light = {
        name: sum(map(int, re.findall(r"\d+", found[name]))) for name in ("background", "color")
    }
    if theme == "light":
        assert light["background"] > 700 > 150 > light["color"]
    else:
        assert light["color"] > 600 > 150 > light["background"]


def test_one_sample_is_plotted(dataset, tmp_path):
    plot_sample(dataset, 3, tmp_path / "plots" / "three.png")
    content = (tmp_path / "plots" / "three.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    with pytest.raises(ConfigurationError, match=r"holds the samples 0\.\.11, got 12"):
        plot_sample(dataset, 12, tmp_path / "no.png")
    none = tmp_path / "none.h5"
    storage = StorageConfig(fields="none", shard_size=8)
    generate(small_config(2, storage=storage), none, progress=False)
    with pytest.raises(DatasetError, match="stores no fields"):
        plot_sample(none, 0, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()
