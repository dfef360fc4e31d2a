"""Lists the columns of the dynamics of an operator, in stored order.

Symbols: map Φ(u) = S(a·u + b·F(u)) of one timestep without noise; states R; Jacobian J at the
states and its mean kernel K; mean over channels and pixels ⟨·⟩; lg = log10. A prime removes the
means of channels.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DynamicsColumn:
    """Description of one column of the dynamics.

    Attributes:
        name: Name of the column.
        formula: Definition, in the symbols of this module's docstring.
        unit: Unit; "1" if none. Lengths are in pixels, times in steps.
        range: Interval of possible values.

    Example:
        >>> [column.name for column in DYNAMICS if column.unit == "pixels²/step"]
        ['diffusion']
    """

    name: str
    formula: str
    unit: str
    range: str


_column = DynamicsColumn

#: Columns of the dynamics, in stored order.
DYNAMICS: tuple[DynamicsColumn, ...] = (
    _column(
        "lyapunov",
        "mean over 3 steps of ln(distance after / before), for a perturbation of R1 that is scaled "
        "to 0.01 of the field's rms before each step",
        "1/step",
        "[−13.8, ∞)",
    ),
    _column(
        "memory",
        "√(⟨(p − q)²⟩/(½⟨p²⟩ + ½⟨q²⟩)), p and q the states 3 steps after R1 and R2",
        "1",
        "[0, 2]",
    ),
    _column("heterogeneity", "1 − Σ|K|²/Σ|J|²", "1", "[0, 1]"),
    _column(
        "evenness",
        "⟨(Φ(u) + Φ(−u))²⟩/(⟨(Φ(u) + Φ(−u))²⟩ + ⟨(Φ(u) − Φ(−u))²⟩), u = R1 and R2 together",
        "1",
        "[0, 1]",
    ),
    _column("superposition", "√(⟨(Φ(2u) − 2Φ(u))²⟩/⟨Φ(2u)²⟩), u = R1", "1", "[0, 1000]"),
    _column("amplitude_exponent", "½·log2(⟨Φ(2u)²⟩/⟨Φ(u)²⟩), u = R1", "1", "ℝ"),
    _column("gain_rms", "½·lg(Σ|J|²/C)", "1", "[−10, ∞)"),
    _column("increment", "½·lg(⟨(Φ(u) − u)²⟩/⟨u²⟩), u = R1, R2, −R1, −R2", "1", "[−6, ∞)"),
    _column(
        "diffusion",
        "D in ln G(k)² = 2g − 2D·|k|², G(k) = ΣM·Re[K(k)·exp(ik·shift)]/√(C·ΣM²), M the mean of "
        "Re[…] over k",
        "pixels²/step",
        "ℝ",
    ),
    _column("growth", "g of the same fit", "1/step", "ℝ"),
    _column(
        "shift_x",
        "side/2π·arg ΣK(k)·K*(k + 1 along x), modes below the Nyquist frequency",
        "pixels/step",
        "[−½ side, ½ side]",
    ),
    _column("shift_y", "the same along y", "pixels/step", "[−½ side, ½ side]"),
    _column("spread", "radius of |K|² about the shift", "pixels", "[0, 0.71·side]"),
    _column("mixing", "share of |K|² between different channels", "1", "[0, 1]"),
    _column("late_rms", "½·lg((⟨p²⟩ + ⟨q²⟩)/2), 3 steps after R1 and R2", "1", "[−10, 6]"),
    _column(
        "late_persistence",
        "⟨p₂′p₃′ + q₂′q₃′⟩/√(⟨p₂′² + q₂′²⟩⟨p₃′² + q₃′²⟩)",
        "1",
        "[−1, 1]",
    ),
    _column("noise", "lg(b·noise_scale)", "1", "[−6, ∞)"),
    _column("noise_length", "spatial_correlation", "fraction of the grid", "[0, ∞)"),
)

#: Names of the columns of the dynamics, in stored order.
DYNAMICS_NAMES: tuple[str, ...] = tuple(column.name for column in DYNAMICS)
