"""Trains VectorQuantize and ResidualVQ of vector-quantize-pytorch on scaled features."""

import torch
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from spinlock import GenerationConfig, SpinlockDataModule

space = {"grid_size": [32], "base_channels": {"low": 4, "high": 8}}
config = GenerationConfig.from_dict({"num_samples": 500, "parameter_space": space})
data = SpinlockDataModule("data/example.h5", config, scaling="rank", batch_size=64)
data.prepare_data()
data.setup()
errors = {}
for quantizer in (VectorQuantize(46, 64), ResidualVQ(dim=46, codebook_size=64, num_quantizers=4)):
    name, loader = type(quantizer).__name__, data.train_dataloader()
    errors[name] = []
    for batch in (batch for epoch in range(10) for batch in loader):
        quantized, tokens, commitment = quantizer(batch["features"][None])
        errors[name].append(torch.nn.functional.mse_loss(quantized[0], batch["features"]).item())
    print(f"{name}: error {errors[name][0]:.3f} (first batch), {errors[name][-1]:.3f} (last batch)")
