"""Every shipped configuration trains, and one of each kind is tested and applied."""

from pathlib import Path

import pytest
import torch
import yaml

from spinlock.commands.command_line import main
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.convolutional_operator import OUTPUT_BOUND
from spinlock.storage import read_info

pytestmark = pytest.mark.slow

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
FILES = [path for path in CONFIGS if path.stem != "stream"]
# One with pairs of probes, one with trajectories, one with transport operators.
APPLIED = ("quickstart", "temporal_t100", "transport_10k")
# Settings that shrink a configuration to seconds without changing its structure.
SHRINK = {
    "generation.num_samples": 48,
    "generation.num_realizations": 2,
    "generation.block_size": 4,
    "generation.storage.shard_size": 16,
    "generation.parameter_space.grid_size": [32],
    "generation.parameter_space.base_channels.low": 4,
    "generation.parameter_space.base_channels.high": 6,
    "generation.parameter_space.kernel_size": [3],
    "batch_size": 8,
    "progress": False,
}


@pytest.fixture(autouse=True)
def _no_seed(monkeypatch):
    """`seed_everything` stores its seed in the environment, which would affect other tests."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.stem)
def test_every_shipped_configuration_runs(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = dict(SHRINK)
    generation = yaml.safe_load(config.read_text())["data"]["generation"]
    if generation.get("num_timesteps", 1) > 3:
        overrides["generation.num_timesteps"] = 3
    if isinstance(generation.get("storage", {}).get("fields"), dict):
        overrides["generation.storage.fields"] = "last"
    if config.stem != "transport_10k":
        overrides["generation.dynamics"] = False
    shrunk = [f"--data.{name}={value}" for name, value in overrides.items()]
    shrunk += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    shrunk += ["--trainer.default_root_dir", str(tmp_path / "runs"), "--trainer.max_epochs=1"]
    main(["fit", "--config", str(config), *shrunk])
    built = next((tmp_path / "data").glob("*.h5"))
    checkpoint = next((tmp_path / "runs").rglob("*.ckpt"))
    for command in ("test", "predict") if config.stem in APPLIED else ():
        main([command, "--config", str(config), *shrunk, "--ckpt_path", str(checkpoint)])
    state = torch.load(checkpoint, weights_only=True)["SpinlockDataModule"]
    assert state["fingerprint"] == read_info(built).fingerprint


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_what_it_says(config):
    """Names and comments promise sizes; the fingerprint would change with anything else."""
    data = yaml.safe_load(config.read_text())["data"]
    parsed = GenerationConfig.from_dict(data.get("init_args", data)["generation"])
    if "baseline" in config.stem:
        probes = parsed.probes_per_operator
        assert probes == (2 if "vqvae" in config.stem else 1)
        assert parsed == GenerationConfig(10_000 * probes, probes_per_operator=probes)
    if data.get("path") == "data/transport_10k.h5":
        assert parsed.operator == "transport"
        assert parsed.num_samples == 10_000 * parsed.probes_per_operator == 20_000
        # The operator's output has about the rms of the field.
        space = parsed.parameter_space
        assert max(space.dt.high, 1 / space.alpha.low - 1) <= 0.5
        same = ("num_realizations", "num_timesteps", "seed", "channels", "storage", "precision")
        usual = GenerationConfig(10_000)
        assert all(getattr(parsed, name) == getattr(usual, name) for name in same)
    if "t50" in config.stem:
        assert parsed.num_timesteps == 50
        assert parsed.stored_steps == ()
    if "t100" in config.stem:
        assert parsed.num_timesteps == parsed.stored_steps[-1] == 100
        assert parsed.operator == "transport"
        # Chaos and periodic motion are told apart by the spread of realizations.
        assert parsed.num_realizations >= 2
        # Residual fields gain at most 10 dt at a step and never grow by themselves, so their rms
        # stays below 9 without forcing; initial conditions have an rms of at most 2.
        space = parsed.parameter_space
        assert space.operator_axes["growth"]["high"] <= 0
        assert 2 + OUTPUT_BOUND * space.dt.high * 100 <= 9


def test_a_stream_is_trained_on_from_yaml(tmp_path, monkeypatch):
    """No file is written, and a checkpoint keeps the scaling."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in SHRINK if name.startswith("generation")] + ["batch_size"]
    shrunk = {name: SHRINK[name] for name in names}
    shrunk |= {
        "generation.dynamics": False,
        "num_batches": 3,
        "eval_samples": 16,
        "scaling_samples": 16,
        "population": 1000,
    }
    options = [f"--data.{name}={value}" for name, value in shrunk.items()]
    options += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    options += ["--trainer.default_root_dir", str(tmp_path / "runs"), "--trainer.max_epochs=1"]
    config = next(path for path in CONFIGS if path.stem == "stream")
    main(["fit", "--config", str(config), *options])
    checkpoint = next((tmp_path / "runs").rglob("*.ckpt"))
    state = torch.load(checkpoint, weights_only=True)["SpinlockStreamModule"]
    assert set(state["scalers"]) == {"features", "initial_features"}
    main(["test", "--config", str(config), *options, "--ckpt_path", str(checkpoint)])
    assert not list(tmp_path.rglob("*.h5"))
