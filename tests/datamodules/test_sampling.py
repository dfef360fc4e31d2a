"""The order of training samples depends on the seed and the epoch, and can be balanced."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spinlock.datamodules.datasets import EPOCH_STRIDE
from spinlock.datamodules.loading import EpochSampler
from tests.datamodules import collect, ready

CLASSES = np.repeat(np.arange(4), [40, 3, 10, 7])


def test_an_epoch_is_a_permutation():
    sampler = EpochSampler(60, seed=1)
    epochs = [list(sampler) for _ in range(3)]
    assert len(sampler) == 60
    for order in epochs:
        assert sorted(order) == list(range(60))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_the_order_is_a_function_of_seed_and_epoch(classes):
    sampler = EpochSampler(60, seed=1, classes=classes)
    epochs = [list(sampler) for _ in range(3)]
    for number in (2, 0):
        sampler.set_epoch(number)
        assert list(sampler) == epochs[number]
    assert list(EpochSampler(60, seed=1, classes=classes, epoch=1)) == epochs[1]
    assert list(EpochSampler(60, seed=2, classes=classes)) != epochs[0]


def test_stamped_positions_tell_their_epoch():
    plain, stamped = EpochSampler(60, seed=1), EpochSampler(60, seed=1, stamp_epoch=True)
    for epoch in range(3):
        assert [epoch * EPOCH_STRIDE + position for position in plain] == list(stamped)


def test_classes_come_equally_often():
    sampler = EpochSampler(60, seed=1, classes=CLASSES)
    ones = np.zeros(4)
    for _ in range(40):
        order = np.array(list(sampler))
        counts = np.bincount(CLASSES[order], minlength=4)
        assert counts.tolist() == [15, 15, 15, 15]
        for which in range(4):
            # No position is drawn again before all of its class have been.
            times = np.bincount(order[CLASSES[order] == which], minlength=60)[which == CLASSES]
            assert times.max() - times.min() <= 1
        ones += np.bincount(CLASSES[order[:30]], minlength=4)
    # The order of classes is random too, so each class has its share of the first half.
    assert np.abs(ones / 40 - 7.5).max() < 1.5


def test_what_does_not_divide_is_dealt_out_in_turn():
    classes = np.repeat(np.arange(4), [40, 3, 10, 8])
    sampler = EpochSampler(61, seed=0, classes=classes)
    counts = np.array([np.bincount(classes[list(sampler)], minlength=4) for _ in range(200)])
    assert (counts.sum(axis=1) == 61).all()
    assert set(np.unique(counts)) == {15, 16}
    assert (np.abs((counts == 16).mean(axis=0) - 0.25) < 0.1).all()


@pytest.mark.parametrize(("balance", "label"), [("variant", "variant"), ("family", "family")])
def test_training_batches_are_balanced_on_request(datasets, balance, label):
    datamodule = ready(*datasets["single"], balance=balance)
    epoch = collect(datamodule.train_dataloader())
    present = torch.bincount(epoch[label])
    assert present.max() - present[present > 0].min() <= 1
    assert len(epoch["index"]) == len(
        collect(ready(*datasets["single"]).train_dataloader())["index"]
    )
    # Evaluation is not balanced.
    val = collect(datamodule.val_dataloader())
    assert torch.equal(val["index"], val["index"].unique())


def test_the_seed_is_the_arguments_else_seed_everythings(datasets, monkeypatch):
    def order(**options):
        return collect(ready(*datasets["single"], **options).train_dataloader())["index"].tolist()

    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert order() == order(sampling_seed=0)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert order() == order(sampling_seed=7) != order(sampling_seed=0)
    # The global generator has no influence.
    torch.manual_seed(1)
    once = order()
    torch.manual_seed(2)
    assert order() == once


def test_a_loader_that_is_made_late_begins_with_the_runs_epoch(datasets):
    """The sampler has the trainer's epoch even if the trainer does not iterate over it."""
    datamodule = ready(*datasets["single"])
    datamodule.trainer = SimpleNamespace(current_epoch=3, train_dataloader=None)
    sampler = datamodule.train_dataloader().sampler
    sampler_of_the_start = ready(*datasets["single"]).train_dataloader().sampler
    sampler_of_the_start.set_epoch(3)
    assert list(sampler) == list(sampler_of_the_start)
