"""The README's picture: one sample of each variant of the baseline.

    python scripts/gallery.py [docs/images/gallery.png]

Samples are computed, not read: each is a function of the configuration and its index.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.plots.field_plots import gallery
from spinlock.plots.plot_style import png, themed
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design

# Samples among which an example of each variant is looked for.
_CANDIDATES = 400


def examples(config: GenerationConfig) -> dict[str, int]:
    """Variant -> a sample whose operator replaces the field, with hardly any noise."""
    design = make_design(config, 0, _CANDIDATES)
    names = Mixture(config.initial_conditions).names
    wanted = (design.values["update_policy"] == b"autoregressive") & (
        design.values["noise_scale"] < 0.05
    )
    rows = {name: np.flatnonzero(wanted & (design.variant == i)) for i, name in enumerate(names)}
    return {name: int(found[0]) for name, found in rows.items()}


def picture(config: GenerationConfig) -> bytes:
    """The picture as a PNG."""
    simulator = Simulator(config, "cpu")
    initial: list[NDArray[np.float32]] = []
    final: list[NDArray[np.float32]] = []
    chosen = examples(config)
    for index in chosen.values():
        (samples,) = simulator.samples(index, index + 1)
        initial.append(samples.initial[0, 0].numpy())
        final.append(samples.fields[0, 0, -1, 0].numpy())
    with themed("light"):
        figure = gallery(
            np.stack(initial),
            np.stack(final),
            list(chosen),
            step=1,
            title="Initial conditions $u_0$ by variant, and what a random operator makes of each "
            "(blue < 0 < red, a scale for each column)",
        )
        drawn = Image.open(io.BytesIO(png(figure, dpi=75)))
    # Noise does not compress; fewer colours do.
    small = io.BytesIO()
    drawn.convert("RGB").quantize(96).save(small, format="png", optimize=True)
    return small.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Write the picture to the path given, ``docs/images/gallery.png`` by default."""
    path = Path(arguments[0] if arguments else "docs/images/gallery.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(GenerationConfig(_CANDIDATES)))


if __name__ == "__main__":
    main(sys.argv[1:])
