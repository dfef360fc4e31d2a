"""A training loader goes on from a state without a trainer, and refuses what is no state."""

import itertools

import pytest
import torch

from spinlock.datamodules import LoaderOptions
from spinlock.datamodules.loading import MAX_EPOCH, EpochSampler
from spinlock.errors import ConfigurationError, DatasetError
from tests.datamodules import ready
from tests.datamodules.training_runs import BATCHES, EPOCHS, RANDOM, descriptions


def loader_of(datasets, **options):
    path, config = datasets["single"]
    return ready(path, config, batch_size=28, sampling_seed=1, **options).train_dataloader()


def test_a_loop_of_ones_own_goes_on_from_a_state(datasets):
    datamodule = ready(*datasets["single"], batch_size=28, **RANDOM)
    expected = descriptions(itertools.chain(*itertools.repeat(datamodule.train_dataloader(), 3)))
    for given in range(EPOCHS * BATCHES):
        loader, again = (datamodule.train_dataloader() for _ in range(2))
        passes = itertools.chain.from_iterable(loader for _ in range(EPOCHS))
        list(itertools.islice(passes, given))
        state = loader.state_dict()
        assert state == {"epoch": given // BATCHES, "batches": given % BATCHES}
        again.load_state_dict(state)
        assert again.state_dict() == state
        rest = [batch for _ in range(EPOCHS - state["epoch"]) for batch in descriptions(again)]
        assert rest == expected[given:]


def test_a_state_at_the_end_of_an_epoch_leaves_nothing_of_it(datasets):
    loader, other = loader_of(datasets), loader_of(datasets)
    list(loader)
    other.load_state_dict({"epoch": 0, "batches": BATCHES})
    assert descriptions(other) == []
    assert descriptions(other) == descriptions(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_begins_with_its_first_batch(datasets, workers):
    loader = loader_of(datasets, loader=LoaderOptions(num_workers=workers))
    other = loader_of(datasets)
    iterator = iter(loader)
    for each in (loader, other):
        each.sampler.set_epoch(2)
    assert descriptions(iterator) == descriptions(other)


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        [0, 1],
        {"epoch": 0},
        {"epoch": 0, "batches": BATCHES + 1},
        {"epoch": 0, "batches": -1},
        {"epoch": -1, "batches": 0},
        {"epoch": MAX_EPOCH + 1, "batches": 0},
        {"epoch": True, "batches": 0},
        {"epoch": 0, "batches": 1.0},
        {"epoch": 0, "batches": torch.tensor(1)},
        {"epoch": "0" * 10_000, "batches": 0},
    ],
)
def test_what_is_no_state_is_refused(datasets, state):
    message = r"training loader must have an epoch in 0\.\.2147483648 and .* in 0\.\.4, got "
    with pytest.raises(DatasetError, match=message) as caught:
        loader_of(datasets).load_state_dict(state)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("epoch", [-1, MAX_EPOCH + 1])
def test_epochs_out_of_range_are_refused(epoch):
    sampler = EpochSampler(2**30, seed=0)
    with pytest.raises(ConfigurationError, match=r"epoch: must lie in 0\.\.2147483648, got"):
        sampler.set_epoch(epoch)
