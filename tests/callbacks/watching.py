"""Settings of the callbacks that watch, and a model and data that they all can watch."""

import torch
from torch.utils.data import DataLoader, Subset

from spinlock import callbacks
from tests.callbacks import DecodingModel, SyntheticDataModule, with_operator_tokens

NO_PLOTS = {"plots_every_n_epochs": 0, "detailed": True}
WATCHING = {
    callbacks.CodebookUsage: NO_PLOTS,
    callbacks.FiniteCheck: {"policy": "warn", "gradients": True},
    callbacks.ICMutualInformation: NO_PLOTS | {"threshold": 2.0},
    callbacks.OperatorConsistency: {"detailed": True},
    callbacks.ReconstructionByGroup: NO_PLOTS,
    callbacks.TokenTransfer: {},
}


class Model(DecodingModel):
    """Several loaders; with ``parts`` in the batch, residual tokens; a sequence of tokens."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        outputs = super().validation_step(batch, batch_idx)
        outputs["dynamics"] = 0.9 * batch["dynamics"]
        outputs["token_sequence"] = batch["tokens"][:, None].repeat(1, 3)
        if "parts" in batch:
            outputs["tokens"] = batch["parts"]
        return outputs

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        return self.validation_step(batch, batch_idx)

    def decode(self, tokens, batch):
        return super().decode(tokens if tokens.ndim == 1 else tokens[:, 0], batch)

    def quantize(self, latent):
        """The code whose first columns are nearest."""
        return torch.cdist(latent, self.codes[:, :4]).argmin(1)


class Data(SyntheticDataModule):
    """Four probes per operator, two in each of two loaders, and dynamics."""

    dynamics_names = ("growth", "noise")

    def __init__(self):
        super().__init__(size=96, batch_size=16, probes=4)
        self.count = 96
        for split in (self.train, self.val, self.test):
            split.columns["dynamics"] = split.columns["params"][:, :2]

    def _loaders(self, split):
        return [DataLoader(Subset(split, range(part, self.count, 2)), 16) for part in (0, 1)]

    def val_dataloader(self):
        return self._loaders(self.val)

    def test_dataloader(self):
        return self._loaders(self.test)


def model_and_data(levels=False):
    data = Data()
    model = Model(with_operator_tokens(data))
    if levels:
        for split in (data.train, data.val, data.test):
            tokens = split.columns["tokens"]
            split.columns["parts"] = torch.stack([tokens, tokens % 3], 1)
    return model, data
