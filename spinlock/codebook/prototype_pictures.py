"""Runs the prototypes of all tokens on the same initial conditions, and draws their fields."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from spinlock.codebook.token_groups import TokenGroup
from spinlock.plots.plot_style import FIELD_COLORS
from spinlock.prototypes.initial_fields import initial_conditions
from spinlock.runtime.progress import Progress
from spinlock.simulation.operator_runs import NEW_NOISE, OperatorRunner, Run
from spinlock.storage.dataset_file import DatasetFile

#: Side of the picture of a field in pixels, the white gap between pictures, and the gap between
#: fields and changes.
SIDE, GAP, BREAK = 40, 2, 10
# Families of initial conditions that are shown, one column for each, and samples of a family from
# which the one of the most ordinary variance is chosen.
_MOST_FAMILIES, _CANDIDATES = 4, 16
# Quality of lossy compression. Noise needs the most bytes, and its details matter the least: 256
# rows of noise take 4 MB.
_QUALITY = 25


@dataclass(frozen=True, eq=False)
class Pictures:
    """Fields of prototypes under the initial conditions of the page.

    Args:
        families: Family of each of the F initial conditions.
        samples: Samples of the dataset that they belong to.
        initial: Initial conditions, [F, S, S], channel 0.
        fields: Last field of each operator, [F, S, S], channel 0 of one realization.
        limit: Absolute value at which the colors of fields saturate.
    """

    families: tuple[str, ...]
    samples: tuple[int, ...]
    initial: Tensor
    fields: dict[int, Tensor]
    limit: float

    @property
    def side(self) -> int:
        """Side of the picture of a field, in pixels."""
        return self.initial.shape[-1]

    def head(self) -> str:
        """Return the data URL of a picture of the initial conditions, side by side."""
        return self._url(self.initial[None] / self.limit)

    def row(self, operators: Sequence[int]) -> str:
        """Return the data URL of a picture with a row for each operator: fields, then changes.

        The changes from the initial condition have a scale of their own for each operator.

        Args:
            operators: Indices of operators that were run.
        """
        fields = torch.stack([self.fields[operator] for operator in operators])
        changes = fields - self.initial
        scale = torch.stack([torch.tensor(_limit([change])) for change in changes])
        scaled = fields / self.limit, changes / scale[:, None, None, None]
        return self._url(torch.cat(scaled, dim=1))

    def _url(self, tiles: Tensor) -> str:
        rows, columns, side, _ = tiles.shape
        pitch, count = side + GAP, len(self.families)
        breaks = columns // count - 1
        size = rows * pitch - GAP, columns * pitch - GAP + breaks * (BREAK - GAP)
        canvas = np.full((*size, 3), 255, dtype=np.uint8)
        unit = (tiles.double().numpy() + 1) / 2
        colors = colormaps[FIELD_COLORS](unit.clip(0, 1), bytes=True)[..., :3]
        for row in range(rows):
            for column in range(columns):
                top, left = row * pitch, column * pitch + column // count * (BREAK - GAP)
                canvas[top : top + side, left : left + side] = colors[row, column]
        buffer = io.BytesIO()
        imsave(buffer, canvas, format="webp", pil_kwargs={"quality": _QUALITY, "method": 6})
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def run_prototypes(
    dataset: DatasetFile,
    groups: Sequence[TokenGroup],
    count: int,
    device: str | torch.device | None = None,
    *,
    title: str = "",
) -> Pictures:
    """Run the first prototypes of each token on one initial condition of each family.

    All runs have the same noise, so that they differ by their operators alone.

    Args:
        dataset: Open dataset file.
        groups: Tokens of the page.
        count: Number of prototypes of a token to run.
        device: Device to compute on; default: see `spinlock.runtime.device_choice`.
        title: Text in front of the progress, which counts the runs; default: none is shown.

    Raises:
        ConfigurationError: If classes that the file names cannot be imported or are not trusted.
    """
    config = dataset.config
    names = np.array(config.mixture.families)[dataset.design.variant]
    present = [name for name in dict.fromkeys(config.mixture.families) if name in names]
    families = tuple(present[:_MOST_FAMILIES])
    samples = tuple(_ordinary(dataset, np.flatnonzero(names == name)) for name in families)
    initial = initial_conditions(dataset, np.array(samples, dtype=np.int64))
    operators = sorted({operator for group in groups for operator in group.prototypes[:count]})
    runner = OperatorRunner(config, device, num_realizations=1)
    noise = [NEW_NOISE + number for number in range(len(samples))]
    runs = [Run(operator, range(len(samples))) for operator in operators]
    found = []
    with Progress(len(runs) * len(samples), 0, title, enabled=bool(title)) as bar:
        for tiles in runner.run(runs, initial, noise, lambda fields: _tiles(fields[:, 0, -1])):
            found.append(tiles)
            bar.update(len(samples))
    fields = dict(zip(operators, found, strict=True))
    shown = _tiles(initial)
    return Pictures(families, samples, shown, fields, _limit([shown, *fields.values()]))


def _ordinary(dataset: DatasetFile, samples: NDArray[np.int64]) -> int:
    """Return the sample, among the first ones, whose initial condition is nearest to variance 1."""
    some = samples[:_CANDIDATES]
    power = initial_conditions(dataset, some).square().mean(dim=(1, 2, 3))
    return int(some[int(power.log().abs().argmin())])


def _tiles(fields: Tensor) -> Tensor:
    """Return channel 0 of fields [F, C, H, W], with at most `SIDE` pixels along each axis."""
    side = min(SIDE, fields.shape[-1])
    return adaptive_avg_pool2d(fields[:, :1], side)[:, 0].cpu()


def _limit(tiles: Sequence[Tensor]) -> float:
    """Return the value that 99 % of the absolute values are below."""
    values: NDArray[np.float32] = torch.cat([tile.flatten() for tile in tiles]).abs().numpy()
    return float(np.quantile(values, 0.99)) or 1.0
