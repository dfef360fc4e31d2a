"""TokenTransfer with two validation loaders."""

import numpy as np
import pytest
import torch
from scipy.spatial import distance
from sklearn.metrics import r2_score
from torch.utils.data import DataLoader, Subset

from spinlock import metrics
from spinlock.callbacks import TokenTransfer
from spinlock.callbacks.epoch_tables import by_index
from spinlock.errors import ConfigurationError
from tests.callbacks import SyntheticData, SyntheticDataModule, TokenModel, quiet_trainer


class Model(TokenModel):
    """Reconstructs with errors of 1 in samples of the even, of 2 in those of the odd variants."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        sign = 1 - 2 * (batch["index"] % 2)
        offset = sign * (1 + batch["variant"] % 2)
        outputs = {
            "tokens": batch[self.key],
            "reconstruction": batch["features"] + offset[:, None],
        }
        if "decoded" in batch:
            outputs["dynamics"] = batch["decoded"]
        return outputs

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
    logged = trainer.validate(Model(key), data or HeldOut(400), verbose=False)[0]
    return {key.removeprefix("transfer/"): value for key, value in logged.items()}


def parts(columns):
    """Rows of the held-in and of the held-out samples."""
    odd = columns["variant"] % 2 == 1
    return ~odd, odd


def test_tokens_of_the_variant_do_not_transfer(tmp_path):
    logged = validate(tmp_path, "variant")
    assert logged["js_divergence"] == pytest.approx(np.log(2), rel=1e-6)
    assert logged["js_divergence_p_value"] == pytest.approx(1 / 101)
    assert set(logged) == {
        "js_divergence",
        "js_divergence_null_95",
        "js_divergence_p_value",
        "held_in_r2",
        "held_out_r2",
        "r2_gap",
    }


def test_r2_is_that_within_each_part(tmp_path):
    data = HeldOut(400)
    columns = data.val.columns
    # A difference of the parts' means would make R2 of both together look better.
    columns["features"] += 9.0 * (columns["variant"] % 2)[:, None]
    logged = validate(tmp_path, "family", data)
    batch = data.val[slice(None)]
    reconstruction = Model("family").validation_step(batch, 0)["reconstruction"]
    expected = [
        r2_score(batch["features"][rows], reconstruction[rows], multioutput="variance_weighted")
        for rows in parts(columns)
    ]
    found = logged["held_in_r2"], logged["held_out_r2"]
    assert found == pytest.approx(expected, rel=1e-4)
    assert logged["r2_gap"] == pytest.approx(expected[0] - expected[1], rel=1e-4)
    assert logged["r2_gap"] > 0.1


def test_r2_of_sequences(tmp_path):
    """Of the last timestep, if that is what the model reconstructs."""
    data = HeldOut(400)
    expected = validate(tmp_path, "family", data)
    columns = data.val.columns
    features = columns["features"]
    columns["features"] = torch.stack([features + 100 * torch.randn(400, 1), features], 1)

    class Last(Model):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step({**batch, "features": batch["features"][:, -1]}, 0)

    trainer = quiet_trainer(tmp_path, TokenTransfer())
    logged = trainer.validate(Last("family"), data, verbose=False)[0]
    assert logged == pytest.approx({f"transfer/{k}": v for k, v in expected.items()})


def paired(probes=4):
    """Half of the probes of each operator are held in."""
    data = HeldOut(400)
    data.val = SyntheticData(400, 1000, probes)
    columns = data.val.columns
    generator = torch.Generator().manual_seed(1)
    odd = torch.arange(400) % 2
    columns["variant"] = 2 * torch.randint(3, (400,), generator=generator) + odd
    columns["family"] = columns["variant"] // 2
    columns["kernel"] = (40 * columns["params"][:, 2]).long()
    order = torch.randperm(400, generator=generator)
    data.val.columns = {key: column[order] for key, column in columns.items()}
    return data


def test_tokens_of_paired_operators_transfer(tmp_path):
    logged = validate(tmp_path, "kernel", paired())
    assert logged["js_divergence"] == logged["js_divergence_null_95"] == 0
    assert logged["js_divergence_p_value"] == 1
    assert logged["same_token"] > 0.9


def test_the_null_of_pairs_permutes_the_parts_of_each_operator(tmp_path):
    data = paired()
    columns = data.val.columns
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(40, (400,), generator=generator)
    coin = torch.rand(400, generator=generator)
    columns["kernel"] = torch.where(coin < 0.5, noise, columns["kernel"])
    logged = validate(tmp_path, "kernel", data, permutations=50, seed=2)
    columns = by_index(columns)
    part, token = columns["variant"] % 2, columns["kernel"]
    permuted = metrics.group_permutations(part, columns["operator"], permutations=50, seed=2)
    null = []
    for row in torch.cat(list(permuted)):
        shares = [token[row == n].bincount(minlength=40).double() for n in (0, 1)]
        null.append(distance.jensenshannon(*[s / s.sum() for s in shares]) ** 2)
    assert logged["js_divergence_null_95"] == pytest.approx(np.quantile(null, 0.95), rel=1e-5)
    assert logged["js_divergence_p_value"] > 0.02
    expected = metrics.same_token_rate(
        token, columns["family"], columns["operator"], parts=part
    ).above_chance
    assert logged["same_token"] == pytest.approx(expected.item(), rel=1e-5)
    # Both tokens are the operator's in a quarter of the pairs.
    assert logged["same_token"] == pytest.approx(0.25, abs=0.1)


def test_dynamics_within_each_part(tmp_path):
    data = paired()
    columns = data.val.columns
    noise = torch.randn(1100, 2, generator=torch.Generator().manual_seed(0))[columns["operator"]]
    columns["kernel"] = columns["kernel"] // 10
    columns["dynamics"] = 2.0 * columns["kernel"][:, None] + 0.5 * noise
    # Tokens of held-out probes are spoilt, which must not be learned from.
    odd = columns["variant"] % 2 == 1
    columns["kernel"] = torch.where(odd, columns["kernel"] // 2, columns["kernel"])
    logged = validate(tmp_path, "kernel", data)
    samples = by_index(columns)
    predicted = metrics.predict_from_tokens(
        samples["dynamics"],
        samples["kernel"],
        samples["operator"],
        fitted=samples["variant"] % 2 == 0,
    )
    expected = [
        r2_score(samples["dynamics"][rows], predicted[rows], multioutput="variance_weighted")
        for rows in parts(samples)
    ]
    found = logged["held_in_dynamics_r2"], logged["held_out_dynamics_r2"]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[0] > 0.8
    assert found[1] < 0.5
    assert logged["dynamics_r2_gap"] == pytest.approx(found[0] - found[1])
    # Decoded dynamics are taken as they are.
    columns["decoded"] = columns["dynamics"] + torch.where(odd, 1.0, 0.0)[:, None]
    logged = validate(tmp_path, "kernel", data)
    assert logged["held_in_dynamics_r2"] == 1
    expected = 1 - 1 / columns["dynamics"][odd].var(0, correction=0).mean()
    assert logged["held_out_dynamics_r2"] == pytest.approx(expected.item(), rel=1e-4)


def test_tokens_of_the_operator_transfer(tmp_path):
    data = HeldOut(400)
    data.val.columns["kernel"] = (3 * data.val.columns["params"][:, 2]).long()
    logged = validate(tmp_path, "kernel", data)
    assert logged["js_divergence"] < logged["js_divergence_null_95"] < 0.05
    assert logged["js_divergence_p_value"] > 0.05


def test_divergence_against_scipy(tmp_path):
    data = HeldOut(400)
    logged = validate(tmp_path, "family", data)
    columns = data.val.columns
    odd = columns["variant"] % 2 == 1
    shares = [columns["family"][rows].bincount(minlength=4).double() for rows in (~odd, odd)]
    expected = distance.jensenshannon(*[s / s.sum() for s in shares]) ** 2
    assert logged["js_divergence"] == pytest.approx(expected, rel=1e-5)


def test_levels_diverge_together(tmp_path):
    data = HeldOut(400)
    columns = data.val.columns
    coin = torch.arange(400) % 2
    # Each part is a coin; their sum is the loader.
    columns["parts"] = torch.stack([coin, (coin + columns["variant"]) % 2], 1)
    assert validate(tmp_path, "parts", data)["js_divergence"] == pytest.approx(np.log(2))


def test_one_loader_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigurationError, match=r"needs two validation loaders, .* there are 1"):
        quiet_trainer(tmp_path, TokenTransfer()).fit(Model(), SyntheticDataModule())


def test_testing_logs_with_two_loaders_and_not_with_one(tmp_path):
    trainer = quiet_trainer(tmp_path, TokenTransfer())
    logged = trainer.test(Model(), HeldOut(400), verbose=False)
    assert logged[0]["test/transfer/held_in_r2"] > logged[0]["test/transfer/held_out_r2"]
    assert quiet_trainer(tmp_path, TokenTransfer()).test(Model(), SyntheticDataModule()) == [{}]


def test_bad_arguments():
    with pytest.raises(ValueError, match="permutations: must be at least 1, got 0"):
        TokenTransfer(permutations=0)
