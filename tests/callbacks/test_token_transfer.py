"""TokenTransfer with two validation loaders."""

import numpy as np
import pytest
import torch
from scipy.spatial import distance
from torch.utils.data import DataLoader, Subset

from spinlock.callbacks import TokenTransfer
from spinlock.errors import ConfigurationError
from tests.callbacks import SyntheticDataModule, TokenModel, quiet_trainer


class Model(TokenModel):
    """Off by 1 on samples of the even, by 2 on those of the odd variants."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        offset = 1 + batch["variant"] % 2
        return {
            "tokens": batch[self.key],
            "reconstruction": batch["features"] + offset[:, None],
        }

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        return self.validation_step(batch, batch_idx)


class HeldOut(SyntheticDataModule):
    """Held-in loaders of even, held-out loaders of odd variants."""

    def _pair(self, split):
        odd = split.columns["variant"] % 2 == 1
        return [
            DataLoader(Subset(split, rows.nonzero().flatten().tolist()), 32) for rows in (~odd, odd)
        ]

    def val_dataloader(self):
        return self._pair(self.val)

    def test_dataloader(self):
        return self._pair(self.test)


def validate(tmp_path, key, data=None, **settings):
    trainer = quiet_trainer(tmp_path, TokenTransfer(**settings))
    logged = trainer.validate(Model(key), data or HeldOut(400), verbose=False)
    return logged[0]


def test_tokens_of_the_variant_do_not_transfer(tmp_path):
    logged = validate(tmp_path, "variant")
    assert logged["transfer/js_divergence"] == pytest.approx(np.log(2), rel=1e-6)
    assert logged["transfer/js_divergence_p_value"] == pytest.approx(1 / 101)
    assert logged["transfer/held_in_error"] == pytest.approx(1, rel=1e-5)
    assert logged["transfer/held_out_error"] == pytest.approx(4, rel=1e-5)
    assert len(logged) == 5


def test_tokens_of_the_operator_transfer(tmp_path):
    data = HeldOut(400)
    data.val.columns["kernel"] = (3 * data.val.columns["params"][:, 2]).long()
    logged = validate(tmp_path, "kernel", data)
    assert logged["transfer/js_divergence"] < logged["transfer/js_divergence_null_95"] < 0.05
    assert logged["transfer/js_divergence_p_value"] > 0.05


def test_divergence_against_scipy(tmp_path):
    data = HeldOut(400)
    logged = validate(tmp_path, "family", data)
    columns = data.val.columns
    odd = columns["variant"] % 2 == 1
    shares = [columns["family"][rows].bincount(minlength=4).double() for rows in (~odd, odd)]
    expected = distance.jensenshannon(*[s / s.sum() for s in shares]) ** 2
    assert logged["transfer/js_divergence"] == pytest.approx(expected, rel=1e-5)


def test_levels_diverge_together(tmp_path):
    data = HeldOut(400)
    columns = data.val.columns
    coin = torch.arange(400) % 2
    # Each part is a coin; their sum is the loader.
    columns["parts"] = torch.stack([coin, (coin + columns["variant"]) % 2], 1)
    assert validate(tmp_path, "parts", data)["transfer/js_divergence"] == pytest.approx(np.log(2))


def test_one_loader_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigurationError, match=r"needs two validation loaders, .* there are 1"):
        quiet_trainer(tmp_path, TokenTransfer()).fit(Model(), SyntheticDataModule())


def test_testing_logs_with_two_loaders_and_not_with_one(tmp_path):
    trainer = quiet_trainer(tmp_path, TokenTransfer())
    logged = trainer.test(Model(), HeldOut(400), verbose=False)
    assert logged[0]["test/transfer/held_out_error"] == pytest.approx(4, rel=1e-5)
    assert quiet_trainer(tmp_path, TokenTransfer()).test(Model(), SyntheticDataModule()) == [{}]


def test_bad_arguments():
    with pytest.raises(ValueError, match="permutations: must be at least 1, got 0"):
        TokenTransfer(permutations=0)
