"""A small data module that keeps the batch contract, for tests of callbacks and models."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

VARIANTS = (
    "gaussian_noise_0.25",
    "gaussian_noise_1",
    "band_limited_low",
    "band_limited_high",
    "sinusoids",
    "gaussian_blobs",
)
FAMILIES = ("gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs")
FAMILY_OF_VARIANT = torch.tensor([0, 0, 1, 1, 2, 3])


class SyntheticData(Dataset[dict[str, Tensor]]):
    """Features that are a linear map of 3 operator parameters and of the initial features."""

    def __init__(self, size: int, first_index: int = 0) -> None:
        generator = torch.Generator().manual_seed(17 + first_index)
        maps = torch.Generator().manual_seed(5)
        params = torch.rand(size, 15, generator=generator)
        variant = torch.randint(len(VARIANTS), (size,), generator=generator)
        initial = torch.randn(len(VARIANTS), 46, generator=maps)[variant]
        initial = initial + 0.1 * torch.randn(size, 46, generator=generator)
        weights = torch.randn(3, 46, generator=maps)
        self.columns = {
            "features": (params[:, :3] - 0.5) @ weights + 0.5 * initial,
            "initial_features": initial,
            "ic_type": variant,
            "ic_family": FAMILY_OF_VARIANT[variant],
            "params": params,
            "operator": torch.arange(size) + first_index,
            "index": torch.arange(size) + first_index,
        }

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, position: int | slice) -> dict[str, Tensor]:
        return {key: column[position] for key, column in self.columns.items()}


class SyntheticDataModule(LightningDataModule):
    """Splits of :class:`SyntheticData`; indices of the validation split start at 1000."""

    def __init__(self, size: int = 96, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.train, self.val, self.test = (SyntheticData(size, first) for first in (0, 1000, 2000))

    @property
    def ic_names(self) -> tuple[str, ...]:
        return VARIANTS

    @property
    def family_names(self) -> tuple[str, ...]:
        return FAMILIES

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"feature_{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(46))

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.val, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.test, batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.test, batch_size=self.batch_size)


class TokenModel(LightningModule):
    """One trained weight, and tokens that are a given column of the batch."""

    def __init__(self, key: str = "ic_type") -> None:
        super().__init__()
        self.key = key
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        return (self.weight * batch["features"]).square().mean()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        return {"loss": batch["features"].mean(), "tokens": batch[self.key]}

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet_trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    """A trainer on the CPU that prints and writes nothing."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "max_epochs": 1,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | settings))
