"""Datasets of the loaders work with PyTorch's own tools, as any map-style dataset does."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    StackDataset,
    Subset,
    default_collate,
    random_split,
)

from spinlock import GenerationConfig
from spinlock.datamodules import FeatureDataset, SpinlockStreamModule, collate_samples
from spinlock.datamodules.datasets import EPOCH_STRIDE
from tests.datamodules import collect, ready

VIEWS = {
    "features": "single",
    "sequence": "steps",
    "responses": "responding",
    "pairs": "probed",
    "probes": "responding",
    "fields": "steps",
    "both": "single",
}


@pytest.fixture(params=VIEWS)
def dataset(request, datasets):
    """The dataset of the training loader of each view."""
    fields = {"realizations": "one"} if request.param in ("fields", "both") else {}
    datamodule = ready(*datasets[VIEWS[request.param]], view=request.param, **fields)
    return datamodule.train_dataloader().dataset


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.dtype == other[key].dtype
        assert torch.equal(values, other[key]), key


def test_one_sample(dataset):
    count = len(dataset)
    whole = dataset.batch(range(count))
    for index in (0, count - 1, -1, -count, np.int64(1), np.uint8(1), torch.tensor(1)):
        assert_equal(dataset[index], {key: values[int(index)] for key, values in whole.items()})
    for index in (count, count + 1, -count - 1, EPOCH_STRIDE - 1, -EPOCH_STRIDE, 10**30, -(10**30)):
        with pytest.raises(IndexError, match="out of range"):
            dataset[index]
    for index in (1.0, np.float32(1), torch.tensor(1.0), "1", slice(1, 3), [1], None):
        with pytest.raises(TypeError, match="must be an integer"):
            dataset[index]


def test_iteration_ends_after_the_last_sample(dataset):
    samples = list(dataset)
    assert len(samples) == len(dataset)
    assert_equal(default_collate(samples), dataset.batch(range(len(dataset))))


def test_loaders_of_ones_own(dataset):
    """They return what the data module's loaders return."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    expected = [dataset.batch(order[first : first + 5]) for first in range(0, len(order), 5)]
    loaders = [
        DataLoader(dataset, batch_size=5, sampler=order),
        DataLoader(dataset, batch_sampler=BatchSampler(order, 5, drop_last=False)),
        DataLoader(Subset(dataset, order), batch_size=5),
        DataLoader(Subset(dataset, torch.tensor(order)), batch_size=5, collate_fn=collate_samples),
        DataLoader(ConcatDataset([dataset, dataset]), batch_size=5, sampler=order),
    ]
    for loader in loaders:
        batches = list(loader)[: len(expected)]
        for batch, own in zip(batches, expected, strict=True):
            assert_equal(batch, own)
    stacked = next(iter(DataLoader(StackDataset(a=dataset, b=dataset), batch_size=5)))
    assert_equal(stacked["a"], dataset.batch(range(5)))


def test_random_split_in_a_worker(datasets):
    dataset = ready(*datasets["single"], view="both").train_dataloader().dataset
    parts = random_split(dataset, [0.7, 0.3], torch.Generator().manual_seed(0))
    loaded = [collect(DataLoader(part, batch_size=8, num_workers=1)) for part in parts]
    index = torch.cat([part["index"] for part in loaded])
    assert sorted(index.tolist()) == dataset.rows.tolist()
    assert_equal(loaded[0], dataset.batch(parts[0].indices))


def test_a_split_of_a_loader_of_the_module_is_not_the_order_of_the_sampler(datasets):
    """Positions are those of the split, in the order of the file."""
    loader = ready(*datasets["steps"], view="fields", realizations="one").train_dataloader()
    next(iter(loader))
    assert [sample["index"].item() for sample in loader.dataset] == loader.dataset.rows.tolist()


def test_batches_that_are_simulated():
    space = {"grid_size": [32], "base_channels": {"low": 2, "high": 4}}
    config = GenerationConfig.from_dict(
        {"num_samples": 1, "block_size": 2, "parameter_space": space}
    )
    sizes = {"batch_size": 2, "num_batches": 3, "eval_samples": 2, "scaling_samples": 4}
    datamodule = SpinlockStreamModule(config, device="cpu", population=1000, **sizes)
    datamodule.setup()
    loader = datamodule.train_dataloader()
    # The unit of the dataset is a batch.
    assert len(loader.dataset) == 3
    first = list(loader.dataset)
    for batch, other in zip(DataLoader(loader.dataset, batch_size=None), first, strict=True):
        assert_equal(batch, other)
    two = next(iter(DataLoader(loader.dataset, batch_size=2)))
    assert_equal(two, {key: torch.cat([first[0][key], first[1][key]]) for key in two})
    with pytest.raises(IndexError, match="index 3 is out of range for a dataset of length 3"):
        loader.dataset[3]
    by_epoch = [{tuple(batch["index"].tolist()) for batch in loader} for _ in range(2)]
    assert by_epoch[0] == {tuple(batch["index"].tolist()) for batch in first}
    assert by_epoch[0].isdisjoint(by_epoch[1])


@given(st.data())
def test_indices_behave_as_those_of_a_list(data):
    rows = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    dataset = FeatureDataset({"x": torch.arange(5) * 10}, torch.tensor(rows))
    index = data.draw(st.integers(-9, 9) | st.integers())
    try:
        expected = rows[index]
    except IndexError:
        with pytest.raises(IndexError):
            dataset[index]
    else:
        assert dataset[index]["x"].item() == 10 * expected


def test_the_code_in_the_documentation_runs(datasets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "quickstart.h5").symlink_to(datasets["responding"][0])
    page = Path(__file__).parents[2] / "docs" / "datamodules.md"
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)), names)
    assert sorted([*names["one"].indices, *names["two"].indices]) == list(
        range(len(names["dataset"]))
    )
    assert sum(len(batch["index"]) for batch in names["batches"]) == len(names["one"])
    assert names["more"].state_dict() == names["datamodule"].state_dict()
    assert 1e-4 < names["finder"].suggestion() < 1
