"""Makes the plots of docs/concepts.md.

    python -m scripts.concept_plots [docs/images]

Most samples are computed from configurations. The last plots need the dataset and the tokens of
configs/quickstart.yaml, which are made in a temporary folder in about two minutes.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from scripts.gallery import small_png
from spinlock.checks.variance_checks import column_shares
from spinlock.codebook import token_gallery
from spinlock.commands.command_line import main as spinlock
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.plots.design_plots import sobol_pairs
from spinlock.plots.field_plots import film_strip, gallery, sample_plot
from spinlock.plots.plot_style import png
from spinlock.plots.spectrum_plots import radial_spectra
from spinlock.plots.token_plots import heatmap
from spinlock.plots.variance_plots import variance_bars
from spinlock.report.plot_data import ReportSource
from spinlock.report.report_plots import PAIRS
from spinlock.simulation.samples import Samples
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from spinlock.simulation.variants import InitialConditions
from spinlock.storage import read_tokens, schema

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
# Operators with visible noise of short range.
_NOISY = {"noise_scale": {"low": 0.7, "high": 1.0}, "spatial_correlation": {"low": 0, "high": 0.04}}

Plot = tuple[str, Callable[[], Figure]]


def simulated_plots(operators: int, side: int) -> Iterator[Plot]:
    """Yield the names of plots, and functions that draw them, for which no file is needed.

    Args:
        operators: Number of operators in the plot of the design.
        side: Side of the grid in pixels.
    """
    yield "design", lambda: _design(operators)
    for policy in ("autoregressive", "residual", "convex"):
        yield f"policy_{policy}", lambda policy=policy: _policy(policy, side)
    yield "spectra", lambda: _spectra(side)
    yield "probes", lambda: _probes(side)
    yield "noise", lambda: _noise(side)


def trained_plots(dataset: Path, tokens: Path) -> Iterator[Plot]:
    """Yield the names of plots of a dataset and its tokens, and functions that draw them.

    Args:
        dataset: Dataset file with two probes of each operator.
        tokens: Token file of a model of the dataset with one codebook.
    """
    yield "variance", lambda: _variance(dataset)
    yield "tokens", lambda: _tokens(dataset, tokens)
    yield "prototypes", lambda: token_gallery(tokens, dataset, num_tokens=4, device="cpu")


def _config(side: int, **settings: Any) -> GenerationConfig:  # noqa: ANN401 (any setting)
    space = {"grid_size": [side], **settings.pop("parameter_space", {})}
    usual = {"num_samples": 64, "dynamics": False, "responses": False}
    return GenerationConfig.from_dict({**usual, "parameter_space": space, **settings})


def _simulated(config: GenerationConfig, samples: range) -> list[Samples]:
    simulator = Simulator(config, "cpu")
    return [next(simulator.samples(index, index + 1)) for index in samples]


def _design(operators: int) -> Figure:
    config = GenerationConfig(operators)
    design = make_design(config)
    families = np.array(config.mixture.families)[design.variant]
    return sobol_pairs(design.params, config.space.names, families.tolist(), PAIRS)


def _policy(policy: str, side: int) -> Figure:
    space = {"update_policy": [policy], "noise_scale": {"low": 0.02, "high": 0.05}}
    config = _config(side, parameter_space=space, num_timesteps=7, num_realizations=1)
    (sample,) = _simulated(config, range(9, 10))
    trajectory = np.concatenate([sample.initial[:, None], sample.fields[0]], axis=1)
    return film_strip(trajectory[:, :, 0], range(8), title=f"update_policy: {policy}")


def _spectra(side: int) -> Figure:
    config = _config(side, num_samples=200)
    variant, index = make_design(config).variant, torch.arange(200)
    drawn = InitialConditions(config).fields(config.seed, index, variant, config.channels, side)
    fields, names = drawn.numpy(), config.mixture.names
    return radial_spectra({name: fields[variant == i] for i, name in enumerate(names)})


def _probes(side: int) -> Figure:
    space = {"update_policy": ["autoregressive"], "noise_scale": {"low": 0.001, "high": 0.01}}
    config = _config(side, parameter_space=space, probes_per_operator=4, num_realizations=1)
    samples = _simulated(config, range(8))
    names = np.array(config.mixture.names)[make_design(config, 0, 8).variant]
    return gallery(
        np.stack([sample.initial[0, 0] for sample in samples]),
        np.stack([sample.fields[0, 0, 0, 0] for sample in samples]),
        [f"operator {i // 4}_{name}" for i, name in enumerate(names)],
        step=1,
        title="Two operators under four probes each",
    )


def _noise(side: int) -> Figure:
    space = {"update_policy": ["autoregressive"], **_NOISY}
    (sample,) = _simulated(_config(side, parameter_space=space), range(5, 6))
    initial, final = sample.initial[0].numpy(), sample.fields[0, :, 0].numpy()
    title = "Realizations of one sample differ by their noise alone"
    return sample_plot(initial, final, step=1, title=title, realizations=3)


def _variance(dataset: Path) -> Figure:
    titles = {
        schema.PER_TIMESTEP: "Features of the field u₁",
        schema.RESPONSES: "Response features",
        schema.NOISE_RESPONSES: "Noise group",
    }
    with ReportSource.open(dataset) as source:
        shares = {title: column_shares(source, name) for name, title in titles.items()}
    return variance_bars(shares, title="What the operator explains, and what the probe explains")


def _tokens(dataset: Path, tokens: Path) -> Figure:
    with ReportSource.open(dataset) as source:
        families = list(dict.fromkeys(source.config.mixture.families))
        found = read_tokens(tokens)
        labels = [families.index(name) for name in source.families[found.index]]
    counts = torch.zeros(found.codebook_size, len(families))
    counts.index_put_(
        (torch.from_numpy(found.tokens), torch.tensor(labels)), torch.tensor(1.0), accumulate=True
    )
    title = "Families of the initial conditions of each token"
    return heatmap(counts, class_names=families, kind="family", title=title)


def write(plots: Iterator[Plot], folder: Path) -> None:
    """Write plots as PNG files.

    Args:
        plots: Names and functions.
        folder: Existing folder.
    """
    for name, draw in plots:
        (folder / f"{name}.png").write_bytes(small_png(png(draw, dpi=100), colors=256))


def train(options: Sequence[str] = ()) -> tuple[Path, Path]:
    """Generate the dataset of the quickstart in the current folder, and train on it.

    Args:
        options: Options of ``spinlock fit`` and ``predict``.

    Returns:
        Paths of the dataset and of the tokens.
    """
    run = ["--config", str(QUICKSTART), "--trainer.enable_progress_bar=false", *options]
    spinlock(["fit", *run])
    (checkpoint,) = Path("lightning_logs").rglob("*.ckpt")
    spinlock(["predict", *run, "--ckpt_path", str(checkpoint), "--out", "tokens.h5"])
    return Path("data/quickstart.h5").absolute(), Path("tokens.h5").absolute()


def main(arguments: Sequence[str]) -> None:
    """Write all plots.

    Args:
        arguments: Folder of the PNG files, default: ``docs/images``.
    """
    folder = Path(arguments[0] if arguments else "docs/images").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write(simulated_plots(256, 64), folder)
    with tempfile.TemporaryDirectory() as temporary:
        before = Path.cwd()
        os.chdir(temporary)
        write(trained_plots(*train()), folder)
        os.chdir(before)


if __name__ == "__main__":
    main(sys.argv[1:])
