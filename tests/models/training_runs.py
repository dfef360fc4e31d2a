"""Small training runs that are compared to the bit."""

from pathlib import Path

import torch

from spinlock import SpinlockDataModule
from spinlock.models import FeatureVQVAE, QuantizerConfig, ScheduleConfig
from tests.callbacks import quiet_trainer
from tests.models.small_models import ONE_PROBE

EPOCHS, BATCHES = 4, 3
STEPS = EPOCHS * BATCHES
# Five of the twelve steps warm up; so high a threshold revives codes in most steps.
SCHEDULE = ScheduleConfig(warmup=0.4, ramp=0.5)
QUANTIZERS = {
    "vector": {"dead_code_threshold": 2.0},
    "residual": {"kind": "residual", "num_codebooks": 2, "dead_code_threshold": 2.0},
    "grouped": {"kind": "grouped", "num_codebooks": 2, "dead_code_threshold": 2.0},
    "finite_scalar": {"kind": "finite_scalar", "levels": (4, 4)},
}


def data(datasets, name="probes", **options):
    path, config = datasets[name]
    # Three batches an epoch, the last of them incomplete.
    options = {"batch_size": {"steps": 18}.get(name, 26), "sampling_seed": 1} | options
    return SpinlockDataModule(path, config, progress=False, **options)


def model_for(datamodule, kind=FeatureVQVAE, quantizer="vector", **options):
    """A model that has its weights already, unless the data module selects columns."""
    torch.manual_seed(0)
    sizes = {}
    if not datamodule.selects_columns:
        sizes = {
            "num_features": datamodule.num_features,
            "num_initial_features": datamodule.num_initial_features,
            "num_dynamics": len(datamodule.dynamics_names),
            "num_variants": len(datamodule.variant_names),
        }
    settings = {
        "latent_dim": 4,
        "hidden_dims": (16,),
        "codebook_size": 16,
        "quantizer": QuantizerConfig(**QUANTIZERS[quantizer]),
        "schedule": SCHEDULE,
        "loss": ONE_PROBE,
    }
    return kind(**(sizes | settings | options))


def trainer_with(*callbacks, **settings):
    return quiet_trainer(Path(), *callbacks, **({"max_epochs": EPOCHS} | settings))


def fit(model, datamodule, *callbacks, ckpt=None, **settings):
    """The weights and buffers of a trained model."""
    trainer_with(*callbacks, **settings).fit(model, datamodule=datamodule, ckpt_path=ckpt)
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def warming_up(datamodule):
    """A model that warms up for three of four epochs of 69 samples."""
    model = model_for(datamodule)
    model._schedule_config = ScheduleConfig(warmup=0.75)
    return model
