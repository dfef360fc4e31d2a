"""The experiments of configs/experiments: each is a valid difference from the base."""

import json

import pytest
import torch

from benchmarks import vqvae
from benchmarks.token_pairs import pair_figures
from spinlock import SpinlockDataModule
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.models import FeatureVQVAE, SequenceVQVAE

SHRINK = {
    "generation.num_samples": 64,
    "generation.num_realizations": 2,
    "generation.block_size": 4,
    "generation.storage.shard_size": 32,
    "generation.parameter_space.grid_size": [32],
    "generation.parameter_space.base_channels.low": 4,
    "generation.parameter_space.base_channels.high": 6,
    "generation.parameter_space.kernel_size": [3],
    "batch_size": 8,
    "progress": False,
}
DATA = [f"--data.{name}={value}" for name, value in SHRINK.items()]
TRAINER = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1"]


@pytest.mark.parametrize("name", vqvae.experiments())
def test_every_experiment_is_a_model_and_data_that_fit(name):
    cli = vqvae.assemble(name, seed=0)
    assert isinstance(cli.model, SequenceVQVAE if "sequence" in name else FeatureVQVAE)
    assert cli.model.num_variants == cli.datamodule.num_variants
    assert (cli.model.pair_weight > 0) <= (cli.datamodule.serving.view == "pairs")
    # No choice was made on these seeds; what is compared has one split of one dataset.
    seed, fractions = 7, (0.625, 0.125, 0.25)
    if name.startswith("horizon"):
        seed = 11
    elif name.startswith("many_operators"):
        seed, fractions = 13, (0.85, 0.05, 0.1)
    assert cli.datamodule.generation.seed == seed
    assert cli.datamodule.serving.fractions == pytest.approx(fractions)


@pytest.mark.parametrize("name", ["paired", "leave_out_sinusoids", "sequence_50"])
def test_a_run_gives_the_figures_of_its_table(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    shrunk = [*DATA, *TRAINER, "--data.generation.num_timesteps=3"][: None if "seq" in name else -1]
    metrics = vqvae.run(name, seed=0, overrides=shrunk)
    tables = {"paired": vqvae.PAIRS, "leave_out_sinusoids": vqvae.TRANSFER}
    expected = tables.get(name, vqvae.SEQUENCES)
    missing = [metric for metric in {**vqvae.COLUMNS, **expected}.values() if metric not in metrics]
    assert not missing
    assert json.loads(json.dumps(metrics)) == metrics


def test_the_table_has_mean_and_spread():
    runs = [
        {"name": "a", "seed": 0, "metrics": {"x": 1.0, "y": 20.0}},
        {"name": "a", "seed": 1, "metrics": {"x": 2.0, "y": 22.0}},
        {"name": "b", "seed": 0, "metrics": {"x": 0.5}},
        {"name": "c", "seed": 0, "metrics": {"y": 0.5}},
    ]
    assert vqvae.table(runs, {"X": "x", "Y": "y"}).splitlines()[2:] == [
        "| a | 2 | 1.500 ± 0.500 | 21.0 ± 1.0 |",
        "| b | 1 | 0.500 ± 0.000 | — |",
    ]


class Named(FeatureVQVAE):
    """Tokens that are a given function of the batch."""

    def __init__(self, tokens):
        super().__init__(codebook_size=64)
        self._tokens = tokens

    def forward(self, batch):
        return {"tokens": self._tokens(batch)}


def test_tokens_that_name_operators_agree_and_tokens_of_the_variant_do_not(tmp_path):
    space = {"base_channels": {"low": 4, "high": 6}, "grid_size": [32], "kernel_size": [3]}
    generation = GenerationConfig.from_dict(
        {"num_samples": 160, "probes_per_operator": 2, "block_size": 4, "num_realizations": 1}
        | {"parameter_space": space, "storage": {"fields": "none", "shard_size": 32}}
    )
    data = SpinlockDataModule(
        tmp_path / "p.h5", generation, view="pairs", test_fraction=0.5, progress=False
    )
    data.prepare_data()
    data.setup()
    torch.manual_seed(0)
    named = pair_figures(Named(lambda batch: batch["operator"] % 64), data)
    assert named["pairs/token_ami_given_variant"] > 0.9
    assert named["pairs/agreement_given_variant"] > 0.7
    variant = pair_figures(Named(lambda batch: batch["variant"]), data)
    assert variant["pairs/agreement_given_variant"] == pytest.approx(0, abs=1e-6)
    assert set(named) > {f"pairs/cross_probe_r2/{policy}" for policy in data.update_policy_names}
