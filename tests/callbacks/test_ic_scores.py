"""The scores of ICMutualInformation against independent implementations."""

import pytest
import torch
from sklearn import metrics as oracle

from spinlock import metrics
from spinlock.callbacks import ICMutualInformation
from spinlock.configuration.parameter_space import PARAMETER_NAMES
from tests.callbacks import (
    FAMILY_OF_VARIANT,
    UPDATE_POLICIES,
    SyntheticDataModule,
    TokenModel,
)
from tests.callbacks.token_scores import ic_information, random_tokens, validate


def test_tokens_that_are_the_variant_score_one(tmp_path):
    data = SyntheticDataModule()
    logged = validate(tmp_path, TokenModel("variant"), data)
    variants, families = data.val.columns["variant"], data.val.columns["family"]
    assert logged["ic/variant_ami"] == logged["ic/variant_nmi"] == 1
    for label, values in (("variant", variants), ("family", families)):
        entropy = oracle.mutual_info_score(values, values)
        assert logged[f"ic/{label}_mi"] == pytest.approx(entropy, rel=1e-6)
    assert 0 < logged["ic/family_ami"] < 1


def test_tokens_that_are_random_score_zero(tmp_path):
    data = random_tokens(SyntheticDataModule(size=2000, batch_size=250))
    logged = validate(tmp_path, TokenModel("random"), data)
    for label in ("variant", "family"):
        assert abs(logged[f"ic/{label}_ami"]) < 0.01
        # What the adjustment is for: 256 codes share a lot with anything, by chance.
        assert logged[f"ic/{label}_mi"] > 0.15


@pytest.mark.parametrize("batch_size", [7, 96])
@pytest.mark.parametrize("limit", [1.0, 3])
def test_scores_are_those_of_all_samples_seen(tmp_path, batch_size, limit):
    data = random_tokens(SyntheticDataModule(batch_size=batch_size), codes=5)
    logged = validate(tmp_path, TokenModel("random"), data, limit_val_batches=limit)
    seen = min(96, 3 * batch_size) if limit == 3 else 96
    tokens = data.val.columns["random"][:seen]
    for label, key in (("variant", "variant"), ("family", "family")):
        labels = data.val.columns[key][:seen]
        mi = oracle.mutual_info_score(labels, tokens)
        assert logged[f"ic/{label}_mi"] == pytest.approx(mi, rel=1e-5)
        cells = len(set(zip(labels.tolist(), tokens.tolist(), strict=True)))
        excess = len(labels.unique()) + len(tokens.unique()) - cells - 1
        corrected = mi + excess / (2 * seen)
        assert logged[f"ic/{label}_mi_corrected"] == pytest.approx(corrected, rel=1e-4)
        nmi = oracle.normalized_mutual_info_score(labels, tokens)
        assert logged[f"ic/{label}_nmi"] == pytest.approx(nmi, rel=1e-5)
        ami = oracle.adjusted_mutual_info_score(labels, tokens)
        assert logged[f"ic/{label}_ami"] == pytest.approx(ami, rel=1e-4)


def test_scores_within_policies_are_those_of_their_samples(tmp_path):
    data = random_tokens(SyntheticDataModule(size=900), codes=5)
    columns = data.val.columns
    # The token is the variant under one policy, rotated under another, random under the third.
    rotated = (columns["variant"] + 2) % 6
    tokens = torch.where(columns["update_policy"] == 0, columns["variant"], rotated)
    columns["random"] = torch.where(columns["update_policy"] == 2, columns["random"], tokens)
    logged = validate(tmp_path, TokenModel("random"), data)
    weights, informations, counts = [], [], []
    for number, policy in enumerate(UPDATE_POLICIES):
        mine = columns["update_policy"] == number
        labels, found = columns["variant"][mine], columns["random"][mine]
        ami = oracle.adjusted_mutual_info_score(labels, found)
        nmi = oracle.normalized_mutual_info_score(labels, found)
        assert logged[f"ic/variant_ami/{policy}"] == pytest.approx(ami, rel=1e-4, abs=1e-6)
        assert logged[f"ic/variant_nmi/{policy}"] == pytest.approx(nmi, rel=1e-4)
        informations.append(oracle.mutual_info_score(labels, found))
        weights.append(mine.double().mean().item())
        counts.append(torch.bincount(found * 6 + labels, minlength=36).view(6, 6))
    given = sum(w * i for w, i in zip(weights, informations, strict=True))
    assert logged["ic/variant_within_policy_mi"] == pytest.approx(given, rel=1e-5)
    adjusted = metrics.conditional_mutual_information(torch.stack(counts), adjusted=True)
    assert logged["ic/variant_within_policy_ami"] == pytest.approx(adjusted.item(), rel=1e-5)
    assert logged["ic/variant_within_policy_ami"] > 2 * logged["ic/variant_ami"] > 0


def test_the_null_is_that_of_variants_permuted_within_policies(tmp_path):
    """A family is a function of the variant, so one permutation serves both labels."""
    data = random_tokens(SyntheticDataModule(size=300), codes=7)
    columns = data.val.columns
    logged = validate(tmp_path, TokenModel("random"), data, ic_information(permutations=40, seed=3))
    cells = (columns["update_policy"] * 7 + columns["random"]) * 6 + columns["variant"]
    counts = torch.bincount(cells, minlength=126).view(3, 7, 6)
    drawn = metrics.permuted_tables(counts, permutations=40, seed=3)
    tables = torch.stack([torch.from_numpy(table) for table in drawn])
    members = torch.nn.functional.one_hot(FAMILY_OF_VARIANT)
    for label, null, counted in (
        ("variant", tables, counts),
        ("family", tables @ members, counts @ members),
    ):
        for key, information, stack, observed in (
            ("", metrics.mutual_information, null.sum(1), counted.sum(0)),
            ("_within_policy", metrics.conditional_mutual_information, null, counted),
        ):
            values = torch.stack([information(table) for table in stack])
            quantile = values.quantile(0.95).item()
            assert logged[f"ic/{label}{key}_mi_null_95"] == pytest.approx(quantile, rel=1e-5)
            p_value = metrics.permutation_p_value(information(observed), values).item()
            assert logged[f"ic/{label}{key}_p_value"] == pytest.approx(p_value)
        amis = metrics.adjusted_mutual_information(null.sum(1))
        quantile = amis.quantile(0.95).item()
        assert logged[f"ic/{label}_ami_null_95"] == pytest.approx(quantile, rel=1e-5)


@pytest.mark.parametrize("key", ["variant", "zero"])
def test_the_null_of_degenerate_tokens_is_finite(tmp_path, key):
    data = SyntheticDataModule()
    for split in (data.train, data.val, data.test):
        split.columns["zero"] = torch.zeros(96, dtype=torch.int64)
        if key == "zero":
            split.columns["variant"] = split.columns["zero"]
    logged = validate(tmp_path, TokenModel(key), data)
    assert all(-1 <= logged[f"ic/{label}_ami_null_95"] <= 1 for label in ("variant", "family"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_labels_of_small_types_are_counted_right(tmp_path, dtype):
    """Combinations of labels have numbers beyond those of small types."""
    data = random_tokens(SyntheticDataModule(), codes=5)
    expected = validate(tmp_path, TokenModel("random"), data)
    for key in ("variant", "update_policy"):
        data.val.columns[key] = data.val.columns[key].to(dtype)
    assert validate(tmp_path, TokenModel("random"), data) == expected


def test_axes_are_cut_as_documented(tmp_path):
    """Choices and short ranges by value, others in terciles, against the typed values."""
    data = random_tokens(SyntheticDataModule(size=600), codes=4)
    columns = data.val.columns
    unit = columns["params"].numpy()
    values = data.parameter_space.values(unit)
    logged = validate(tmp_path, TokenModel("random"), data)
    for column, axis in enumerate(PARAMETER_NAMES):
        distinct = len(set(values[axis].tolist()))
        if axis == "grid_size":
            assert f"ic/axis_ami/{axis}" not in logged
            continue
        labels = values[axis].astype(str) if distinct <= 16 else (3 * unit[:, column]).astype(int)
        assert distinct <= 16 or axis not in ("num_layers", "kernel_size", "noise_type")
        expected = oracle.adjusted_mutual_info_score(labels, columns["random"])
        assert logged[f"ic/axis_ami/{axis}"] == pytest.approx(expected, rel=1e-3, abs=1e-6), axis


def test_operator_to_ic_by_hand(tmp_path):
    data = SyntheticDataModule(size=600)
    columns = data.val.columns
    kernel = (3 * columns["params"][:, 2]).long()
    columns["random"] = torch.where(columns["index"] % 2 == 0, kernel, columns["variant"] % 3)
    logged = validate(tmp_path, TokenModel("random"), data)

    def above(labels):
        counts = torch.bincount(columns["random"] * 40 + labels, minlength=120).view(3, 40)
        chance = metrics.expected_mutual_information(counts)
        return (metrics.mutual_information(counts) - chance).item()

    classes = {axis: 3 for axis in PARAMETER_NAMES if axis != "grid_size"}
    classes |= {"num_layers": 4, "noise_type": 2}
    axes = sum(
        above((columns["params"][:, PARAMETER_NAMES.index(axis)] * n).long())
        for axis, n in classes.items()
    )
    expected = axes / above(columns["variant"])
    assert logged["ic/operator_to_ic"] == pytest.approx(expected, rel=1e-4)
    assert expected > 0.3


def test_residual_tokens_report_the_joint_and_each_level(tmp_path):
    data = random_tokens(SyntheticDataModule(size=600), codes=3)
    columns = data.val.columns
    # Neither part has information about the variant; together they determine it.
    first = columns["random"] % 3
    columns["parts"] = torch.stack([first, (columns["variant"] + first) % 6], 1)
    logged = validate(tmp_path, TokenModel("parts"), data)
    expected = oracle.adjusted_mutual_info_score(
        columns["variant"], columns["parts"][:, 0] * 6 + columns["parts"][:, 1]
    )
    assert logged["ic/variant_ami"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0.7
    for level in range(2):
        ami = oracle.adjusted_mutual_info_score(columns["variant"], columns["parts"][:, level])
        assert logged[f"ic/variant_ami/level_{level}"] == pytest.approx(ami, rel=1e-3, abs=1e-6)


def test_default_scores_need_no_parameters(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    whole = validate(tmp_path, TokenModel("random"), data)
    for key in ("params", "family"):
        del data.val.columns[key]
    callback = ICMutualInformation(plots_every_n_epochs=0)
    logged = validate(tmp_path, TokenModel("random"), data, callback)
    kinds = ("ami", "ami_null_95", "p_value", "mi_excess", "within_policy_ami")
    assert logged.keys() == {
        f"ic/{label}_{kind}" for label in ("variant", "family") for kind in kinds
    }
    assert logged == {key: whole[key] for key in logged}
