"""Resumed training ends in the weights of the uninterrupted one, to the bit, from any step."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.tuner import Tuner

from spinlock.datamodules import LoaderOptions, ViewOptions
from spinlock.models import LossConfig, ScheduleConfig, SequenceVQVAE
from spinlock.models.quantizers import LearnedCodebooks
from tests.forks import in_two_ranks
from tests.models.small_models import CONDITIONED
from tests.models.training_runs import (
    BATCHES,
    EPOCHS,
    STEPS,
    data,
    fit,
    model_for,
    same,
    trainer_with,
    warming_up,
)
from tests.resuming import Saver

pytestmark = pytest.mark.slow

COLUMNS = {"columns": ("responses", "noise"), "selection": "invariant"}
RUNS = {
    "vector": ("probes", {}, CONDITIONED),
    "residual": ("probes", {}, {"quantizer": "residual"}),
    "grouped": ("probes", {}, {"quantizer": "grouped"}),
    "finite scalar": ("probes", {}, {"quantizer": "finite_scalar"}),
    "conditioned pairs": (
        "probes",
        {"view": "pairs", "balance": "variant"},
        {**CONDITIONED, "loss": LossConfig(alignment=0.3)},
    ),
    "response pairs": (
        "responses",
        {"view": ViewOptions("pairs", **COLUMNS)},
        {"loss": LossConfig()},
    ),
    "response sets": (
        "responses",
        {"view": ViewOptions("probes", **COLUMNS), "batch_size": 9},
        {"loss": LossConfig()},
    ),
    "sequence": ("steps", {"view": "sequence"}, {"kind": SequenceVQVAE}),
}
# Before the first step, in the warm-up, after its last step, right after k-means, at ends of
# epochs, and in the last epoch.
PLACES = ["start.0", "batch.2", "batch.5", "batch.6", "epoch.3", "epoch.6", "validation.9"]
PLACES += ["batch.9", "batch.11"]


@pytest.mark.repeated
@pytest.mark.parametrize("run", RUNS)
def test_every_kind_of_model(datasets, tmp_path, run):
    name, data_options, model_options = RUNS[run]
    datamodule = data(datasets, name, **data_options)
    whole = fit(model_for(datamodule, **model_options), datamodule, Saver(tmp_path))
    # All places for one kind of codebook, and one place of each phase for the others.
    for number, place in enumerate(PLACES if run == "vector" else PLACES[1::3]):
        datamodule = data(datasets, name, **data_options)
        model = model_for(datamodule, **model_options)
        # The global generator is as another process finds it.
        torch.manual_seed(number)
        assert same(fit(model, datamodule, ckpt=tmp_path / place), whole), place


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": -1, "max_steps": 10},
        pytest.param({"max_epochs": 3}, marks=pytest.mark.repeated),
    ],
)
def test_every_step(datasets, tmp_path, settings):
    datamodule = data(datasets)
    whole = fit(model_for(datamodule), datamodule, Saver(tmp_path), **settings)
    files = sorted(tmp_path.glob("batch.*"))
    assert len(files) >= 9
    for file in files:
        model = model_for(datamodule)
        assert same(fit(model, datamodule, ckpt=file, **settings), whole), file.name


def test_gradients_between_two_steps_of_the_optimizer(datasets, tmp_path):
    """Validation, and with it a checkpoint, comes after each batch, a step after each second."""
    settings = {"accumulate_grad_batches": 2, "val_check_interval": 1, "max_epochs": 3}
    datamodule = data(datasets)
    whole = fit(model_for(datamodule), datamodule, Saver(tmp_path), **settings)
    for place in ("batch.1", "validation.1", "validation.4", "batch.5", "validation.7"):
        resumed = fit(model_for(datamodule), datamodule, ckpt=tmp_path / place, **settings)
        assert same(resumed, whole), place


@pytest.mark.parametrize(
    "workers", [LoaderOptions(), LoaderOptions(num_workers=2, multiprocessing_context="fork")]
)
def test_workers(datasets, tmp_path, workers):
    """From Lightning's default checkpoint, with workers or without, whatever they were before."""
    datamodule = data(datasets)
    default = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    model = model_for(datamodule)
    whole = fit(model, datamodule, default, enable_checkpointing=True, limit_val_batches=0)
    datamodule = data(datasets, loader=workers)
    ckpt = tmp_path / "epoch=1.ckpt"
    assert same(fit(model_for(datamodule), datamodule, ckpt=ckpt, limit_val_batches=0), whole)


def test_resumed_twice(datasets, tmp_path):
    datamodule = data(datasets)
    whole = fit(model_for(datamodule), datamodule)
    ckpt = None
    for stop in (2, 7, 8, STEPS):
        datamodule = data(datasets)
        folder = tmp_path / str(stop)
        folder.mkdir()
        last = fit(model_for(datamodule), datamodule, Interrupter(stop, folder), ckpt=ckpt)
        ckpt = folder / "a.ckpt"
    assert same(last, whole)


class Interrupter(Callback):
    """Writes a checkpoint after so many steps, and stops there."""

    def __init__(self, steps, folder):
        self.steps, self.folder = steps, folder

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.folder / "a.ckpt")
            trainer.should_stop = True


@pytest.fixture
def rows(monkeypatch):
    """How many latents k-means is given, each time."""
    given, initialize = [], LearnedCodebooks.initialize

    def spy(self, latents, batch_size):
        if not self.is_initialized:
            given.append(len(latents))
        initialize(self, latents, batch_size)

    monkeypatch.setattr(LearnedCodebooks, "initialize", spy)
    return given


def test_k_means_sees_all_latents_of_the_warm_up(datasets, tmp_path, rows):
    datamodule = data(datasets)
    default = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(warming_up(datamodule), datamodule, default, enable_checkpointing=True)
    for epoch in range(3):
        fit(warming_up(datamodule), datamodule, ckpt=tmp_path / f"epoch={epoch}.ckpt")
    assert rows == [3 * 69] * 4


def before_by_lr_find(model, datamodule, folder):
    trainer = trainer_with(default_root_dir=folder)
    Tuner(trainer).lr_find(model, datamodule=datamodule, num_training=6, update_attr=False)
    return trainer


def before_by_a_fit(model, datamodule, folder):
    trainer = trainer_with(limit_train_batches=1, max_epochs=2)
    model._schedule_config = ScheduleConfig(warmup=0.99)
    trainer.fit(model, datamodule=datamodule)
    model._schedule_config = ScheduleConfig(warmup=0.75)
    return trainer_with()


def before_by_a_test(model, datamodule, folder):
    fit(warming_up(datamodule), datamodule, Saver(folder))
    trainer = trainer_with()
    trainer.test(model, datamodule=datamodule, ckpt_path=folder / "epoch.6", verbose=False)
    return trainer


@pytest.mark.parametrize("before", [before_by_lr_find, before_by_a_fit, before_by_a_test])
def test_a_fit_without_a_checkpoint_starts_with_no_latents(datasets, tmp_path, rows, before):
    datamodule = data(datasets)
    model = warming_up(datamodule)
    trainer = before(model, datamodule, tmp_path)
    del rows[:]
    trainer.fit(model, datamodule=datamodule)
    assert rows == [3 * 69]


def test_randomness_begins_with_the_global_generator(datasets):
    datamodule = data(datasets)

    def run(seed):
        model = model_for(datamodule)
        torch.manual_seed(seed)
        return fit(model, datamodule)

    assert same(run(1), run(1))
    assert not same(run(1), run(2))


def test_training_and_what_else_draws_do_not_meet(datasets):
    """Neither does training change what others draw, nor they the training."""
    datamodule = data(datasets)
    drawn = []

    class Drawing(Callback):
        def on_train_batch_start(self, trainer, *_):
            drawn.append(torch.rand(3))

        on_validation_batch_start = on_train_batch_start

    whole = fit(model_for(datamodule), datamodule, limit_val_batches=0)
    assert same(fit(model_for(datamodule), datamodule, Drawing()), whole)
    del drawn[:]
    fit(model_for(datamodule), datamodule, Drawing(), limit_val_batches=0)
    model_for(datamodule)
    # Each epoch's loader draws once.
    expected = []
    for _ in range(EPOCHS):
        torch.empty((), dtype=torch.int64).random_()
        expected += [torch.rand(3) for _ in range(BATCHES)]
    assert all(torch.equal(*pair) for pair in zip(drawn, expected, strict=True))


def resumed_in_both(datasets, folder):
    """Whether k-means has run, and whether a run resumed from each place ends in equal weights."""
    settings = {"devices": 2, "strategy": "ddp", "num_sanity_val_steps": 0}

    def run(*callbacks, **options):
        datamodule = data(datasets, batch_size=13)
        return fit(model_for(datamodule), datamodule, *callbacks, **options, **settings)

    whole = run(Saver(folder))
    resumed = {}
    for number, place in enumerate(("batch.2", "epoch.3", "batch.5", "validation.9", "batch.11")):
        torch.manual_seed(number)
        resumed[place] = same(run(ckpt=folder / place), whole)
    return bool(whole["autoencoder.quantizer.layers._codebook.initted"]), resumed


def test_two_processes(datasets, tmp_path):
    """Each process resumes with its own random state and its own latents."""
    for initialized, resumed in in_two_ranks(resumed_in_both, datasets, tmp_path):
        assert initialized
        assert set(resumed.values()) == {True}, resumed
    states = torch.load(tmp_path / "batch.2", weights_only=True)["training"]
    assert len(states) == 2
    assert not torch.equal(states[0]["latents"][0], states[1]["latents"][0])
