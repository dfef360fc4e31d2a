"""A stream returns the samples of the file without the file, each to one rank and worker."""

import pickle
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from spinlock.configuration import CustomFeatureConfig
from spinlock.datamodules import (
    LoaderOptions,
    SpinlockDataModule,
    SpinlockStream,
    SpinlockStreamModule,
)
from spinlock.errors import ConfigurationError, DatasetError
from tests.callbacks import quiet_trainer
from tests.datamodules.recorder import MeanModel
from tests.forks import in_two_ranks
from tests.helpers import small_config

pytestmark = pytest.mark.slow

CONFIG = small_config(40, num_realizations=2, probes_per_operator=2)


def collect(batches):
    batches = list(batches)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


GAIN = ["tests.features.custom_features.energy_gain"]
CUSTOM = {
    "both kinds": CustomFeatureConfig(
        per_field=["tests.features.custom_features.mean_modulus"], per_trajectory=GAIN
    ),
    "of trajectories": CustomFeatureConfig(per_trajectory=GAIN),
}


@pytest.mark.parametrize(
    "features",
    [
        "both kinds",
        *(pytest.param(f, marks=pytest.mark.repeated) for f in ("sdf", "of trajectories")),
    ],
)
def test_the_stream_gives_the_batches_of_the_file(tmp_path, features):
    options = {"num_timesteps": 2, "features": CUSTOM.get(features, features)}
    config = replace(CONFIG, num_samples=20, **options)
    datamodule = SpinlockDataModule(
        tmp_path / "a.h5", config, batch_size=10, scaling="none", progress=False
    )
    datamodule.prepare_data()
    datamodule.setup("predict")
    stream = SpinlockStream(config, batch_size=10, num_batches=2)
    for from_file, streamed in zip(datamodule.predict_dataloader(), stream, strict=True):
        assert from_file.keys() == streamed.keys()
        for key, expected in from_file.items():
            assert expected.dtype == streamed[key].dtype
            assert torch.equal(expected, streamed[key]), key


def test_scalers_of_a_data_module_apply(tmp_path):
    datamodule = SpinlockDataModule(tmp_path / "a.h5", CONFIG, batch_size=40, progress=False)
    datamodule.prepare_data()
    datamodule.setup("predict")
    stream = SpinlockStream(
        CONFIG,
        batch_size=40,
        feature_scaler=datamodule.feature_scaler,
        initial_feature_scaler=datamodule.initial_feature_scaler,
    )
    expected, batch = next(iter(datamodule.predict_dataloader())), next(iter(stream))
    for key in ("features", "initial_features"):
        assert torch.equal(batch[key], expected[key])


@pytest.mark.parametrize(
    ("num_workers", "start", "order"),
    [
        (0, None, "consecutive"),
        (0, None, "random"),
        (2, "fork", "consecutive"),
        (2, "fork", "random"),
        # One worker, since it starts for seconds: it imports everything.
        pytest.param(1, "spawn", "random", marks=pytest.mark.repeated),
    ],
)
def test_workers_share_the_batches(num_workers, start, order):
    stream = SpinlockStream(CONFIG, batch_size=4, order=order, num_batches=5)
    loader = DataLoader(
        stream, batch_size=None, num_workers=num_workers, multiprocessing_context=start
    )
    indices = collect(loader)["index"].tolist()
    alone = collect(stream)["index"].tolist()
    assert sorted(indices) == sorted(alone)
    assert len(set(indices)) == 20
    if order == "consecutive":
        assert sorted(indices) == list(range(20))


def test_random_blocks_are_samples_of_the_dataset():
    stream = SpinlockStream(CONFIG, batch_size=6, order="random", num_batches=2, seed=3)
    drawn = collect(stream)
    assert drawn["index"].max() < 1_000_000
    for row in (0, 5, 7):
        start = int(drawn["index"][row])
        one = next(iter(SpinlockStream(CONFIG, batch_size=1, start=start)))
        for key, value in one.items():
            torch.testing.assert_close(drawn[key][row : row + 1], value)
    other = SpinlockStream(CONFIG, batch_size=6, order="random", num_batches=2, seed=4)
    assert not torch.equal(collect(other)["index"], drawn["index"])
    assert torch.equal(collect(stream)["index"], drawn["index"])


def indices_of_a_rank():
    torch.distributed.init_process_group("gloo")
    stream = SpinlockStream(CONFIG, batch_size=4, num_batches=6)
    return collect(stream)["index"].tolist()


def test_ranks_share_the_batches():
    indices = in_two_ranks(indices_of_a_rank)
    assert indices[0] == [*range(0, 4), *range(8, 12), *range(16, 20)]
    assert sorted(indices[0] + indices[1]) == list(range(24))


def test_a_stream_may_have_no_end():
    stream = SpinlockStream(CONFIG, batch_size=4, start=100)
    iterator = iter(stream)
    assert [next(iterator)["index"].tolist()[0] for _ in range(3)] == [100, 104, 108]
    with pytest.raises(TypeError, match="no length"):
        len(stream)
    assert len(SpinlockStream(CONFIG, num_batches=7)) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"order": "sorted"}, "order: must be one of"),
        ({"start": -1}, "start: must lie in"),
        ({"population": 2, "order": "random"}, "population: must lie between block_size=4 and"),
        ({"num_batches": 0}, "num_batches: must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        SpinlockStream(CONFIG, **options)


def stream_module(**options):
    sizes = {"batch_size": 6, "num_batches": 5, "eval_samples": 10, "scaling_samples": 10}
    datamodule = SpinlockStreamModule(CONFIG, **(sizes | {"population": 1000} | options))
    datamodule.setup()
    return datamodule


def test_a_stream_module_has_new_samples_in_each_epoch():
    loader = stream_module().train_dataloader()
    epochs = [collect(loader) for _ in range(2)]
    assert [len(epoch["index"]) for epoch in epochs] == [30, 30]
    assert not torch.equal(epochs[0]["index"].sort().values, epochs[1]["index"].sort().values)
    again = stream_module().train_dataloader()
    again.load_state_dict({"epoch": 1, "batches": 0})
    assert torch.equal(collect(again)["features"], epochs[1]["features"])
    assert not torch.equal(
        collect(stream_module(sampling_seed=1).train_dataloader())["index"], epochs[0]["index"]
    )


def test_sets_of_a_stream_module_share_no_operator():
    datamodule = stream_module()
    loaders = (datamodule.val_dataloader(), datamodule.test_dataloader())
    operators = [set(collect(loader)["operator"].tolist()) for loader in loaders]
    operators.append(set(collect(datamodule.train_dataloader())["operator"].tolist()))
    assert sum(map(len, operators)) == len(set.union(*operators))
    assert [len(each) for each in operators[:2]] == [5, 5]


def test_a_stream_module_scales_by_its_own_samples():
    datamodule = stream_module(signed_log=False)
    raw = collect(SpinlockStream(CONFIG, batch_size=10, start=24, num_batches=1))
    expected = raw["features"].double().mean(dim=0)
    torch.testing.assert_close(datamodule.feature_scaler.center, expected)
    values = collect(SpinlockStream(CONFIG, batch_size=10, num_batches=1))["features"]
    validation = collect(datamodule.val_dataloader())["features"]
    assert torch.equal(validation, datamodule.feature_scaler.transform(values))


def test_the_state_of_a_stream_module_is_checked():
    state = stream_module().state_dict()
    other = SpinlockStreamModule(CONFIG, eval_samples=10, scaling_samples=10)
    other.load_state_dict(state)
    other.setup()
    assert other.state_dict() == state
    with pytest.raises(DatasetError, match="settings: scaling: 'standard' there, 'rank' here"):
        stream_module(scaling="rank").load_state_dict(state)


def test_a_checkpoint_makes_the_same_stream_module_again(tmp_path):
    datamodule = stream_module(sampling_seed=3, loader=LoaderOptions(pin_memory=False))
    run = quiet_trainer(tmp_path, max_epochs=1)
    run.fit(MeanModel(), datamodule=datamodule)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = SpinlockStreamModule.load_from_checkpoint(tmp_path / "a.ckpt")
    again.setup()
    assert again.generation == CONFIG
    assert again.state_dict() == datamodule.state_dict()
    assert again.hparams == datamodule.hparams
    # A module without a trainer begins with the first epoch.
    fresh = stream_module(sampling_seed=3)
    expected, drawn = (collect(each.train_dataloader()) for each in (fresh, again))
    assert all(torch.equal(drawn[key], value) for key, value in expected.items())


def test_the_arguments_of_a_stream_module_are_checked():
    stored = dict(stream_module().hparams)
    assert SpinlockStreamModule(**stored).hparams == stored
    with pytest.raises(ConfigurationError, match="num_batches: must be of type int, got '5'"):
        SpinlockStreamModule(**stored | {"num_batches": "5"})


MESSAGE = "forked workers .* Use num_workers=0 or multiprocessing_context='spawn'"


@pytest.fixture
def gpus(monkeypatch):
    """Function that pretends that this process has four GPUs, one of which is current."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def pretend(current):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: current is not None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)

    pretend(None)
    return pretend


def test_forked_workers_do_not_use_a_gpu(gpus):
    stream = SpinlockStream(CONFIG, batch_size=2, num_batches=1)
    with pytest.raises(ConfigurationError, match=MESSAGE):
        list(DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context="fork"))
    stream.refuse_forks_of_gpus("spawn")
    stream.refuse_forks_of_gpus(LoaderOptions().start_method)


def test_the_gpu_is_the_current_one_of_the_first_batch(gpus):
    """A trainer makes its GPU the current one after the stream exists."""
    stream, chosen = SpinlockStream(CONFIG), SpinlockStream(CONFIG, device="cuda:1")
    spawned_before = pickle.loads(pickle.dumps(stream))
    gpus(2)
    assert stream._simulator.device == spawned_before._simulator.device == torch.device("cuda:2")
    assert chosen._simulator.device == torch.device("cuda:1")
    # A spawned worker has no current GPU of its own.
    state = pickle.dumps(stream)
    gpus(None)
    assert pickle.loads(state)._simulator.device == torch.device("cuda:2")


@pytest.mark.parametrize(
    ("device", "of_trainer", "simulating"),
    [
        (None, "cuda:3", "cuda:3"),
        (None, "cpu", "cpu"),
        (None, "meta", "cpu"),
        ("cuda:1", "cuda:3", "cuda:1"),
        ("cpu", "cuda:3", "cpu"),
    ],
)
def test_a_stream_module_simulates_on_the_device_of_its_trainer(
    device, of_trainer, simulating, gpus, monkeypatch
):
    datamodule = SpinlockStreamModule(CONFIG, device=device)
    monkeypatch.setattr(datamodule, "_adopt", lambda: False)  # simulates nothing
    strategy = SimpleNamespace(root_device=torch.device(of_trainer))
    datamodule.trainer = SimpleNamespace(strategy=strategy, lightning_module=None)
    datamodule.setup()
    assert datamodule._scaled(order="consecutive")._simulator.device == torch.device(simulating)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"num_workers": 0}, False),
        ({"num_workers": 1, "multiprocessing_context": "fork"}, True),
        ({"num_workers": 1, "multiprocessing_context": "spawn"}, False),
    ],
)
def test_a_stream_module_refuses_them_before_training(options, refused, gpus, monkeypatch):
    datamodule = SpinlockStreamModule(CONFIG, loader=LoaderOptions(**options))
    monkeypatch.setattr(datamodule, "_adopt", lambda: False)  # simulates nothing
    with pytest.raises(ConfigurationError, match=MESSAGE) if refused else nullcontext():
        datamodule.setup()
