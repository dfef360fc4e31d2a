"""Makes the plot in the README: one sample of each variant of the baseline configuration.

    python -m scripts.gallery [docs/images/gallery.png]

The samples are computed from the configuration, so no dataset file is needed.
"""

import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.plots.field_plots import gallery
from spinlock.plots.plot_style import png
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design

# Number of samples that are searched for an example of each variant.
_CANDIDATES = 400


def examples(config: GenerationConfig) -> dict[str, int]:
    """Return a sample of each variant whose operator replaces the field, with little noise.

    Args:
        config: Configuration of the dataset.
    """
    design = make_design(config, 0, _CANDIDATES)
    names = Mixture(config.initial_conditions).names
    autoregressive = design.values["update_policy"] == b"autoregressive"
    quiet = autoregressive & (design.values["noise_scale"] < 0.05)
    return {
        name: int(np.flatnonzero(quiet & (design.variant == position))[0])
        for position, name in enumerate(names)
    }


def gallery_png(config: GenerationConfig) -> bytes:
    """Return the plot as a PNG.

    Args:
        config: Configuration of the dataset.
    """
    simulator = Simulator(config, "cpu")
    chosen = examples(config)
    samples = [next(simulator.samples(index, index + 1)) for index in chosen.values()]
    initial = np.stack([sample.initial[0, 0].numpy() for sample in samples])
    final = np.stack([sample.fields[0, 0, -1, 0].numpy() for sample in samples])
    title = "Initial conditions $u_0$ by variant, and the output $u_1$ of a random operator "
    title += "(blue < 0 < red, one scale per column)"
    draw = partial(gallery, initial, final, list(chosen), step=1, title=title)
    return small_png(png(draw, dpi=75))


def small_png(content: bytes, colors: int = 96) -> bytes:
    """Return a PNG with a palette, which makes the file smaller, since noise does not compress.

    Args:
        content: The PNG.
        colors: Number of colors of the palette, up to 256; default: 96.
    """
    small = io.BytesIO()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.quantize(colors).save(small, format="png", optimize=True)
    return small.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Write the plot.

    Args:
        arguments: Path of the PNG, default: ``docs/images/gallery.png``.
    """
    path = Path(arguments[0] if arguments else "docs/images/gallery.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gallery_png(GenerationConfig(_CANDIDATES)))


if __name__ == "__main__":
    main(sys.argv[1:])
