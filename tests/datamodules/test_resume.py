"""Resumed runs have the batches of the uninterrupted run, from whatever step they go on."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from spinlock.datamodules import LoaderOptions
from spinlock.errors import DatasetError
from tests.datamodules import ready
from tests.datamodules.recorder import MeanModel
from tests.datamodules.training_runs import (
    BATCHES,
    BY_STEPS,
    EPOCHS,
    RANDOM,
    EarlyModel,
    assert_resumes,
    data,
    descriptions,
    fit,
    trainer_with,
)
from tests.forks import in_two_ranks
from tests.resuming import Saver, trained_on

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("single", {"balance": "family"}),
        ("single", RANDOM),
        ("probed", {"view": "pairs"}),
        ("steps", {"view": "sequence"}),
    ],
)
def test_every_view(datasets, tmp_path, name, options):
    whole, _ = fit(data(datasets, name, **options), Saver(tmp_path), limit_val_batches=0)
    assert len(set(whole)) == EPOCHS * BATCHES
    resumed = data(datasets, name, **options)
    assert_resumes(
        [tmp_path / place for place in ("batch.1", "epoch.4", "batch.6", "batch.8", "batch.11")],
        whole,
        lambda file: fit(resumed, ckpt=file, model=EarlyModel(), limit_val_batches=0),
    )


ALL, EVEN, ODD = slice(None), slice(0, None, 2), slice(1, None, 2)


@pytest.mark.parametrize(
    ("model", "places", "settings"),
    [
        (MeanModel, ALL, {"val_check_interval": 0.5}),
        (MeanModel, EVEN, BY_STEPS),
        (EarlyModel, ODD, {"val_check_interval": 0.5}),
        (EarlyModel, EVEN, {"val_check_interval": 3, "check_val_every_n_epoch": None}),
        (EarlyModel, ODD, {"accumulate_grad_batches": 2}),
        (EarlyModel, EVEN, {"limit_train_batches": 3}),
        (EarlyModel, ODD, {"reload_dataloaders_every_n_epochs": 1}),
        (EarlyModel, ALL, BY_STEPS),
        (EarlyModel, EVEN, BY_STEPS | {"limit_val_batches": 0}),
        (EarlyModel, ODD, BY_STEPS | {"limit_train_batches": 3, "val_check_interval": 2}),
    ],
)
def test_every_step(datasets, tmp_path, model, places, settings):
    """Every checkpoint of two runs, and of the others every second one."""
    settings = {"max_epochs": 2} | settings
    whole, _ = fit(data(datasets), Saver(tmp_path), **settings)
    files, resumed = sorted(tmp_path.iterdir()), data(datasets)
    assert len(files) > len(whole)
    assert_resumes(
        files[places], whole, lambda file: fit(resumed, ckpt=file, model=model(), **settings)
    )


WORKERS = {
    "none": LoaderOptions(),
    "forked": LoaderOptions(num_workers=2, multiprocessing_context="fork"),
    "forked anew": LoaderOptions(
        num_workers=2, multiprocessing_context="fork", persistent_workers=False
    ),
    # One starts for seconds: it imports everything.
    "spawned": LoaderOptions(num_workers=1, multiprocessing_context="spawn"),
}


@pytest.fixture(scope="module")
def saved(datasets, tmp_path_factory):
    """Batches of a run, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("saved")
    default = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    steps = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    datamodule = data(datasets, **RANDOM)
    whole, _ = fit(datamodule, default, steps, limit_val_batches=0, enable_checkpointing=True)
    return whole, folder


@pytest.mark.parametrize(
    ("workers", "place", "before"),
    [
        ("none", "epoch=1", 8),
        ("none", "step=6", 6),
        ("forked", "epoch=1", 8),
        ("forked", "step=6", 6),
        ("forked anew", "epoch=0", 4),
        ("forked anew", "step=6", 6),
        pytest.param("spawned", "step=10", 10, marks=pytest.mark.repeated),
    ],
)
def test_workers(datasets, saved, workers, place, before):
    """Lightning's own checkpoints, at the end of an epoch and in the middle of one."""
    whole, folder = saved
    datamodule = data(datasets, **RANDOM, loader=WORKERS[workers])
    batches, _ = fit(datamodule, ckpt=folder / f"{place}.ckpt", limit_val_batches=0)
    assert batches == whole[before:]
    # Neither the order nor the realizations are those of the epoch before.
    assert not set(batches) & set(whole[:4])


@pytest.mark.repeated
@pytest.mark.parametrize("cuts", [(2, 3), (3, 4, 9), (4, 8), (1, 10)])
@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize(("model", "reload"), [(MeanModel, 0), (EarlyModel, 0), (EarlyModel, 1)])
@pytest.mark.parametrize("last", ["max_steps", "max_epochs"])
def test_a_run_cut_short_again_and_again(datasets, tmp_path, cuts, default, model, reload, last):
    """`max_steps` ends epochs in their middle, and Lightning counts them as whole ones."""
    steps = EPOCHS * BATCHES
    whole, _ = fit(data(datasets), max_epochs=-1, max_steps=steps)
    batches, ckpt = [], None
    for number, stop in enumerate([*cuts, steps]):
        callbacks = [ModelCheckpoint(tmp_path / str(number), "a")] if default else []
        settings = {"max_epochs": -1, "max_steps": stop, "enable_checkpointing": default}
        settings["reload_dataloaders_every_n_epochs"] = reload
        if stop == steps and last == "max_epochs":
            # Lightning's count of epochs includes those that were cut short, and empty ones.
            settings |= {"max_epochs": 3 * EPOCHS, "max_steps": -1}
        more, trainer = fit(data(datasets), *callbacks, ckpt=ckpt, model=model(), **settings)
        batches += more
        ckpt = tmp_path / str(number) / "a.ckpt"
        if not default:
            trainer.save_checkpoint(ckpt)
    assert batches[:steps] == whole


class InterruptionError(Exception):
    pass


class Interrupter(Callback):
    """Raises in some hook after so many batches, having written a checkpoint."""

    def __init__(self, hook, count, path):
        def interrupt(trainer, *_, **__):
            if trained_on(trainer) == count:
                trainer.save_checkpoint(path)
                raise InterruptionError

        setattr(self, hook, interrupt)


AFTER_EACH_BATCH = {"val_check_interval": 1, "max_epochs": 2}


@pytest.fixture(scope="module")
def validated(datasets):
    """Batches of a run that validates after each of them."""
    return fit(data(datasets), **AFTER_EACH_BATCH)[0]


@pytest.mark.parametrize(
    ("hook", "count"),
    [
        ("on_train_batch_start", 0),
        ("on_train_batch_start", 4),
        ("on_train_batch_start", 7),
        ("on_before_backward", 0),
        ("on_before_backward", 2),
        ("on_before_backward", 7),
        ("on_validation_batch_start", 2),
        ("on_validation_batch_start", 4),
        ("on_validation_batch_start", 7),
    ],
)
def test_a_batch_that_was_not_trained_on_comes_again(datasets, validated, tmp_path, hook, count):
    """On an interruption the loader may have given one batch more than have been trained on."""
    path = tmp_path / "a.ckpt"
    with pytest.raises(InterruptionError):
        fit(data(datasets), Interrupter(hook, count, path), **AFTER_EACH_BATCH)
    state = torch.load(path, weights_only=True)["loops"]["fit_loop"]["state_dict"]
    assert state["combined_loader"] == [{"epoch": count // BATCHES, "batches": count % BATCHES}]
    resumed, _ = fit(data(datasets), ckpt=path, **AFTER_EACH_BATCH)
    assert resumed == validated[count:]


def test_a_fit_without_a_checkpoint_starts_anew(datasets, saved):
    whole, folder = saved
    datamodule = data(datasets, **RANDOM)
    resumed, _ = fit(datamodule, ckpt=folder / "step=6.ckpt", limit_val_batches=0)
    assert resumed == whole[6:]
    assert fit(datamodule, limit_val_batches=0)[0] == whole


def test_passes_beside_the_trainers_are_whole(datasets, saved):
    """Callbacks may go through the training loader; they change nothing."""
    whole, folder = saved

    class Passes(Callback):
        def __init__(self):
            self.lengths = set()

        def count(self, trainer, *_):
            self.lengths.add(len(list(trainer.train_dataloader)))

        on_train_batch_end = on_validation_start = on_train_epoch_end = count

    passes = Passes()
    batches, trainer = fit(data(datasets, **RANDOM), passes, ckpt=folder / "step=6.ckpt")
    assert batches == whole[6:]
    assert passes.lengths == {BATCHES}
    assert len(list(trainer.train_dataloader)) == BATCHES
    assert len(list(trainer.datamodule.train_dataloader())) == BATCHES


def test_a_loader_without_its_data_module(datasets, tmp_path):
    """Given to a trainer by itself, it goes by the state that Lightning hands to it."""
    path, config = datasets["single"]
    datamodule = ready(path, config, batch_size=28, sampling_seed=1)

    def run(*callbacks, ckpt=None):
        trainer, recorder = trainer_with(*callbacks)
        loader = datamodule.train_dataloader()
        trainer.fit(MeanModel(), train_dataloaders=loader, ckpt_path=ckpt)
        return recorder.batches, trainer

    whole, _ = run(Saver(tmp_path))
    assert_resumes(sorted(tmp_path.iterdir()), whole, lambda file: run(ckpt=file))


def test_evaluation_is_as_before(datasets, saved):
    datamodule = data(datasets)
    datamodule.prepare_data()
    datamodule.setup()
    splits = ("val_dataloader", "test_dataloader", "predict_dataloader")
    expected = [descriptions(getattr(datamodule, split)()) for split in splits]
    fit(datamodule, ckpt=saved[1] / "step=6.ckpt")
    for split, batches in zip(splits, expected, strict=True):
        loader = getattr(datamodule, split)()
        assert type(loader) is DataLoader
        assert descriptions(loader) == batches


def test_a_checkpoint_with_a_state_out_of_range_is_refused(datasets, saved, tmp_path):
    checkpoint = torch.load(saved[1] / "step=6.ckpt", weights_only=True)
    checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["batches"] = 99
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(DatasetError, match=r"number of batches in 0\.\.4, got"):
        fit(data(datasets, **RANDOM), ckpt=tmp_path / "a.ckpt")


def resumed_in_both(datasets, folder):
    """The batches of a run, and of the runs that are resumed from some places."""

    def run(*callbacks, ckpt=None):
        datamodule = data(datasets, batch_size=14, **RANDOM)
        settings = {"devices": 2, "strategy": "ddp"}
        return fit(datamodule, *callbacks, ckpt=ckpt, **settings)[0]

    whole = run(Saver(folder))
    places = ("epoch.4", "validation.8", "batch.3", "batch.8", "batch.11")
    return whole, {place: run(ckpt=folder / place) for place in places}


def test_two_processes(datasets, tmp_path):
    runs = in_two_ranks(resumed_in_both, datasets, tmp_path)
    for whole, resumed in runs:
        assert len(set(whole)) == EPOCHS * BATCHES
        assert resumed == {place: whole[int(place.split(".")[1]) :] for place in resumed}
    assert not set(runs[0][0]) & set(runs[1][0])
