"""ICMutualInformation on the design of the baseline dataset."""

import pytest
import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.simulation.sobol_design import make_design
from tests.callbacks import (
    UPDATE_POLICIES,
    SyntheticDataModule,
    TokenModel,
)
from tests.callbacks.token_scores import random_tokens, validate


class Designed(SyntheticDataModule):
    variant_names = Mixture(GenerationConfig(1).initial_conditions).names
    variant_families = Mixture(GenerationConfig(1).initial_conditions).families
    family_names = tuple(dict.fromkeys(variant_families))


@pytest.fixture(scope="module")
def designed():
    """The design of the baseline's first 2,000 samples, as one validation split."""
    config = GenerationConfig(2000)
    design, mixture = make_design(config), Mixture(config.initial_conditions)
    data = Designed(size=2000, batch_size=250)
    families = list(dict.fromkeys(mixture.families))
    variant = torch.from_numpy(design.variant)
    columns = data.val.columns
    columns["variant"] = variant
    columns["family"] = torch.tensor([families.index(f) for f in mixture.families])[variant]
    columns["params"] = torch.from_numpy(design.params)
    policies = config.parameter_space.update_policy
    named = design.values["update_policy"].astype(str)
    columns["update_policy"] = torch.tensor([policies.index(p) for p in named])
    columns["kernel_size"] = torch.from_numpy(design.values["kernel_size"]) // 2
    return random_tokens(data)


def test_the_variant_as_token_scores_one_on_the_real_design(tmp_path, designed):
    logged = validate(tmp_path, TokenModel("variant"), designed)
    assert logged["ic/variant_ami"] == logged["ic/variant_nmi"] == 1
    assert logged["ic/variant_within_policy_ami"] == 1
    for policy in UPDATE_POLICIES:
        assert logged[f"ic/variant_ami/{policy}"] == 1
    assert logged["ic/variant_p_value"] == pytest.approx(1 / 101)
    assert logged["ic/operator_to_ic"] < 0.02
    assert max(abs(logged[key]) for key in logged if key.startswith("ic/axis_ami/")) < 0.01


def test_random_tokens_score_zero_on_the_real_design(tmp_path, designed):
    logged = validate(tmp_path, TokenModel("random"), designed)
    for label in ("variant", "family"):
        for kind in ("", "_within_policy"):
            assert abs(logged[f"ic/{label}{kind}_ami"]) < 0.01
            assert logged[f"ic/{label}{kind}_p_value"] > 0.05
            # What the adjustment and the null are for: 256 codes share a lot with anything.
            assert logged[f"ic/{label}{kind}_mi"] > 0.15
            null = logged[f"ic/{label}{kind}_mi_null_95"]
            assert logged[f"ic/{label}{kind}_mi"] < null < 2 * logged[f"ic/{label}{kind}_mi"]
        assert logged[f"ic/{label}_ami"] < logged[f"ic/{label}_ami_null_95"] < 0.01


def test_the_kernel_size_as_token_names_the_operator(tmp_path, designed):
    logged = validate(tmp_path, TokenModel("kernel_size"), designed)
    assert logged["ic/axis_ami/kernel_size"] == 1
    for label in ("variant", "family"):
        assert abs(logged[f"ic/{label}_ami"]) < 0.01
        assert abs(logged[f"ic/{label}_within_policy_ami"]) < 0.01
        assert logged[f"ic/{label}_p_value"] > 0.05
    others = [v for k, v in logged.items() if k.startswith("ic/axis_ami/") and "kernel" not in k]
    assert len(others) == 13, "14 axes vary; grid_size does not"
    assert max(map(abs, others)) < 0.01
    # ln 3 over what chance reaches.
    assert logged["ic/operator_to_ic"] > 100
