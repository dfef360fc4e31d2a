"""Speed of training the VQ-VAE: `python -m benchmarks.vqvae`."""

import logging
import time

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from benchmarks.machine import describe
from spinlock.datamodules import FeatureDataset
from spinlock.models import FeatureVQVAE
from spinlock.simulation.dynamics import DYNAMICS_NAMES

NUM_FEATURES, NUM_DYNAMICS = 21, len(DYNAMICS_NAMES)


def seconds(samples: int = 10_000, epochs: int = 100, batch_size: int = 512) -> float:
    """Return the seconds that training on random pairs of responses takes.

    One thread is used: a step of these small networks gains nothing from a second one, and threads
    that wait for each other lose much time where cores are shared.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shapes = {"features": NUM_FEATURES, "other_features": NUM_FEATURES, "dynamics": NUM_DYNAMICS}
    columns = {k: torch.randn(samples, size, generator=generator) for k, size in shapes.items()}
    data = FeatureDataset(columns, torch.arange(samples))
    # The dataset returns whole batches.
    loader = DataLoader(data, batch_size=batch_size, shuffle=True, collate_fn=lambda batch: batch)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.monotonic()
    trainer.fit(FeatureVQVAE(NUM_FEATURES, num_dynamics=NUM_DYNAMICS), loader)
    return time.monotonic() - start


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print(describe(torch.device("cpu")), flush=True)
    print(f"10,000 samples, 100 epochs: {seconds():.0f} s")
