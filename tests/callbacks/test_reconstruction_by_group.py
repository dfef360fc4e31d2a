"""ReconstructionByGroup against errors by hand."""

import pytest
import torch
from scipy.stats import spearmanr

from spinlock.callbacks import ContractError, ReconstructionByGroup
from tests.callbacks import (
    FAMILIES,
    NORMALIZATIONS,
    UPDATE_POLICIES,
    VARIANTS,
    SyntheticDataModule,
    TokenModel,
    quiet_trainer,
)

GROUPINGS = {
    "variant": ("variant", VARIANTS),
    "family": ("family", FAMILIES),
    "update_policy": ("update_policy", UPDATE_POLICIES),
    "normalization": ("normalization", NORMALIZATIONS),
}


class Offset(TokenModel):
    """A reconstruction that is off by what the column ``offset`` says."""

    def validation_step(self, batch, batch_idx):
        features = batch["features"]
        shape = (len(features),) + (1,) * (features.ndim - 1)
        return {"reconstruction": features + batch["offset"].view(shape)}


def validate(tmp_path, data, model=None, **settings):
    trainer = quiet_trainer(
        tmp_path, ReconstructionByGroup(plots_every_n_epochs=0, detailed=True), **settings
    )
    return trainer.validate(model or Offset(), data, verbose=False)[0]


@pytest.fixture
def data():
    data = SyntheticDataModule()
    generator = torch.Generator().manual_seed(0)
    data.val.columns["offset"] = torch.rand(96, generator=generator)
    return data


def test_errors_are_means_over_the_samples_of_each_group(tmp_path, data):
    logged = validate(tmp_path, data)
    columns = data.val.columns
    squares = columns["offset"].square()
    assert logged["reconstruction/error"] == pytest.approx(squares.mean().item(), rel=1e-4)
    for grouping, (key, names) in GROUPINGS.items():
        for number, name in enumerate(names):
            mine = squares[columns[key] == number]
            found = logged[f"reconstruction/{grouping}/{name}"]
            assert found == pytest.approx(mine.mean().item(), rel=1e-4), name
    expected = spearmanr(squares.numpy(), columns["parameter_count"].numpy()).statistic
    assert logged["reconstruction/complexity_rank_correlation"] == pytest.approx(expected, abs=1e-3)
    assert len(logged) == 1 + 6 + 4 + 3 + 3 + 1


@pytest.mark.parametrize(("sign", "expected"), [(1, 1), (-1, -1), (0, 0)])
def test_rank_correlation_with_complexity(tmp_path, data, sign, expected):
    count = data.val.columns["parameter_count"]
    rank = count.argsort().argsort().double()
    data.val.columns["offset"] = (2 + sign * rank / 96).float()
    logged = validate(tmp_path, data)["reconstruction/complexity_rank_correlation"]
    # Equal offsets give errors that differ in rounding only, of no order.
    assert logged == pytest.approx(expected, abs=1e-4 if sign else 0.3)


def test_groups_that_do_not_occur_have_no_key(tmp_path, data):
    logged = validate(tmp_path, data, limit_val_batches=1)
    seen = data.val.columns["variant"][:32].unique().tolist()
    keys = [key for key in logged if key.startswith("reconstruction/variant/")]
    assert keys == [f"reconstruction/variant/{VARIANTS[v]}" for v in seen]


@pytest.mark.parametrize("missing", ["variant", "update_policy", "parameter_count"])
def test_without_optional_labels_their_keys_are_left_out(tmp_path, data, missing):
    whole = validate(tmp_path, data)
    del data.val.columns[missing]
    word = {"variant": "/variant/", "parameter_count": "complexity"}.get(missing, missing)
    assert validate(tmp_path, data) == {k: v for k, v in whole.items() if word not in k}


@pytest.mark.parametrize("whole_sequence", [True, False])
def test_sequences(tmp_path, data, whole_sequence):
    """A reconstruction of the sequence, or of its last timestep."""
    columns = data.val.columns
    columns["last"] = columns["features"] + columns["offset"][:, None]
    columns["features"] = torch.stack([columns["features"] * 3, columns["features"]], 1)
    model = Offset()
    if not whole_sequence:
        model.validation_step = lambda batch, batch_idx: {"reconstruction": batch["last"]}
    logged = validate(tmp_path, data, model)
    expected = columns["offset"].square().mean().item()
    assert logged["reconstruction/error"] == pytest.approx(expected, rel=1e-4)


def test_other_shapes_are_refused(tmp_path, data):
    model = Offset()
    model.validation_step = lambda batch, batch_idx: {"reconstruction": batch["features"][:, :9]}
    with pytest.raises(ContractError, match=r"equal shapes, got \[32, 9\] and \[32, 46\]"):
        validate(tmp_path, data, model)


def test_a_model_without_reconstruction_is_refused(tmp_path, data):
    with pytest.raises(ContractError, match=r"needs outputs\['reconstruction'\]"):
        validate(tmp_path, data, TokenModel())
