"""What encoder and decoder are told: one-hot variants, unseen ones, increments."""

import pytest
import torch

from spinlock.callbacks import ContractError
from spinlock.features import PER_TIMESTEP_NAMES, extract_per_timestep
from spinlock.models.conditioning import Conditioning

F = len(PER_TIMESTEP_NAMES)


def conditioning(*conditions):
    return Conditioning(conditions, num_features=F, num_initial_features=5, num_variants=3)


def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "initial_features": torch.randn(4, 5, generator=generator),
        "variant": torch.tensor([0, 1, 1, 0]),
        "input_fields": torch.randn(4, 3, 16, 16, generator=generator),
        "output_fields": torch.randn(4, 2, 3, 16, 16, generator=generator),
    }


def test_columns_are_appended_in_order():
    values = torch.arange(8.0).view(4, 2)
    layer = conditioning("variant", "initial_features")
    assert layer.width == 8
    given = layer(values, batch())
    expected = torch.cat(
        [values, torch.eye(3)[batch()["variant"]], batch()["initial_features"]], dim=1
    )
    assert torch.equal(given, expected)
    assert torch.equal(conditioning()(values, {}), values)


def test_a_variant_that_never_occurred_in_training_is_all_zeros():
    layer = conditioning("variant")
    values = torch.zeros(3, 0)
    everything = {"variant": torch.tensor([0, 1, 2])}
    assert not layer.eval()(values, everything).any()
    layer.train()(torch.zeros(4, 0), batch())
    assert torch.equal(layer.eval()(values, everything), torch.diag(torch.tensor([1.0, 1.0, 0.0])))


def test_the_increment_is_that_of_the_first_step():
    layer = conditioning("increment").train()
    data = batch()
    given = layer(torch.zeros(4, 0), data)
    increment = data["output_fields"] - data["input_fields"][:, None]
    features = extract_per_timestep(increment[:, :, None])[:, 0]
    logarithm = features.sign() * (1 + features.abs()).log()
    scaled = (logarithm - logarithm.mean(0)) / (logarithm.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(given, scaled, rtol=1e-4, atol=1e-4)
    # Of a trajectory, the first step.
    later = torch.randn(4, 2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    longer = torch.cat([data["output_fields"][:, :, None], later], dim=2)
    torch.testing.assert_close(layer(torch.zeros(4, 0), data | {"output_fields": longer}), given)


def test_the_increment_needs_fields():
    with pytest.raises(ContractError, match=r"Model needs batch\['input_fields'\]"):
        conditioning("increment")(torch.zeros(4, 0), {"variant": batch()["variant"]})
