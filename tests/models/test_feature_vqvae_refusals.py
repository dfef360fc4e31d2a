"""Batches, data modules, arguments and runs that FeatureVQVAE refuses."""

import re

import pytest

from spinlock.callbacks import ContractError
from spinlock.errors import ConfigurationError
from spinlock.models import FeatureVQVAE
from tests.callbacks import SyntheticDataModule, quiet_trainer
from tests.models.small_models import CONDITIONED, SMALL, model_and_batch

KEYS = ["features", "initial_features", "variant", "index", "operator"]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_entry_is_named_with_the_existing_ones(key):
    model, batch = model_and_batch(**CONDITIONED)
    del batch[key]
    with pytest.raises(ContractError) as error:
        model.predict_step(batch, 0)
    assert f"the model needs batch['{key}'] ([B" in str(error.value)
    present = [repr(name) for name in ("features", "initial_features") if name != key]
    assert re.search(f"but the batch has the keys: {', '.join(present)}[,.]", str(error.value))


@pytest.mark.parametrize("key", ["features", "initial_features"])
def test_another_number_of_columns_is_refused(key):
    model, batch = model_and_batch(**CONDITIONED, **{f"num_{key}": 13})
    with pytest.raises(ContractError, match=rf"is \[32, 46\], expected \[B, 13\].*num_{key}"):
        model(batch)


def test_another_number_of_variants_is_refused(tmp_path):
    model, batch = model_and_batch(**CONDITIONED, num_variants=4)
    with pytest.raises(ContractError, match="has variant 5, but the model has 4"):
        model(batch)
    with pytest.raises(ConfigurationError, match=r"has 4 variants.*set model.num_variants"):
        quiet_trainer(tmp_path).fit(model, SyntheticDataModule())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalization": "layer"}, "normalization: must be one of 'variant', 'pooled', 'none'"),
        (
            {"encoder_conditions": ["update_policy"]},
            r"conditions\[0\]: must be one of 'initial_features'",
        ),
        ({"encoder_conditions": ["variant", "variant"]}, "each once"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        FeatureVQVAE(**(SMALL | settings))


def test_an_endless_run_needs_a_schedule_without_fractions(tmp_path):
    model, _ = model_and_batch()
    trainer = quiet_trainer(tmp_path, max_epochs=-1)
    with pytest.raises(ConfigurationError, match=r"length is not known; set trainer.max_epochs"):
        trainer.fit(model, SyntheticDataModule())
