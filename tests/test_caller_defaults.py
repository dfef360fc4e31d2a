"""Files, batches and streams are the same under any defaults of the caller."""

import pytest
import torch

from spinlock import SpinlockDataModule
from spinlock.checks import check_dataset
from spinlock.datamodules import SpinlockStream
from spinlock.features.response import extract_responses
from spinlock.generation import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_info
from tests.helpers import small_config
from tests.process_settings import HOSTILE, clear_caches

pytestmark = pytest.mark.slow

DEFAULTS = [
    "several",
    *(
        pytest.param(name, marks=pytest.mark.repeated)
        for name in ("meta", "float64", "numpy raises")
    ),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("defaults") / "a.h5"
    config = small_config(
        24,
        grid_size=24,
        num_timesteps=2,
        probes_per_operator=2,
        num_realizations=2,
        dynamics=True,
    )
    generate(config, path, device="cpu", progress=False)
    return path, config


def measurements(path):
    rows = check_dataset(path, device="cpu", progress=False).rows
    return [(row.group, row.name, row.measured) for row in rows]


@pytest.fixture(scope="module")
def measured(dataset):
    return measurements(dataset[0])


@pytest.mark.parametrize("hostile", DEFAULTS)
def test_files_are_made_and_checked_alike_under_any_defaults(hostile, dataset, measured, tmp_path):
    path, config = dataset
    clear_caches()
    with HOSTILE[hostile]():
        generate(config, tmp_path / "a.h5", device="cpu", progress=False)
        assert read_info(tmp_path / "a.h5").digest == read_info(path).digest
        assert not extract_features(path, device="cpu", progress=False).changed
        assert measurements(path) == measured


@pytest.mark.parametrize("hostile", ["meta", "float64", "matmul medium"])
def test_responses_are_the_same_under_any_defaults(hostile):
    """Also without the settings that the generator holds, and where no table exists yet."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(2, 3, 3, 3, 16, 16, generator=generator)
    initial, trajectories = fields[:, 0, 0], fields[:, :2, 1:]
    expected = extract_responses(initial, trajectories)
    clear_caches()
    with HOSTILE[hostile]():
        found = extract_responses(initial, trajectories)
    assert all(map(torch.equal, found, expected))


def batches_of(path, config, **options):
    """The bytes of all batches; read as a loader's workers read them."""
    module = SpinlockDataModule(path, config, batch_size=4, device="cpu", **options)
    module.setup()
    found = []
    for loader in (module.train_dataloader(), module.val_dataloader(), module.predict_dataloader()):
        for rows in loader.batch_sampler:
            batch = loader.dataset.batch(rows)
            found += [(key, v.dtype, v.numpy().tobytes()) for key, v in batch.items()]
    return found


@pytest.mark.parametrize("hostile", DEFAULTS)
@pytest.mark.parametrize(
    "options",
    [
        {"view": "features", "scaling": "rank"},
        {"view": "sequence", "scaling": "robust"},
        {"view": "pairs"},
        {"view": "both", "balance": "family", "realizations": "one"},
    ],
    ids=lambda options: options["view"],
)
def test_batches_are_the_same_under_any_defaults(options, hostile, dataset):
    expected = batches_of(*dataset, **options)
    with HOSTILE[hostile]():
        assert batches_of(*dataset, **options) == expected


@pytest.mark.parametrize("hostile", DEFAULTS)
def test_streams_are_the_same_under_any_defaults(hostile, dataset):
    def stream():
        batches = SpinlockStream(dataset[1], batch_size=5, num_batches=2, device="cpu")
        return [{k: v.numpy().tobytes() for k, v in batch.items()} for batch in batches]

    expected = stream()
    with HOSTILE[hostile]():
        assert stream() == expected
