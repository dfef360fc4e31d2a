"""Tables of residual tokens, and of several processes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spinlock import metrics
from tests.metrics.test_information import LABELINGS, table

TOKENS, LABELS = LABELINGS["dependent"]
# The dependence sits in the combination of the parts.
PARTS = torch.stack([TOKENS % 4, TOKENS // 4, (TOKENS * 7) % 3], 1)


def joint_table(parts, labels):
    ids = np.unique(parts.numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    return table(torch.from_numpy(ids), labels)


def accumulated(metric, tokens=PARTS, labels=LABELS):
    for batch in tokens[:, 0].argsort().split(64):
        metric.update(tokens[batch], labels[batch])
    return metric


def test_levels_and_joint_have_separate_tables(device):
    metric = accumulated(metrics.TokenContingency(5, 5, num_levels=3).to(device))
    tables = {name: value.cpu() for name, value in metric.compute().items()}
    assert list(tables) == ["level_0", "level_1", "level_2", "joint"]
    for level in range(3):
        expected = table(PARTS[:, level], LABELS)
        assert torch.equal(tables[f"level_{level}"][: len(expected)], expected)
        assert not tables[f"level_{level}"][len(expected) :].any()
    assert torch.equal(tables["joint"], joint_table(PARTS, LABELS))
    metric.reset()
    assert metric.observed.shape[0] == 0


def test_combinations_beyond_any_integer_are_distinguished():
    """64 levels of 1,024 codes: 2^640 combinations, of which only those observed take memory."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randint(1024, (6, 64), generator=generator)
    some[1] = some[0]
    some[1, -1] = (some[0, -1] + 1) % 1024
    which = torch.arange(300) % 6
    metric = metrics.TokenContingency(1024, 6, num_levels=64)
    for part in torch.arange(300).split(70):
        metric.update(some[which[part]], which[part])
    assert metric.observed.shape == (6, 64 + 6)
    assert metrics.adjusted_mutual_information(metric.compute()["joint"]) == 1


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 2)])
def test_tokens_without_their_levels_are_refused(shape):
    metric = metrics.TokenContingency(3, 3, num_levels=2)
    with pytest.raises(ValueError, match=r"\[B, 2\] and classes \[B\], got"):
        metric.update(torch.zeros(shape, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))


def test_two_processes_equal_one(tmp_path):
    # Forked: starting an interpreter and importing torch takes ten times as long as the test.
    torch.multiprocessing.start_processes(
        _accumulate_half, args=(tmp_path,), nprocs=2, start_method="fork"
    )
    for rank in range(2):
        merged = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(merged["plain"], table(TOKENS, LABELS))
        assert torch.equal(merged["joint"], joint_table(PARTS, LABELS))
        for level in range(3):
            expected = table(PARTS[:, level], LABELS)
            assert torch.equal(merged[f"level_{level}"][: len(expected)], expected)
        # Rank 1 alone had samples.
        assert torch.equal(merged["one"], table(TOKENS, LABELS))
        assert torch.equal(merged["one_joint"], joint_table(PARTS, LABELS))


def _accumulate_half(rank: int, folder: Path) -> None:
    """Count half the samples of low tokens on rank 0, and the rest on rank 1."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    first = (TOKENS < 9) & (torch.arange(len(TOKENS)) % 2 == 0)
    mine = first if rank == 0 else ~first
    nothing = torch.zeros(0, dtype=torch.int64)
    plain, one = metrics.TokenContingency(17, 5), metrics.TokenContingency(17, 5)
    levels = metrics.TokenContingency(5, 5, num_levels=3)
    one_joint = metrics.TokenContingency(5, 5, num_levels=3)
    plain.update(TOKENS[mine], LABELS[mine])
    levels.update(PARTS[mine], LABELS[mine])
    one.update(TOKENS if rank else nothing, LABELS if rank else nothing)
    if rank:
        one_joint.update(PARTS, LABELS)
    merged = {"plain": plain.compute()["joint"], **levels.compute()}
    merged["one"], merged["one_joint"] = (m.compute()["joint"] for m in (one, one_joint))
    torch.save(merged, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
