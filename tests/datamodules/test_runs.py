"""Runs from a script, a trainer and yaml have the same batches; two ranks share them."""

import dataclasses
import json
from collections import Counter

import lightning
import pytest
import torch
import yaml
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

from spinlock import SpinlockDataModule
from spinlock.commands.command_line import main
from spinlock.datamodules import VariantSelection
from tests.datamodules import collect, ready
from tests.datamodules.recorder import BatchRecorder, MeanModel, describe
from tests.datamodules.training_runs import QUIET, trainer
from tests.forks import in_two_ranks


@pytest.mark.parametrize("options", [{}, {"view": "both", "realizations": "one"}])
def test_script_trainer_and_yaml_give_identical_batches(datasets, tmp_path, options):
    path, config = datasets["single"]
    options = options | {"batch_size": 32, "balance": "family"}

    lightning.seed_everything(5)
    loader = ready(path, config, **options).train_dataloader()
    script = [describe(epoch, batch) for epoch in range(2) for batch in loader]

    lightning.seed_everything(5)
    model = MeanModel()
    torch.rand(17)  # A model that draws other numbers must not change the batches.
    datamodule = SpinlockDataModule(path, config, progress=False, **options)
    trainer(callbacks=[BatchRecorder(tmp_path / "fit")]).fit(model, datamodule=datamodule)

    run = {
        "seed_everything": 5,
        "data": {
            "path": str(path),
            "generation": json.loads(config.to_json()),
            "progress": False,
            **options,
        },
        "model": {"class_path": "tests.datamodules.recorder.MeanModel"},
        "trainer": {
            "max_epochs": 2,
            **QUIET,
            "default_root_dir": str(tmp_path),
            "callbacks": [
                {
                    "class_path": "tests.datamodules.recorder.BatchRecorder",
                    "init_args": {"path": str(tmp_path / "yaml")},
                }
            ],
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    main(["fit", "--config", str(tmp_path / "run.yaml")])

    assert len(script) == 6
    assert (tmp_path / "fit.0").read_text().splitlines() == script
    assert (tmp_path / "yaml.0").read_text().splitlines() == script


def in_a_rank(dataset, folder, options):
    """Train on a dataset, record the batches, and return the world size and what was learned."""
    path, config = dataset
    datamodule, model = SpinlockDataModule(path, config, progress=False, **options), MeanModel()
    recorder = BatchRecorder(folder / "batches")
    run = trainer(devices=2, strategy="ddp", callbacks=[recorder])
    run.fit(model, datamodule=datamodule)
    return run.world_size, model.mean.tolist()


def epochs_of(folder, rank):
    """Map each epoch to the indices of the samples that a rank saw."""
    seen = {}
    for line in (folder / f"batches.{rank}").read_text().splitlines():
        epoch, index, _ = json.loads(line)
        seen.setdefault(epoch, []).extend(index)
    return seen


def test_two_ranks_see_each_training_sample_once(datasets, tmp_path):
    path, config = datasets["single"]
    options = {"batch_size": 8, "max_samples": 94}
    expected = collect(ready(path, config, **options).train_dataloader())["index"]
    world_and_mean = in_two_ranks(in_a_rank, datasets["single"], tmp_path, options)
    seen = [epochs_of(tmp_path, rank) for rank in range(2)]
    for epoch in range(2):
        mine, others = (ranks[epoch] for ranks in seen)
        assert len(mine) == len(others) == 47
        assert sorted(mine + others) == sorted(expected.tolist())
    assert seen[0][0] != seen[0][1]
    assert world_and_mean[0] == world_and_mean[1]
    size, mean = world_and_mean[0]
    assert size == 2
    # Training moves the mean from one toward that of scaled features, which is zero.
    assert torch.tensor(mean).abs().mean() < 0.99


def test_ranks_share_a_balanced_epoch(datasets):
    """Lightning wraps custom samplers like this."""
    loader = ready(*datasets["single"], balance="family", max_samples=94).train_dataloader()
    expected = [Counter(loader.sampler) for _ in range(3)]
    ranks = [
        DistributedSamplerWrapper(
            ready(*datasets["single"], balance="family", max_samples=94).train_dataloader().sampler,
            num_replicas=2,
            rank=rank,
        )
        for rank in range(2)
    ]
    for epoch in range(3):
        for sampler in ranks:
            sampler.set_epoch(epoch)
        assert Counter(ranks[0]) + Counter(ranks[1]) == expected[epoch]


def test_a_run_can_be_resumed_in_the_middle(datasets, tmp_path):
    path, config = datasets["single"]
    options = {"batch_size": 32, "sampling_seed": 1}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"

    def fit(epochs, to, ckpt=None):
        datamodule = SpinlockDataModule(path, config, progress=False, **options)
        run = trainer(epochs, callbacks=[BatchRecorder(to)])
        run.fit(MeanModel(), datamodule=datamodule, ckpt_path=ckpt)
        run.save_checkpoint(tmp_path / "last.ckpt")

    fit(4, whole)
    fit(2, resumed)
    fit(4, resumed, tmp_path / "last.ckpt")
    assert (tmp_path / "whole.0").read_text() == (tmp_path / "resumed.0").read_text()


def test_print_shows_everything(datasets):
    path, config = datasets["single"]
    options = {
        "train_variants": VariantSelection(exclude=("sinusoids",)),
        "eval_variants": "all",
        "scaling": "robust",
        "balance": "variant",
    }
    datamodule = SpinlockDataModule(path, config, **options)
    assert "not set up" in str(datamodule)
    datamodule.setup()
    text = str(datamodule)
    for part in (
        str(path),
        config.fingerprint[:12],
        "split_seed 0",
        "signed_log, robust",
        "balanced by variant",
        "val held_out",
        *datamodule.variant_names,
        *datamodule.feature_names,
        f"{datamodule.feature_scaler.center[7]:.5g}",
    ):
        assert part in text, part
    counts = next(line for line in text.splitlines() if line.startswith("total")).split()[1:]
    sizes = [len(rows) for rows in datamodule.prepared.subsets.values()]
    assert list(map(int, counts)) == sizes


def test_fewer_samples_than_in_the_file(datasets):
    path, config = datasets["single"]
    fewer = ready(path, dataclasses.replace(config, num_samples=60))
    assert len(collect(fewer.predict_dataloader())["index"]) == 60
