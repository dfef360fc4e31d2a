"""The contract by itself, without a trainer."""

import subprocess
import sys

import pytest
import torch

from spinlock.contract import ContractError, StepOutputs, batch_entry, data_attribute

FEATURES = torch.arange(12.0).view(2, 6)


def step(batch, outputs):
    return StepOutputs(batch, outputs, "Model", "Callback")


@pytest.mark.repeated
def test_importing_stays_light():
    code = (
        "import sys, spinlock.contract\n"
        "assert 'lightning' not in sys.modules\n"
        "import spinlock.models\n"
        "assert not [name for name in sys.modules if name.startswith('spinlock.callbacks')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_errors_are_means_over_columns():
    errors = step({"features": FEATURES}, {"reconstruction": FEATURES + 3}).errors
    assert errors.tolist() == pytest.approx([9, 9])
    sequence = torch.stack([FEATURES, FEATURES + 1], 1)
    assert step(
        {"features": sequence}, {"reconstruction": FEATURES}
    ).errors.tolist() == pytest.approx([1, 1])


def test_sets_of_probes_have_no_errors():
    sets = torch.stack([FEATURES, FEATURES + 1], 1)
    batch = {"features": sets, "index": torch.arange(4).view(2, 2)}
    with pytest.raises(ContractError, match=r"single samples, but batch\['index'\] is \[2, 2\]"):
        step(batch, {"reconstruction": FEATURES}).errors  # noqa: B018


def test_tokens_have_a_dimension_of_levels():
    assert step({}, {"tokens": torch.tensor([3, 4])}).tokens.tolist() == [[3], [4]]
    assert step({}, {"tokens": torch.tensor([[3, 4]])}).tokens.tolist() == [[3, 4]]


def test_a_batch_that_is_no_dict_is_refused():
    with pytest.raises(ContractError, match=r"the model needs batch\['index'\].*of type list"):
        batch_entry([FEATURES], "index")
    assert not step([FEATURES], None).has_entry("index")


def test_a_trainer_without_data_module_is_refused():
    with pytest.raises(ContractError, match="Callback needs the data module's variant_names"):
        data_attribute(object(), "variant_names", reader="Callback")
