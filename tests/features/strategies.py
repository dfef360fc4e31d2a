"""Hypothesis strategies for fields of many kinds, grids and lengths."""

from hypothesis import HealthCheck, settings, strategies as st

from .helpers import Recipe

# The device fixture holds for a whole test, as intended.
few = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["white", "red", "mixture", "sparse", "drifting"])
grids = st.sampled_from([(8, 8), (9, 12), (16, 15), (11, 17), (20, 14), (32, 32)])
lengths = st.integers(1, 9)
one_or_two = st.integers(1, 2)


@st.composite
def fields_of(draw, grids=grids, lengths=lengths, channels=one_or_two):
    """Recipes of float32 fields [2, 2, T, C, H, W]."""
    shape = (2, 2, draw(lengths), draw(channels), *draw(grids))
    return Recipe(draw(kinds), shape, draw(seeds))
