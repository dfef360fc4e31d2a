"""Puts into words what is particular about the dynamics of a token's operators."""

from collections.abc import Sequence

import numpy as np

from spinlock.codebook.distributions import Values

# Words for low and high values of each column of the dynamics.
_WORDS: dict[str, tuple[str, str]] = {
    "lyapunov": ("stable", "unstable"),
    "memory": ("forgets its start", "remembers its start"),
    "heterogeneity": ("nearly linear", "strongly nonlinear"),
    "evenness": ("odd in u", "even in u"),
    "superposition": ("obeys superposition", "violates superposition"),
    "amplitude_exponent": ("insensitive to amplitude", "sensitive to amplitude"),
    "gain_rms": ("weak gain", "strong gain"),
    "increment": ("small steps", "large steps"),
    "diffusion": ("sharpening", "diffusive"),
    "growth": ("shrinking", "expanding"),
    "shift_x": ("moves left", "moves right"),
    "shift_y": ("moves up", "moves down"),
    "spread": ("local", "wide reach"),
    "mixing": ("separate channels", "mixed channels"),
    "late_rms": ("ends small", "ends large"),
    "late_persistence": ("keeps changing", "settles"),
    "noise": ("weak noise", "strong noise"),
    "noise_length": ("fine-grained noise", "smooth noise"),
}
# Absolute mean normal score from which a column is worth a word, and the same in standard errors of
# the mean: among few operators large means are chance.
_NOTABLE, _STANDARD_ERRORS = 0.5, 3.0
# Columns whose ranks correlate more than this say the same.
_ALIKE = 0.7


def describe_token(
    scores: Values, operators: int, names: Sequence[str], alike: Values, *, count: int = 3
) -> list[str]:
    """Return words for the columns that differ most from the population, the strongest first.

    A column differs if its mean normal score is 0.5 and three standard errors from zero. A column
    that correlates with one that was already chosen is skipped.

    Args:
        scores: Mean normal score of the token's operators in each column, (D,).
        operators: Number n of these operators; the standard error is 1 / sqrt(n).
        names: Names of the columns.
        alike: Correlations of the columns over the population, (D, D).
        count: Largest number of words.

    Returns:
        Words; none if no column differs.

    Example:
        >>> names = ("noise", "increment", "growth")
        >>> alike = np.array([[1, 0, 0], [0, 1, 0.9], [0, 0.9, 1]])
        >>> describe_token(np.array([1.0, -2.0, -1.5]), 20, names, alike)
        ['small steps', 'strong noise']
    """
    chosen: list[int] = []
    least = max(_NOTABLE, _STANDARD_ERRORS / operators**0.5)
    for column in np.argsort(-np.abs(scores), kind="stable"):
        if len(chosen) == count or abs(scores[column]) < least:
            break
        if all(abs(alike[column, other]) <= _ALIKE for other in chosen):
            chosen.append(int(column))
    return [_word(names[column], high=bool(scores[column] > 0)) for column in chosen]


def _word(name: str, *, high: bool) -> str:
    # The true values of transport operators have the words of the measured ones.
    words = _WORDS.get(name.removeprefix("true_"))
    return f"{'high' if high else 'low'} {name}" if words is None else words[high]
