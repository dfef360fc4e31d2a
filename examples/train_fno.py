"""Trains a Fourier neural operator (neuraloperator) to predict u_1 from u_0 and the parameters."""

from collections.abc import Callable

import torch
from neuralop.models import FNO
from torch import Tensor

from spinlock import GenerationConfig, SpinlockDataModule

# Transport operators: their parameters tell how a step moves and smooths the field. The weights of
# the convolutional part are unknown to the model, so it gets a small share of the new field.
space = {
    "grid_size": [32],
    "base_channels": {"low": 4, "high": 8},
    "update_policy": ["convex"],
    "alpha": {"low": 0.8, "high": 0.9},
    "noise_scale": {"low": 1e-5, "high": 0.01},
}
settings = {"num_samples": 1000, "num_realizations": 1, "responses": False, "dynamics": False}
config = GenerationConfig.from_dict({"operator": "transport", "parameter_space": space, **settings})
data = SpinlockDataModule("data/fno.h5", config, view="fields", realizations="one", batch_size=25)
data.prepare_data()
data.setup()


def example(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return u_0 with the parameters as further channels, and u_1."""
    initial, params = batch["input_fields"], 2 * batch["params"] - 1
    planes = params[:, :, None, None].expand(-1, -1, *initial.shape[2:])
    return torch.cat([initial, planes], dim=1), batch["output_fields"][:, 0]


def error(predict: Callable[[Tensor], Tensor]) -> float:
    """Return the root of the mean square error on the validation split, relative to u_1."""
    examples = [example(batch) for batch in data.val_dataloader()]
    squares = [(predict(x) - y).square().sum() / y.square().sum() for x, y in examples]
    return torch.stack(squares).mean().sqrt().item()


torch.manual_seed(0)
model = FNO((12, 12), in_channels=3 + len(data.parameter_axes), out_channels=3, hidden_channels=32)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(20):
    for x, y in map(example, data.train_dataloader()):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(x[:, :3] + model(x), y).backward()
        optimizer.step()
with torch.no_grad():
    unchanged, learned = error(lambda x: x[:, :3]), error(lambda x: x[:, :3] + model(x))
print(f"relative error of u_1: {learned:.3f}, of u_0 as the prediction: {unchanged:.3f}")
