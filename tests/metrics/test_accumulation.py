"""Tables of residual tokens, over processes, and the metrics' plots."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from spinlock import metrics
from tests.metrics.test_information import FUNCTIONS, LABELLINGS, table

TOKENS, LABELS = LABELLINGS["dependent"]
# The dependence sits in the combination of the parts.
PARTS = torch.stack([TOKENS % 4, TOKENS // 4, (TOKENS * 7) % 3], 1)


def joint_table(parts, labels):
    ids = np.unique(parts.numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    return table(torch.from_numpy(ids), labels)


def accumulated(metric, tokens=PARTS, labels=LABELS):
    for batch in tokens[:, 0].argsort().split(64):
        metric.update(tokens[batch], labels[batch])
    return metric


@pytest.mark.parametrize("sizes", [{"num_codes": 5, "num_classes": 5}, {}])
def test_levels_and_joint_have_tables_of_their_own(sizes, device):
    metric = accumulated(metrics.TokenContingency(**sizes, num_levels=3).to(device))
    tables = {name: value.cpu() for name, value in metric.compute().items()}
    assert list(tables) == ["level_0", "level_1", "level_2", "joint"]
    for level in range(3):
        expected = table(PARTS[:, level], LABELS)
        assert torch.equal(tables[f"level_{level}"][: len(expected)], expected)
        assert not tables[f"level_{level}"][len(expected) :].any()
    assert torch.equal(tables["joint"], joint_table(PARTS, LABELS))
    metric.reset()
    assert metric.observed.shape[0] == 0


@pytest.mark.parametrize("metric_class", FUNCTIONS)
def test_metrics_of_levels_and_joint(metric_class):
    values = accumulated(metric_class(5, num_classes=5, num_levels=3)).compute()
    function = FUNCTIONS[metric_class]
    for level in range(3):
        counts = torch.nn.functional.pad(table(PARTS[:, level], LABELS), (0, 0, 0, 5))[:5]
        torch.testing.assert_close(values[f"level_{level}"], function(counts))
    joint = joint_table(PARTS, LABELS)
    expected = {
        metrics.CodebookUsage: len(joint) / 5**3,
        metrics.DeadCodes: sum(values[f"level_{level}"].item() for level in range(3)),
    }.get(metric_class, function(joint).item())
    assert values["joint"].item() == pytest.approx(expected, rel=1e-12)


def test_combinations_beyond_any_integer_are_told_apart():
    """64 levels of 1,024 codes: 2^640 combinations, of which only those met take memory."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randint(1024, (6, 64), generator=generator)
    some[1] = some[0]
    some[1, -1] = (some[0, -1] + 1) % 1024
    which = torch.arange(300) % 6
    metric = metrics.AdjustedMutualInformation(1024, num_classes=6, num_levels=64)
    for part in torch.arange(300).split(70):
        metric.update(some[which[part]], which[part])
    assert metric.observed.shape == (6, 64 + 6)
    assert metric.compute()["joint"] == 1


@pytest.mark.parametrize("sizes", [(4,), (2, 3)])
def test_levels_come_last_in_any_shape(sizes):
    metric = metrics.TokenContingency(3, num_classes=2, num_levels=2)
    tokens = torch.arange(math.prod(sizes) * 2).view(*sizes, 2) % 3
    metric.update(tokens, torch.zeros(sizes, dtype=torch.int64))
    assert metric.contingency.sum((1, 2)).tolist() == [math.prod(sizes)] * 2


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 2)])
def test_tokens_without_their_levels_are_refused(shape):
    metric = metrics.TokenContingency(num_levels=2)
    with pytest.raises(ValueError, match=r"shapes \[\.\.\., 2\] and \[\.\.\.\], got"):
        metric.update(torch.zeros(shape, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))


def test_two_processes_equal_one(tmp_path):
    # Forked: starting an interpreter and importing torch takes ten times as long as the test.
    torch.multiprocessing.start_processes(
        _accumulate_half, args=(tmp_path,), nprocs=2, start_method="fork"
    )
    for rank, sizes in itertools.product(range(2), ["declared", "grown"]):
        merged = torch.load(tmp_path / f"{rank}-{sizes}.pt", weights_only=True)
        assert torch.equal(merged["plain"], table(TOKENS, LABELS))
        assert torch.equal(merged["joint"], joint_table(PARTS, LABELS))
        for level in range(3):
            expected = table(PARTS[:, level], LABELS)
            assert torch.equal(merged[f"level_{level}"][: len(expected)], expected)
        # Rank 1 alone had samples: an empty update is no obstacle.
        assert torch.equal(merged["one"], table(TOKENS, LABELS))
        assert torch.equal(merged["one_joint"], joint_table(PARTS, LABELS))


def _accumulate_half(rank: int, folder: Path) -> None:
    """Rank 0 has half the samples of low tokens, rank 1 the rest: grown tables differ in size."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    first = (TOKENS < 9) & (torch.arange(len(TOKENS)) % 2 == 0)
    mine = first if rank == 0 else ~first
    nothing = torch.zeros(0, dtype=torch.int64)
    for name, sizes in {"declared": {"num_codes": 17, "num_classes": 5}, "grown": {}}.items():
        plain, one = metrics.TokenContingency(**sizes), metrics.TokenContingency(**sizes)
        levels = metrics.TokenContingency(**sizes, num_levels=3)
        one_joint = metrics.TokenContingency(**sizes, num_levels=3)
        plain.update(TOKENS[mine], LABELS[mine])
        levels.update(PARTS[mine], LABELS[mine])
        one.update(TOKENS if rank else nothing, LABELS if rank else nothing)
        if rank:
            one_joint.update(PARTS, LABELS)
        merged = {"plain": plain.compute(), **levels.compute(), "one": one.compute()}
        merged["one_joint"] = one_joint.compute()["joint"]
        torch.save(merged, folder / f"{rank}-{name}.pt")
    torch.distributed.destroy_process_group()


PLOTTED = {
    metrics.TokenContingency: {},
    **{metric_class: {} for metric_class in FUNCTIONS},
    metrics.PermutationTest: {"permutations": 5},
}


@pytest.mark.parametrize("metric_class", PLOTTED)
def test_every_class_plots(metric_class):
    metric = metric_class(17, num_classes=5, **PLOTTED[metric_class])
    metric.update(TOKENS, LABELS)
    figure, ax = metric.plot()
    assert isinstance(figure, Figure)
    assert ax in figure.axes
    same_figure, same_ax = metric.plot(ax=ax)
    assert same_figure is figure
    assert same_ax is ax


def test_other_classes_plot_too():
    conditional = metrics.ConditionalMutualInformation(17, num_classes=5, num_groups=2)
    conditional.update(TOKENS, LABELS, TOKENS % 2)
    divergence = metrics.JensenShannonDivergence(17)
    divergence.update(TOKENS, LABELS % 2)
    levels = accumulated(metrics.AdjustedMutualInformation(num_levels=3))
    heat = accumulated(metrics.TokenContingency(num_levels=3))
    for metric in (conditional, divergence, levels, heat):
        figure, ax = metric.plot()
        assert isinstance(figure, Figure)
        assert ax in figure.axes


def test_plotted_values_are_those_of_the_metric():
    metric = metrics.AdjustedMutualInformation(17, num_classes=5)
    metric.update(TOKENS, LABELS)
    values = [metric.compute(), torch.tensor(0.5)]
    _, ax = metric.plot(values)
    assert np.allclose(ax.lines[0].get_ydata(), [float(v) for v in values])
    _, ax = metrics.TokenContingency().plot(torch.tensor([[1, 3], [0, 0], [6, 2]]))
    shown = np.asarray(ax.images[0].get_array())
    # By frequency, as fractions of the code's samples; the code without samples is left out.
    assert shown.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2", "0"]


def test_plotting_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    metric = metrics.TokenContingency()
    metric.update(TOKENS, LABELS)
    metric.plot()
    scalar = metrics.MutualInformation()
    scalar.update(TOKENS, LABELS)
    scalar.plot()
    assert plt.get_fignums() == []
