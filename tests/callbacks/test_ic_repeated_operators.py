"""ICMutualInformation on operators with several probes: the operator null."""

from math import log

import pytest
import torch

from spinlock import metrics
from spinlock.callbacks.epoch_tables import by_index
from tests.callbacks import FAMILY_OF_VARIANT, UPDATE_POLICIES, SyntheticDataModule, TokenModel
from tests.callbacks.token_scores import ic_information, random_tokens, validate


def case(size=600, probes=3, codes=9):
    """Tokens of the operator in half of the samples, at random in the others.

    The variants of an operator differ, as in the design of a dataset.
    """
    data = random_tokens(SyntheticDataModule(size, probes=probes), codes)
    columns = data.val.columns
    generator = torch.Generator().manual_seed(1)
    variants = torch.rand(size // probes, 6, generator=generator).argsort(1)
    columns["variant"] = variants[:, :probes].flatten()
    columns["family"] = FAMILY_OF_VARIANT[columns["variant"]]
    coin = torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.5
    columns["random"] = torch.where(coin, columns["operator"] % codes, columns["random"])
    return data


def table(tokens, labels):
    shape = (int(tokens.max()) + 1, int(labels.max()) + 1)
    return torch.bincount(tokens * shape[1] + labels, minlength=shape[0] * shape[1]).view(shape)


def within_policies(tokens, labels, policy):
    shares = policy.bincount(minlength=3).double() / len(policy)
    return sum(
        shares[n] * metrics.mutual_information(table(tokens[policy == n], labels[policy == n]))
        for n in range(3)
    )


def test_the_null_is_that_of_variants_permuted_among_and_within_operators(tmp_path):
    data = case()
    callback = ic_information(permutations=30, seed=4)
    logged = validate(tmp_path, TokenModel("random"), data, callback)
    columns = data.val.columns
    tokens, operator, policy = (columns[k] for k in ("random", "operator", "update_policy"))
    (permuted,) = metrics.group_permutations(
        columns["variant"], operator, strata=policy, permutations=30, seed=4
    )
    for label, of_variant in (("variant", torch.arange(6)), ("family", FAMILY_OF_VARIANT)):
        own = of_variant[columns["variant"]]
        null = torch.stack(
            [metrics.mutual_information(table(tokens, of_variant[p])) for p in permuted]
        )
        observed = metrics.mutual_information(table(tokens, own))
        excess = (observed - null.mean()).item()
        assert logged[f"ic/{label}_mi_excess"] == pytest.approx(excess, rel=1e-4)
        quantile = null.quantile(0.95).item()
        assert logged[f"ic/{label}_mi_null_95"] == pytest.approx(quantile, rel=1e-5)
        p_value = metrics.permutation_p_value(observed, null).item()
        assert logged[f"ic/{label}_p_value"] == pytest.approx(p_value)
        entropies = [metrics.mutual_information(table(x, x)) for x in (tokens, own)]
        room = sum(entropies) / 2 - null.mean()
        assert logged[f"ic/{label}_ami"] == pytest.approx((excess / room).item(), rel=1e-4)
        quantile = ((null.quantile(0.95) - null.mean()) / room).item()
        assert logged[f"ic/{label}_ami_null_95"] == pytest.approx(quantile, rel=1e-4)
        given = torch.stack([within_policies(tokens, of_variant[p], policy) for p in permuted])
        quantile = given.quantile(0.95).item()
        assert logged[f"ic/{label}_within_policy_mi_null_95"] == pytest.approx(quantile, rel=1e-5)
        for number, name in enumerate(UPDATE_POLICIES):
            mine = policy == number
            counts = table(tokens[mine], own[mine])
            each = [
                metrics.mutual_information(table(tokens[mine], of_variant[p][mine]))
                for p in permuted
            ]
            ami = metrics.adjusted_mutual_information(counts, expected=torch.stack(each).mean())
            assert logged[f"ic/{label}_ami/{name}"] == pytest.approx(ami.item(), rel=1e-4)


def test_tokens_that_name_operators_have_no_information(tmp_path):
    data = case()
    columns = data.val.columns
    columns["random"] = columns["operator"] % 200
    logged = validate(tmp_path, TokenModel("random"), data)
    for label in ("variant", "family"):
        for score in ("mi_excess", "ami", "ami_null_95", "within_policy_ami"):
            assert logged[f"ic/{label}_{score}"] == pytest.approx(0, abs=1e-6)
        assert logged[f"ic/{label}_p_value"] == logged[f"ic/{label}_within_policy_p_value"] == 1
    # Samples that do not say which operator is theirs are taken to be independent.
    del columns["operator"]
    logged = validate(tmp_path, TokenModel("random"), data)
    assert logged["ic/variant_mi_excess"] < -0.1
    assert logged["ic/variant_ami"] < -0.05


def test_tokens_that_name_the_family_have_all_information(tmp_path):
    data = case()
    logged = validate(tmp_path, TokenModel("family"), data)
    assert logged["ic/family_ami"] == 1
    assert logged["ic/family_p_value"] == pytest.approx(1 / 101)
    assert logged["ic/family_mi_excess"] > 0.8 * logged["ic/family_mi"]


@pytest.mark.parametrize("singles", [0, 250])
def test_what_differs_between_operators_is_information(tmp_path, singles):
    """Two probes, of the families 0 and 2 or 1 and 3; some operators have lost a probe."""
    data = case(probes=2)
    columns = data.val.columns
    place = torch.arange(600)
    kind = torch.randint(2, (300,), generator=torch.Generator().manual_seed(2))[place // 2]
    columns["random"], columns["family"] = kind, kind + 2 * (place % 2)
    columns["variant"] = torch.tensor([0, 2, 4, 5])[columns["family"]]
    kept = (place // 2 >= singles) | (place % 2 == place // 2 % 2)
    data.val.columns = {key: column[kept] for key, column in columns.items()}
    for key, information in (("random", log(2)), ("family", 2 * log(2))):
        logged = validate(tmp_path, TokenModel(key), data)
        assert logged["ic/family_mi_excess"] == pytest.approx(information, abs=0.05)
        assert logged["ic/family_p_value"] == logged["ic/variant_p_value"] == pytest.approx(1 / 101)
    assert logged["ic/family_ami"] == 1


def test_order_repetition_and_batches_do_not_matter(tmp_path):
    data = case()
    expected = validate(tmp_path, TokenModel("random"), data)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    order = torch.cat([order, order[:7]])
    data.val.columns = {key: column[order] for key, column in data.val.columns.items()}
    data.batch_size = 77
    assert validate(tmp_path, TokenModel("random"), data) == pytest.approx(expected, abs=1e-6)
    assert len(by_index(data.val.columns)["index"]) == 600


def test_one_probe_is_as_before(tmp_path):
    data = case(probes=1)
    expected = validate(tmp_path, TokenModel("random"), data)
    del data.val.columns["operator"]
    assert validate(tmp_path, TokenModel("random"), data) == expected


def test_levels_have_their_own_chance(tmp_path):
    data = case(codes=4)
    columns = data.val.columns
    first = columns["random"]
    columns["parts"] = torch.stack([first, (columns["family"] + first) % 4], 1)
    logged = validate(tmp_path, TokenModel("parts"), data)
    (permuted,) = metrics.group_permutations(
        columns["variant"],
        columns["operator"],
        strata=columns["update_policy"],
        permutations=100,
    )
    for level, tokens in enumerate(columns["parts"].unbind(1)):
        null = [metrics.mutual_information(table(tokens, p)) for p in permuted]
        ami = metrics.adjusted_mutual_information(
            table(tokens, columns["variant"]), expected=torch.stack(null).mean()
        )
        assert logged[f"ic/variant_ami/level_{level}"] == pytest.approx(ami.item(), rel=1e-4)
    assert logged["ic/family_ami"] > 0.3


def test_axes_of_an_operator_count_once(tmp_path):
    """Otherwise tokens that name operators would have information about every axis."""
    data = case(probes=4)
    columns = data.val.columns
    generator = torch.Generator().manual_seed(0)
    columns["random"] = torch.randint(9, (2000,), generator=generator)[columns["operator"]]
    many = validate(tmp_path, TokenModel("random"), data)
    first = columns["index"] % 4 == 0
    data.val.columns = {key: column[first] for key, column in columns.items()}
    once = validate(tmp_path, TokenModel("random"), data)
    axes = [key for key in once if key.startswith("ic/axis_ami/")]
    assert {key: many[key] for key in axes} == pytest.approx({key: once[key] for key in axes})
    assert abs(sum(many[key] for key in axes)) / len(axes) < 0.02
