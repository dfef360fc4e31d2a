"""Lightning's tools for tuning, averaging and configuring work with the data modules and models."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from lightning import LightningModule, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateFinder, WeightAveraging
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.tuner import Tuner

from spinlock import SpinlockDataModule
from spinlock.configuration.plain_hyperparameters import PlainHyperparameters
from spinlock.datamodules import LoaderOptions, ViewOptions
from spinlock.models import FeatureVQVAE, LossConfig, ScheduleConfig
from tests.datamodules.recorder import MeanModel
from tests.datamodules.training_runs import fit, trainer, trainer_with

SMALL = {"codebook_size": 8, "hidden_dims": (8,), "latent_dim": 4}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Lightning's tuner writes a checkpoint to the current folder."""
    monkeypatch.chdir(tmp_path)


def pairs(datasets, **options):
    path, config = datasets["responding"]
    options = {"view": "pairs", "batch_size": 32} | options
    return SpinlockDataModule(path, config, progress=False, **options)


@pytest.mark.parametrize(("mode", "found"), [("power", 95), ("binsearch", 90)])
def test_the_batch_size_is_scaled_up_to_the_training_split(datasets, mode, found):
    """The binary search leaves a margin of 5 %."""
    path, config = datasets["single"]
    datamodule = SpinlockDataModule(path, config, batch_size=16, progress=False)
    run, model, options = trainer(1), MeanModel(), {"mode": mode, "init_val": 64}
    with pytest.warns(UserWarning, match="batch_size: 128 is lowered to the training split, 95"):
        assert Tuner(run).scale_batch_size(model, datamodule=datamodule, **options) == found
    assert datamodule.batch_size == datamodule.hparams["batch_size"] == found
    run.fit(model, datamodule=datamodule)
    assert run.global_step == 95 // found + (95 % found > 0)


def learned(datasets, tune):
    """The weights and the batches of a run of two epochs after a tuner."""
    seed_everything(1, verbose=False)
    model, datamodule = FeatureVQVAE(**SMALL), pairs(datasets)
    run, recorder = trainer_with(max_epochs=2)
    tune(Tuner(run), model, datamodule)
    recorder.batches.clear()
    run.fit(model, datamodule=datamodule)
    assert model.quantizer.is_initialized
    return recorder.batches, model.state_dict()


def nothing(tuner, model, datamodule):
    pass


def find_learning_rate(tuner, model, datamodule):
    options = {"num_training": 6, "early_stop_threshold": None, "update_attr": False}
    assert len(tuner.lr_find(model, datamodule=datamodule, **options).results["lr"]) == 6


def test_the_learning_rate_finder_suggests_a_rate(datasets):
    """The loss that it measures must not depend on the step by a schedule."""
    seed_everything(1, verbose=False)
    datamodule, run = pairs(datasets, batch_size=16), trainer(40)
    finder = Tuner(run).lr_find(FeatureVQVAE(**SMALL), datamodule=datamodule, min_lr=1e-4)
    assert 1e-4 < finder.suggestion() < 0.1
    # Half the loss of the first step, and then the loss of constant weights.
    first, *others = finder.results["loss"][:20]
    assert max(others) < 2.5 * first
    assert len(finder.results["loss"]) > 40


def find_batch_size(tuner, model, datamodule):
    assert tuner.scale_batch_size(model, datamodule=datamodule, max_trials=2, init_val=16) == 32


def test_a_fit_after_a_tuner_is_the_fit_without_it(datasets):
    batches, weights = learned(datasets, nothing)
    for tune in (find_learning_rate, find_batch_size):
        again, tuned = learned(datasets, tune)
        assert again == batches
        assert all(torch.equal(tuned[name], weights[name]) for name in weights), tune.__name__


def test_a_learning_rate_finder_does_not_disturb_its_run(datasets):
    runs = []
    for finders in ([], [LearningRateFinder(num_training_steps=20, update_attr=False)]):
        seed_everything(1, verbose=False)
        model = FeatureVQVAE(**SMALL)
        runs.append(fit(pairs(datasets), *finders, model=model, max_epochs=1)[0])
        runs[-1].append([value.tolist() for value in model.state_dict().values()])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("average", [WeightAveraging, EMAWeightAveraging])
def test_averages_of_weights(datasets, average):
    """Boolean buffers have no average."""
    settings = {"normalization": "variant", "encoder_conditions": ("variant",)}
    model = FeatureVQVAE(**SMALL, **settings, schedule=ScheduleConfig(warmup=0.0))
    _, run = fit(pairs(datasets), average(), model=model, max_epochs=2)
    assert model.quantizer.is_initialized
    assert not any(buffer.dtype == torch.bool for buffer in model.buffers())
    batch = next(iter(run.datamodule.val_dataloader()))
    run.save_checkpoint("a.ckpt")
    loaded = FeatureVQVAE.load_from_checkpoint("a.ckpt")
    tokens = [each.eval()(batch)["tokens"] for each in (model, loaded)]
    assert torch.equal(*tokens)


class Named(FeatureVQVAE):
    """Arguments of the base class are named."""

    def __init__(self, extra: tuple[int, ...] = (), loss: LossConfig | None = None) -> None:
        super().__init__(**SMALL, loss=loss)
        self.extra = extra
        self.save_hyperparameters()


class Passing(FeatureVQVAE):
    """Arguments of the base class are passed on."""

    def __init__(self, extra: tuple[int, ...] = (), **arguments) -> None:
        super().__init__(**arguments)
        self.extra = extra
        self.save_hyperparameters()


class OwnData(SpinlockDataModule):
    def __init__(self, path, generation, *, tag: str, **options) -> None:
        super().__init__(path, generation, **options)
        self.tag = tag
        self.save_hyperparameters()


@pytest.mark.parametrize("kind", [Named, Passing])
def test_subclasses_may_save_their_hyperparameters(datasets, kind):
    loss = LossConfig(alignment=0.3)
    options = {"view": ViewOptions("pairs"), "loader": LoaderOptions(), "batch_size": 32}
    datamodule = OwnData(*datasets["responding"], tag="mine", progress=False, **options)
    model = kind(extra=(1, 2), loss=loss, **(SMALL if kind is Passing else {}))
    _, run = fit(datamodule, model=model, max_epochs=1)
    run.save_checkpoint("a.ckpt")
    assert torch.load("a.ckpt", weights_only=True)["hyper_parameters"]["extra"] == [1, 2]
    loaded = kind.load_from_checkpoint("a.ckpt", weights_only=True)
    assert (list(loaded.extra), loaded.loss) == ([1, 2], loss)
    weights = model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())
    again = OwnData.load_from_checkpoint("a.ckpt", weights_only=True)
    assert (again.tag, again.view.name) == ("mine", "pairs")
    assert again.generation == datamodule.generation
    assert loaded.hparams_initial["loss"]["alignment"] == 0.3


def test_arguments_that_are_not_stored():
    class Holder(PlainHyperparameters, LightningModule):
        unstored_arguments = ("executor",)

        def __init__(self, executor, size, **others):
            super().__init__()
            self.save_hyperparameters()

    found = Holder(object(), 3, _class_path="a.B", _instantiator="c").hparams
    assert dict(found) == {"size": 3}


def test_a_subclass_may_have_an_executor(datasets, tmp_path):
    """It cannot be copied; a relative path is stored as an absolute one."""
    path, config = datasets["responding"]
    (tmp_path / "there").mkdir()
    (tmp_path / "data.h5").symlink_to(path)
    with ThreadPoolExecutor(1) as executor:
        for kind, options in ((OwnData, {"tag": "mine"}), (SpinlockDataModule, {})):
            datamodule = kind("data.h5", config, executor=executor, **options)
            assert datamodule.executor is executor
            assert "executor" not in datamodule.hparams
            assert datamodule.hparams["path"] == str(tmp_path / "data.h5")
            assert datamodule.hparams_initial == datamodule.hparams


def test_a_data_module_of_a_checkpoint_reads_the_same_file(tmp_path, datasets, monkeypatch):
    """In another working directory, too."""
    path, config = datasets["responding"]
    (tmp_path / "data.h5").symlink_to(path)
    _, run = fit(SpinlockDataModule("data.h5", config, batch_size=32), max_epochs=1)
    run.save_checkpoint("a.ckpt")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    again = SpinlockDataModule.load_from_checkpoint("../a.ckpt")
    again.prepare_data()
    assert again.path == tmp_path / "data.h5"
    assert not list((tmp_path / "there").iterdir())


def test_a_command_line_of_ones_own_links_sizes(datasets):
    class Linked(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.link_arguments("data.num_features", "model.num_features", apply_on="instantiate")

    arguments = ["fit", f"--data.path={datasets['responding'][0]}", "--data.view=pairs"]
    arguments += ["--data.batch_size=32", "--data.progress=false"]
    arguments += ["--model.latent_dim=4", "--trainer.max_epochs=1", "--trainer.logger=false"]
    arguments += ["--trainer.enable_checkpointing=false", "--trainer.accelerator=cpu"]
    arguments += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    cli = Linked(FeatureVQVAE, SpinlockDataModule, args=arguments, save_config_callback=None)
    assert cli.model.hparams["num_features"] == 46
    assert cli.trainer.global_step == 4
