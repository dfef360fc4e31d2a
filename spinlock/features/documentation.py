"""docs/features.md, generated from the registry: ``python -m spinlock.features.documentation``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from spinlock.features.redundancy import REDUNDANCIES
from spinlock.features.registry import FEATURES, Feature
from spinlock.features.sdf import SDF_VERSION

_TITLE = f"# Summary Descriptor Features {SDF_VERSION}"

_INTRODUCTION = """\
Every trajectory of fields is summarized by 98 numbers: 46 that describe a field (19 spatial, 27
spectral), 13 that describe how a field evolves, and 39 that describe how those 13 vary over
noise realizations. This page is generated from the registry (`spinlock.features.FEATURES`); do
not edit it, run `python -m spinlock.features.documentation`.

```python
import torch
from spinlock.features import extract

fields = torch.randn(8, 5, 10, 3, 64, 64)  # N samples, M realizations, T steps, C channels, H, W
features = extract(fields)
features.per_timestep  # [8, 10, 46]
features.per_trajectory  # [8, 5, 13]
features.aggregated  # [8, 39]
```"""

_LAYOUT = """\
## Arrays

| array | shape | columns |
|---|---|---|
| `features/sdf/per_timestep/features` | [N, T, 46] | spatial, then spectral features of u₁ … u_T; \
mean over realizations and channels |
| `features/sdf/per_trajectory/features` | [N, M, 13] | temporal features of u₁ … u_T; mean over \
channels |
| `features/sdf/aggregated/features` | [N, 39] | over realizations: the 13 means `<name>_mean`, \
then the 13 standard deviations `<name>_std`, then the 13 coefficients of variation `<name>_cv` |
| `features/sdf/initial/features` | [N, 46] | the columns of `per_timestep` for the initial \
condition u₀; mean over channels |

All are float32. Columns stand in the order of the tables below; each array carries their names
in its attribute `names`.

- **A feature is evaluated on one field, or on one channel's trajectory, first; averaging comes
  last.** `spatial_min` is the mean of the minima, not the minimum of all; and since the mean of
  squares is not the square of the mean, `spatial_variance` is not `spatial_std` squared.
- **Missing values.** A temporal feature is NaN exactly where the trajectory is shorter than its
  *min T*; at T = 1 all 13 (and all 39) are. Nothing else is ever NaN or infinite, for fields of
  finite values up to 10⁴ in modulus.
- **Over realizations**, with m the mean and v the population standard deviation, the coefficient
  of variation is min(v/|m|, 100), 0 if v = 0, and 100 if only m = 0. With one realization v = 0."""

_CONVENTIONS = """\
## Conventions

- **Axes.** x is the last axis (column j, width W), y the one before it (row i, height H). Both
  are periodic. The grid spacing is 1 pixel, the step of time 1 step; n = H·W. Any grid from 8×8
  on will do, square or not.
- **Units.** u is the unit of the field (stored fields are dimensionless), 1 marks a pure number.
  The *exponent* e says how a feature scales: feature(a·u) = aᵉ·feature(u) for a > 0. Where it
  reads *1, +c*, adding c to the field adds c to the feature; adding c changes no other spatial
  or spectral feature.
- **Moments** are population moments (no n − 1) everywhere: over pixels, Fourier bins, time and
  realizations. ⟨·⟩ is the mean over pixels, μ = ⟨u⟩, s² = ⟨(u − μ)²⟩, z = (u − μ)/s. Q is the
  quantile with linear interpolation.
- **Derivatives** are periodic differences: g = (gx, gy) is the central difference (u[j+1] −
  u[j−1])/2 along x and y, L the five-point Laplacian. The means of gx, gy and L vanish for every
  periodic field; therefore the features are means of moduli.
- **Flat fields.** A field with max u − min u ≤ max(10⁻⁶·max|u|, 10⁻¹²) is constant but for
  rounding. Its mean, minimum, maximum and range are what they are, and every other spatial and
  spectral feature is exactly 0.
- **Spatial frequencies** are in cycles/pixel: fx, fy ∈ [−½, ½), f = √(fx² + fy²); the Nyquist
  frequency is ½. A wave with k whole cycles across the domain has the frequency k/W.
- **Power.** S = |DFT(u − μ)|²/n over the full plane of Fourier bins, the constant one always
  excluded, so that Σ S = n·s²: white noise of variance σ² has S = σ² on average, on every grid.
  p = S/ΣS.
- **Bands** are octaves of the Nyquist frequency, lower edges inclusive. A band without bins (on
  grids of 32 and less) gives 0.

| band | f (cycles/pixel) | bins at 128×128 | ratio |
|---|---|---|---|
| 0 | 0 < f < 1/32 | 44 | low |
| 1 | 1/32 ≤ f < 1/16 | 148 | low |
| 2 | 1/16 ≤ f < 1/8 | 600 | mid |
| 3 | 1/8 ≤ f < 1/4 | 2412 | mid |
| 4 | 1/4 ≤ f ≤ 0.7071 | 13179 | high |

- **Peaks.** Where several bins lie within a thousandth of the largest power, the dominant
  frequency is their mean.
- **Trajectories** are u_t, t = 0 … T−1: the T evolved fields, without the initial condition. E_t
  = ⟨u_t²⟩ is the energy, V_t the spatial variance, Δ_t = u_{t+1} − u_t, D_t = √⟨Δ_t²⟩, X = √max
  E. r_t is u_t minus its mean over time, pixel by pixel; σ² its variance; Π_k its power at the
  frequency k/T cycles/step; ρ(h) its (biased) autocorrelation at lag h. τ is the time counted
  from the middle. Logarithms are floored 120 dB down: ℓ(A) = ln max(A, 10⁻¹²·max A, 10⁻³⁰).
- **Static trajectories**, σ ≤ max(10⁻⁶·X, 10⁻¹²), do not move but for rounding; the column
  *static* says what each temporal feature is then."""

_NOTES = {
    "spatial": """\
`gradient_anisotropy` is the coherence of the structure tensor: 0 without a preferred direction,
1 for plane waves. Skewness and kurtosis are 0 for Gaussian marginals.""",
    "spectral": """\
`spectral_centroid_x` and `_y` use |fx| and |fy|: the signed means are 0 for every real field.
`dominant_freq_magnitude` is the amplitude A of a pure sinusoid A·cos(…). `spectral_flatness` is
near 10⁻⁸ for one wave and 0.56 for white noise. `spectral_anisotropy` counts a direction and its
opposite as the same.""",
    "temporal": """\
`lyapunov_approx` equals ln|λ| for u_t = u* + λᵗ·v; it is a finite-time rate, which tends to 0 on
a saturated attractor, chaotic or not, and is no estimate of an asymptotic Lyapunov exponent.
`trajectory_smoothness` is 1 for a straight line, ¼ for white noise in time, 0 for a flip of
period two. `regime_switches` is the fraction of the T − 2 opportunities at which the growth of
energy reverses.""",
}

_GROUPS = {
    "spatial": "Spatial features",
    "spectral": "Spectral features",
    "temporal": "Temporal features",
}

_REDUNDANCY = """\
## Known redundancies

These hold for a single field. They are kept because the stored numbers are averages over
realizations and channels, of which each of the pair tells something of its own
(`spatial_variance` − `spatial_std`² is the spread of the standard deviation)."""

_CUSTOM = """\
## Features of your own

One function, with its row of the registry in the decorator:

```python
# my_package/features.py
from torch import Tensor
from spinlock.features import custom_feature


@custom_feature(formula="⟨|u|⟩", unit="u", range="[0, ∞)", exponent=1)
def mean_modulus(fields: Tensor) -> Tensor:  # [B, H, W] -> [B]
    return fields.abs().mean((-2, -1))


@custom_feature(formula="E_{T−1} − E_0", unit="u²", range="ℝ", exponent=2, min_timesteps=2)
def energy_gain(trajectories: Tensor) -> Tensor:  # [A, T, H, W] -> [A]
    energy = trajectories.square().mean((-2, -1))
    return energy[:, -1] - energy[:, 0]
```

and a line of yaml for each:

```yaml
data:
  generation:
    features:
      per_field: [my_package.features.mean_modulus]
      per_trajectory: [my_package.features.energy_gain]
```

They are averaged and aggregated like the built-in ones and stored beside them, in
`features/custom/{per_timestep, per_trajectory, aggregated, initial}/features`, under the names
of the functions; the built-in arrays stay as they are. The selection is part of the
configuration and of the fingerprint (the text of the functions is not: rename a function when
its meaning changes). A function must treat every item of its input by itself, draw no random
numbers and return finite numbers; NaN and infinity are refused. A feature with `min_timesteps`
is NaN on shorter trajectories."""


def features_markdown() -> str:
    """The page, as Markdown."""
    sections = [_TITLE, _INTRODUCTION, _LAYOUT, _CONVENTIONS]
    for group, title in _GROUPS.items():
        rows = [feature for feature in FEATURES if feature.group == group]
        sections += [f"## {title} ({len(rows)})", _NOTES[group], _table(rows)]
    relations = [
        f"- {', '.join(f'`{name}`' for name in known.names)}: {known.relation}."
        for known in REDUNDANCIES
    ]
    sections += [_REDUNDANCY, "\n".join(relations), _CUSTOM]
    return "\n\n".join(sections) + "\n"


def _table(rows: Sequence[Feature]) -> str:
    temporal = rows[0].min_timesteps is not None
    head = ["name", "formula", "unit", "range", "exponent"]
    head += ["min T", "static", "reference"] if temporal else ["reference"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [
            f"`{row.name}`",
            row.formula,
            row.unit,
            row.range,
            f"{row.exponent}{', +c' if row.shifts else ''}",
        ]
        if temporal:
            static = row.static if isinstance(row.static, str) else f"{row.static:g}"
            cells += [str(row.min_timesteps), static]
        lines.append([*cells, row.reference])
    # A bar within a cell would end it.
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def main(arguments: Sequence[str]) -> None:
    """Write the page to the path given, ``docs/features.md`` by default."""
    path = Path(arguments[0] if arguments else "docs/features.md")
    path.write_text(features_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
