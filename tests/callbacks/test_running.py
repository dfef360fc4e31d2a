"""Every callback in every way that Lightning runs it, and the keys that docstrings list."""

import re
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback

from spinlock import callbacks, contract
from tests.callbacks import quiet_trainer
from tests.callbacks.watching import WATCHING, model_and_data
from tests.forks import in_two_ranks

pytestmark = pytest.mark.slow


def everything():
    return [callback(**settings) for callback, settings in WATCHING.items()]


def validate(tmp_path, watching, levels=False, **settings):
    trainer = quiet_trainer(tmp_path, *watching, **settings)
    trainer.validate(*model_and_data(levels), verbose=False)
    return dict(trainer.callback_metrics)


KEYS = re.compile(r"``((?:ic|codebook|reconstruction|consistency|transfer)/[^`]+)``")
PLOTS = {
    "codebook/transitions",
    "codebook/usage_bars",
    "codebook/usage_bars_level_<q>",
    "ic/code_by_variant",
    "reconstruction/error_by_group",
}


def documented(callback, detailed):
    """The keys of a docstring by text, as patterns; the lists come before ``Testing logs``."""
    lists = callback.__doc__.partition("Testing logs")[0]
    default, _, others = lists.partition("With ``detailed=True`` also:")
    keys = set(KEYS.findall(default + (others if detailed else ""))) - PLOTS
    # Other callbacks' keys are mentioned for comparison.
    own = {key.partition("/")[0] for key in KEYS.findall(default)[:1]}
    keys = {key for key in keys if key.partition("/")[0] in own}
    return {key: re.compile(re.sub(r"<\w+>", r"[^/]+", key)) for key in keys}


@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize("callback", WATCHING)
def test_logged_keys_are_those_of_the_docstring(tmp_path, callback, detailed):
    logged = set()
    settings = WATCHING[callback]
    if "detailed" in settings:
        settings = {**settings, "detailed": detailed}
    for levels in (False, True):
        found = validate(tmp_path, [callback(**settings)], levels)
        trainer = quiet_trainer(tmp_path, callback(**settings))
        trainer.test(*model_and_data(levels), verbose=False)
        assert set(trainer.callback_metrics) == {f"test/{key}" for key in found}
        logged |= set(found)
    keys = documented(callback, detailed)
    undocumented = {k for k in logged if not any(p.fullmatch(k) for p in keys.values())}
    assert not undocumented
    never_logged = {key for key, p in keys.items() if not any(p.fullmatch(k) for k in logged)}
    assert not never_logged
    assert detailed or len(keys) <= 15
    assert bool(logged) == (callback is not callbacks.FiniteCheck)


def test_order_does_not_matter(tmp_path):
    expected = validate(tmp_path, everything())
    assert len(expected) > 60
    assert validate(tmp_path, everything()[::-1]) == expected
    alone = [validate(tmp_path, [callback]) for callback in everything()]
    assert {key: value for one in alone for key, value in one.items()} == expected


@pytest.mark.parametrize("limit", [2, 0.7])
def test_limited_batches(tmp_path, limit):
    logged = validate(tmp_path, everything(), limit_val_batches=limit)
    # Two of three batches of each loader.
    columns = model_and_data()[1].val.columns
    rows = range(64)
    errors = columns["features"][rows] - columns["features"][rows]
    assert logged["reconstruction/error"] == pytest.approx(errors.square().mean().item(), abs=1e-9)
    used = len(columns["tokens"][rows].unique())
    assert logged["codebook/perplexity"] == pytest.approx(used, rel=1e-5)


class Recorder(Callback):
    def __init__(self):
        self.at_start, self.epochs = None, []

    def on_train_start(self, trainer, pl_module):
        self.at_start = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.epochs.append({k: v.item() for k, v in trainer.callback_metrics.items()})


def fit(tmp_path, watching, epochs, checkpoint=None):
    recorder = Recorder()
    settings = {"max_epochs": epochs, "num_sanity_val_steps": 1}
    trainer = quiet_trainer(tmp_path, *watching, recorder, **settings)
    trainer.fit(*model_and_data(), ckpt_path=checkpoint)
    return trainer, recorder


def test_sanity_checking_and_resuming(tmp_path):
    _, whole = fit(tmp_path, everything(), 3)
    assert whole.at_start == {}
    assert len(whole.epochs) == 3
    trainer, first = fit(tmp_path, everything(), 2)
    assert first.epochs == whole.epochs[:2]
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    watching = everything()
    resumed, rest = fit(tmp_path, watching, 3, tmp_path / "two.ckpt")
    assert rest.epochs == whole.epochs[2:]
    assert resumed.current_epoch == 3


def test_states_are_in_the_checkpoint_and_restored(tmp_path):
    finite, information = callbacks.FiniteCheck("warn"), callbacks.ICMutualInformation()
    finite.column_counts["a"], finite.variant_counts["b"], information.epochs_exceeded = 3, 2, 1
    trainer = quiet_trainer(tmp_path, finite, information, limit_train_batches=1)
    trainer.limit_val_batches = 0
    trainer.fit(*model_and_data())
    trainer.save_checkpoint(tmp_path / "states.ckpt")
    finite, information = callbacks.FiniteCheck("warn"), callbacks.ICMutualInformation()
    trainer = quiet_trainer(tmp_path, finite, information, max_epochs=1)
    trainer.fit(*model_and_data(), ckpt_path=tmp_path / "states.ckpt")
    assert finite.column_counts == {"a": 3}
    assert finite.variant_counts == {"b": 2}
    assert information.epochs_exceeded == 1


@pytest.mark.parametrize("name", sorted(set(callbacks.__all__) - {"ContractError"}))
def test_from_yaml_by_class_path(name, tmp_path):
    settings = {
        **WATCHING,
        callbacks.DatasetReport: {"replay": 2, "full": True},
        callbacks.TokenWriter: {"path": "tokens.h5"},
    }
    given = settings[getattr(callbacks, name)]
    lines = [f"  class_path: spinlock.callbacks.{name}", "  init_args:"]
    lines += [f"    {key}: {str(value).lower()}" for key, value in given.items()] or ["    {}"]
    (tmp_path / "run.yaml").write_text("\n".join(["callback:", *lines]))
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Callback, "callback")
    config = parser.parse_args(["--config", str(tmp_path / "run.yaml")])
    made = parser.instantiate_classes(config).callback
    assert type(made) is getattr(callbacks, name)
    for key, value in given.items():
        assert getattr(made, key) == (Path(value) if key == "path" else value)


def test_every_callback_is_tried_here():
    found = {getattr(callbacks, name) for name in callbacks.__all__}
    tested_elsewhere = {callbacks.DatasetReport, callbacks.TokenWriter, contract.ContractError}
    assert found - tested_elsewhere == set(WATCHING)


class Saver(Callback):
    """Writes what each process logged and counted."""

    def __init__(self, folder):
        self.folder = str(folder)

    def on_validation_end(self, trainer, pl_module):
        (finite,) = (c for c in trainer.callbacks if isinstance(c, callbacks.FiniteCheck))
        logged = {key: value.item() for key, value in trainer.callback_metrics.items()}
        found = {"logged": logged, "finite": finite.state_dict()}
        torch.save(found, f"{self.folder}/{trainer.world_size}-{trainer.global_rank}.pt")


@pytest.mark.filterwarnings("ignore")
def test_two_processes_equal_one(tmp_path):
    """A loader of 47 samples gives one of them to both processes, so that each has 24."""

    def validate(devices, strategy):
        model, data = model_and_data(levels=True)
        data.count = 94
        # Only FiniteCheck looks there; the second process has the odd samples.
        data.val.columns["other"] = torch.zeros(96, 2)
        data.val.columns["other"][7, 1] = float("nan")
        trainer = quiet_trainer(
            tmp_path, *everything(), Saver(tmp_path), devices=devices, strategy=strategy
        )
        trainer.validate(model, data, verbose=False)

    validate(1, "auto")
    in_two_ranks(validate, 2, "ddp")
    one, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
    )
    assert len(one["logged"]) > 60
    assert first["logged"] == pytest.approx(one["logged"], rel=1e-4, abs=1e-6)
    assert second["logged"] == first["logged"]
    assert one["finite"]["columns"] == {"batch['other']:column 1": 1}
    assert first["finite"] == second["finite"] == one["finite"]
