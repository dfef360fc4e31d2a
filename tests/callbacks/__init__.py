"""A small data module that keeps the batch contract, for tests of callbacks and models."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spinlock.configuration.parameter_axes import ParameterSpaceConfig
from spinlock.configuration.parameter_space import PARAMETER_NAMES, ParameterSpace

VARIANTS = (
    "gaussian_noise_0.25",
    "gaussian_noise_1",
    "band_limited_low",
    "band_limited_high",
    "sinusoids",
    "gaussian_blobs",
)
FAMILIES = ("gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs")
UPDATE_POLICIES = ("autoregressive", "residual", "convex")
NORMALIZATIONS = ("none", "instance", "batch")
FAMILY_OF_VARIANT = torch.tensor([0, 0, 1, 1, 2, 3])


class SyntheticData(Dataset[dict[str, Tensor]]):
    """Features that are a linear map of 3 operator parameters and of the initial features."""

    def __init__(self, size: int, first_index: int = 0, probes: int = 1) -> None:
        generator = torch.Generator().manual_seed(17 + first_index)
        maps = torch.Generator().manual_seed(5)
        params = torch.rand(size // probes, 15, generator=generator).repeat_interleave(probes, 0)
        variant = torch.randint(len(VARIANTS), (size,), generator=generator)
        initial = torch.randn(len(VARIANTS), 46, generator=maps)[variant]
        initial = initial + 0.1 * torch.randn(size, 46, generator=generator)
        weights = torch.randn(3, 46, generator=maps)
        self.columns = {
            "features": (params[:, :3] - 0.5) @ weights + 0.5 * initial,
            "initial_features": initial,
            "variant": variant,
            "family": FAMILY_OF_VARIANT[variant],
            "update_policy": (3 * params[:, PARAMETER_NAMES.index("update_policy")]).long(),
            "normalization": (3 * params[:, PARAMETER_NAMES.index("normalization")]).long(),
            "parameter_count": (1e6 * params[:, 1]).long(),
            "params": params,
            "operator": torch.arange(size) // probes + first_index,
            "index": torch.arange(size) + first_index,
        }

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, position: int | slice) -> dict[str, Tensor]:
        return {key: column[position] for key, column in self.columns.items()}


class SyntheticDataModule(LightningDataModule):
    """Splits of :class:`SyntheticData`; indices of the validation split start at 1000."""

    def __init__(self, size: int = 96, batch_size: int = 32, probes: int = 1) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.train, self.val, self.test = (
            SyntheticData(size, first, probes) for first in (0, 1000, 2000)
        )

    @property
    def variant_names(self) -> tuple[str, ...]:
        return VARIANTS

    @property
    def variant_families(self) -> tuple[str, ...]:
        return tuple(FAMILIES[family] for family in FAMILY_OF_VARIANT.tolist())

    @property
    def family_names(self) -> tuple[str, ...]:
        return FAMILIES

    @property
    def update_policy_names(self) -> tuple[str, ...]:
        return UPDATE_POLICIES

    @property
    def normalization_names(self) -> tuple[str, ...]:
        return NORMALIZATIONS

    @property
    def parameter_space(self) -> ParameterSpace:
        return ParameterSpace(ParameterSpaceConfig().base_axes)

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

    codebook_size = 256

    def __init__(self, key: str = "variant") -> None:
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


class DecodingModel(TokenModel):
    """Tokens that are a column, and a decoder: half the initial features, and a map of the token.

    The columns ``tokens`` of the data are tokens; the operator's part of the features is decoded
    from ``codes [codes, 46]``.
    """

    def __init__(self, codes: Tensor, key: str = "tokens") -> None:
        super().__init__(key)
        self.codebook_size = len(codes)
        self.codes = torch.nn.Parameter(codes)

    def decode(self, tokens: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return self.codes[tokens] + 0.5 * batch["initial_features"]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        tokens = batch[self.key]
        reconstruction = self.decode(tokens, batch)
        loss = (reconstruction - batch["features"]).square().mean()
        latent = self.codes[tokens][:, :4]
        return {"loss": loss, "tokens": tokens, "reconstruction": reconstruction, "latent": latent}


def with_operator_tokens(data: SyntheticDataModule) -> Tensor:
    """Adds to each split tokens that name the operator; gives the codes, its part of features."""
    sizes = [int(split.columns["operator"].max()) for split in (data.train, data.val, data.test)]
    codes = torch.zeros(max(sizes) + 1, 46)
    for split in (data.train, data.val, data.test):
        operator = split.columns["operator"]
        split.columns["tokens"] = operator
        codes[operator] = split.columns["features"] - 0.5 * split.columns["initial_features"]
    return codes
