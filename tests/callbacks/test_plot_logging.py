"""Plots go to loggers that take images, or else to files."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spinlock.callbacks import CodebookUsage, ICMutualInformation, ReconstructionByGroup
from spinlock.plots import token_plots as plots
from tests.callbacks import DecodingModel, SyntheticDataModule, quiet_trainer, with_operator_tokens

pytestmark = pytest.mark.slow

NAMES = {
    "codebook/transitions",
    "codebook/usage_bars",
    "ic/code_by_variant",
    "reconstruction/error_by_group",
}


class Sequential(DecodingModel):
    def validation_step(self, batch, batch_idx):
        outputs = super().validation_step(batch, batch_idx)
        return {**outputs, "token_sequence": batch["tokens"][:, None].repeat(1, 3)}


def watch(tmp_path, fn="validate", every=10, **settings):
    data = SyntheticDataModule()
    model = Sequential(with_operator_tokens(data))
    callbacks = [
        callback(plots_every_n_epochs=every)
        for callback in (CodebookUsage, ICMutualInformation, ReconstructionByGroup)
    ]
    trainer = quiet_trainer(tmp_path, *callbacks, **settings)
    getattr(trainer, fn)(model, data)
    return trainer


def test_tensorboard_gets_them(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    watch(tmp_path, logger=logger)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    assert set(events.Tags()["images"]) == NAMES
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("logger", [False, True])
def test_without_such_a_logger_they_are_files(tmp_path, logger):
    trainer = watch(tmp_path, logger=CSVLogger(tmp_path, name="run") if logger else False)
    folder = tmp_path / "run" / "version_0" if logger else tmp_path
    files = {str(path.relative_to(folder)) for path in tmp_path.rglob("*.png")}
    assert files == {f"plots/{name}/step_{trainer.global_step}.png" for name in NAMES}


class ImageLogger(Logger):
    """Takes images as Weights & Biases does."""

    name, version = "images", 0

    def __init__(self):
        super().__init__()
        self.images = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        pass

    def log_image(self, key, images, step=None):
        self.images[key] = (images, step)


def test_loggers_of_images_get_them(tmp_path):
    logger = ImageLogger()
    watch(tmp_path, logger=logger)
    assert logger.images.keys() == NAMES
    for images, step in logger.images.values():
        assert [type(image) for image in images] == [Figure]
        assert step == 0
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(("every", "steps"), [(2, {2, 4}), (0, set())])
def test_every_n_epochs_of_training(tmp_path, every, steps):
    settings = {"max_epochs": 4, "limit_train_batches": 1, "num_sanity_val_steps": 1}
    watch(tmp_path, "fit", every, **settings)
    found = {int(path.stem.removeprefix("step_")) for path in tmp_path.rglob("*.png")}
    assert found == steps


def test_testing_has_names_of_its_own(tmp_path):
    watch(tmp_path, "test")
    names = {str(p.parent.relative_to(tmp_path / "plots")) for p in tmp_path.rglob("*.png")}
    assert names == {f"test/{name}" for name in NAMES}


def test_bars_are_sorted_counts():
    ax = plots.usage_bars(torch.tensor([3, 0, 9, 1])).axes[0]
    assert ax.patches[0].get_data().values.tolist() == [9, 3, 1, 0]
    assert "1 dead" in ax.get_xlabel()


def test_error_bars_have_a_panel_for_each_grouping():
    errors = {"variant": {"a": 1.0, "b": 2.0}, "update_policy": {"c": 3.0}}
    plot = plots.error_bars(errors, title="Errors")
    assert [ax.get_xlabel() for ax in plot.axes] == ["variant", "update_policy"]
    assert [bar.get_height() for bar in plot.axes[0].patches] == [1, 2]
    assert [label.get_text() for label in plot.axes[1].get_xticklabels()] == ["c"]


def test_transitions_are_probabilities_by_row():
    counts = torch.zeros(6, 6, dtype=torch.int64)
    counts[4, 2], counts[4, 4], counts[2, 4] = 30, 10, 5
    ax = plots.transition_matrix(counts).axes[0]
    assert np.asarray(ax.images[0].get_array()).tolist() == [[0.25, 0.75], [1, 0]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4", "2"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["4", "2"]


def test_many_codes_are_cut_to_the_most_frequent():
    counts = torch.arange(1024)[:, None].repeat(1, 2)
    ax = plots.heatmap(counts, class_names=["a", "b"]).axes[0]
    assert ax.images[0].get_array().shape == (128, 2)
    assert "128 most frequent" in ax.get_ylabel()
    assert ax.get_yticklabels()[0].get_text() == "1023"
    assert len(ax.get_yticklabels()) <= 64


def test_every_token_of_a_small_codebook_has_a_label():
    plot = plots.heatmap(torch.ones(50, 2), class_names=["a", "b"], kind="family")
    ax, colors = plot.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(i) for i in range(50)]
    assert (ax.get_xlabel(), colors.get_ylabel()) == ("family", "share of the token's samples")
    plot.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))


@pytest.mark.parametrize("classes", [1, 3])
def test_no_samples_are_drawn_too(classes):
    plots.heatmap(torch.zeros(4, classes, dtype=torch.int64)).draw_without_rendering()
    plots.usage_bars(torch.zeros(4, dtype=torch.int64)).draw_without_rendering()
    plots.transition_matrix(torch.zeros(4, 4, dtype=torch.int64)).draw_without_rendering()
