"""Conditioning inputs: appended columns, one-hot variants, unseen variants."""

import torch

from spinlock.models.conditioning import Conditioning


def conditioning(*conditions):
    return Conditioning(conditions, num_initial_features=5, num_variants=3)


def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "initial_features": torch.randn(4, 5, generator=generator),
        "variant": torch.tensor([0, 1, 1, 0]),
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
