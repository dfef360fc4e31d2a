"""Planning an assembly: every sample exactly once, whatever lies around."""

from pathlib import Path

from hypothesis import given, settings, strategies as st

from spinlock.storage.assembly_plan import Segment, plan_assembly
from spinlock.storage.shard_files import Shard

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8)


@settings(max_examples=300, derandomize=True)
@given(RANGES, st.integers(1, 60))
def test_plan_covers_each_sample_once(ranges, num_samples):
    sources = [Shard(Path(f"{i}"), start, start + size) for i, (start, size) in enumerate(ranges)]
    plan = plan_assembly(num_samples, sources)
    covered = []
    for segment in plan.segments:
        assert segment.source.start <= segment.start < segment.stop <= segment.source.stop
        covered += range(segment.start, segment.stop)
    missing = [sample for gap in plan.gaps for sample in gap]
    assert sorted(covered + missing) == list(range(num_samples))
    # What any source holds is not computed again.
    held = {sample for s in sources for sample in range(s.start, s.stop)}
    assert not held & set(missing)
    assert covered == sorted(covered)


@settings(max_examples=300, derandomize=True)
@given(RANGES, RANGES, st.integers(1, 60))
def test_samples_that_a_dataset_holds_stay(ranges, held, num_samples):
    kept, taken = [], {}
    for number, (start, size) in enumerate(held):
        samples = range(start, start + size)
        if not taken.keys() & set(samples):
            kept.append(
                Segment(Shard(Path(f"held{number}"), start, start + size), start, start + size)
            )
            taken |= dict.fromkeys(samples, kept[-1].source)
    sources = [Shard(Path(f"{i}"), start, start + size) for i, (start, size) in enumerate(ranges)]
    plan = plan_assembly(num_samples, sources, kept)
    covered = {s: each.source for each in plan.segments for s in range(each.start, each.stop)}
    missing = {sample for gap in plan.gaps for sample in gap}
    assert sum(each.stop - each.start for each in plan.segments) == len(covered)
    assert covered.keys() | missing == set(range(num_samples))
    assert not covered.keys() & missing
    assert all(covered[s] == source for s, source in taken.items() if s < num_samples)
    assert not missing & {sample for source in sources for sample in source.samples}
