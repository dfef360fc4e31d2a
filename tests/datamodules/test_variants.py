"""Ablations: variants are left out, held out or swapped, or fewer samples are used."""

import pytest
import torch

from spinlock.datamodules import SpinlockDataModule, VariantSelection
from spinlock.datamodules.labels import LabelNames
from spinlock.errors import ConfigurationError
from tests.datamodules import collect, ready
from tests.helpers import small_config

NAMES = LabelNames.of(small_config())


def chosen(**selection):
    mask = VariantSelection(**selection).mask(NAMES, "train_variants")
    return {name for name, yes in zip(NAMES.variants, mask.tolist(), strict=True) if yes}


def test_variants_are_selected_by_their_own_or_their_familys_name():
    noise = {name for name in NAMES.variants if name.startswith("gaussian_noise")}
    assert chosen() == set(NAMES.variants)
    assert chosen(include=["gaussian_noise"]) == noise
    assert chosen(include=["gaussian_noise", "sinusoids"]) == noise | {"sinusoids"}
    assert chosen(exclude=["band_limited_low"]) == set(NAMES.variants) - {"band_limited_low"}
    both = chosen(include=["gaussian_noise"], exclude=["gaussian_noise_1"])
    assert both == noise - {"gaussian_noise_1"}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"include": ["gaussian"]}, "train_variants: unknown variant or family 'gaussian'"),
        ({"exclude": list(NAMES.families)}, "train_variants: selects no variant"),
    ],
)
def test_errors_list_what_there_is(selection, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        VariantSelection(**selection).mask(NAMES, "train_variants")
    for name in (*NAMES.variants, *NAMES.families):
        assert name in str(caught.value)


def test_a_name_alone_is_no_list():
    with pytest.raises(ConfigurationError, match="include: must be a list of names, got 'sinus"):
        VariantSelection(include="sinusoids")
    for setting in ("train_variants", "eval_variants"):
        with pytest.raises(ConfigurationError, match=f"{setting}: must be a mapping"):
            SpinlockDataModule("a.h5", small_config(), **{setting: ["sinusoids"]})


def families(datamodule, loader):
    labels = collect(loader)["family"].unique().tolist()
    return {datamodule.family_names[label] for label in labels}


def test_a_family_can_be_dropped(datasets):
    selection = VariantSelection(exclude=("sinusoids",))
    datamodule = ready(*datasets["single"], train_variants=selection, val_fraction=0.3)
    left = set(datamodule.family_names) - {"sinusoids"}
    assert families(datamodule, datamodule.train_dataloader()) == left
    assert "sinusoids" not in families(datamodule, datamodule.val_dataloader())
    # Prediction includes all variants.
    assert len(collect(datamodule.predict_dataloader())["index"]) == 120
    assert datamodule.eval_parts == ("held_in",)


def test_a_family_can_be_held_out(datasets):
    datamodule = ready(
        *datasets["single"],
        train_variants=VariantSelection(exclude=("sinusoids",)),
        eval_variants="all",
        val_fraction=0.3,
        test_fraction=0.3,
    )
    assert datamodule.eval_parts == ("held_in", "held_out")
    assert "sinusoids" not in families(datamodule, datamodule.train_dataloader())
    for loaders in (datamodule.val_dataloader(), datamodule.test_dataloader()):
        held_in, held_out = loaders
        assert "sinusoids" not in families(datamodule, held_in)
        assert families(datamodule, held_out) == {"sinusoids"}
    # The two loaders partition the split.
    whole = collect(
        ready(*datasets["single"], val_fraction=0.3, test_fraction=0.3).val_dataloader()
    )
    parts = [collect(loader)["index"] for loader in datamodule.val_dataloader()]
    assert sorted(torch.cat(parts).tolist()) == whole["index"].tolist()


def test_the_distribution_can_be_swapped(datasets):
    datamodule = ready(
        *datasets["single"],
        train_variants=VariantSelection(include=("gaussian_noise", "band_limited")),
        eval_variants=VariantSelection(include=("sinusoids",)),
        val_fraction=0.3,
    )
    assert datamodule.eval_parts == ("held_out",)
    trained = families(datamodule, datamodule.train_dataloader())
    assert trained == {"gaussian_noise", "band_limited"}
    assert families(datamodule, datamodule.val_dataloader()) == {"sinusoids"}


def test_scaling_does_not_see_what_is_held_out(datasets):
    selection = VariantSelection(exclude=("gaussian_blobs",))
    datamodule = ready(*datasets["single"], train_variants=selection, signed_log=False)
    raw = collect(ready(*datasets["single"], scaling="none").predict_dataloader())
    trained = collect(datamodule.train_dataloader())["index"]
    expected = raw["features"][trained].double().mean(dim=0)
    torch.testing.assert_close(datamodule.feature_scaler.center, expected)


def test_fewer_training_samples_are_the_first_ones(datasets):
    whole = sorted(collect(ready(*datasets["single"]).train_dataloader())["index"].tolist())
    datamodule = ready(*datasets["single"], max_samples=20)
    fewer = collect(datamodule.train_dataloader())
    assert sorted(fewer["index"].tolist()) == whole[:20]
    raw = collect(ready(*datasets["single"], scaling="none").predict_dataloader())
    plain = ready(*datasets["single"], max_samples=20, signed_log=False)
    expected = raw["features"][whole[:20]].double().mean(dim=0)
    torch.testing.assert_close(plain.feature_scaler.center, expected)
    assert len(datamodule.val_dataloader().dataset) == len(
        ready(*datasets["single"]).val_dataloader().dataset
    )


def test_empty_splits_and_large_batches_list_what_there_is(datasets):
    path, config = datasets["single"]
    datamodule = ready(path, config, test_fraction=0.0)
    with pytest.raises(ConfigurationError, match=r"the test split is empty; .* 0 test"):
        datamodule.test_dataloader()
    with pytest.raises(
        ConfigurationError, match=r"batch_size: 100 is larger .* 95 train, 12 val, 13 test"
    ):
        ready(path, config, batch_size=100).train_dataloader()
    with pytest.raises(ConfigurationError, match=r"the train split is empty; there are 0 train"):
        ready(
            path,
            config,
            train_variants=VariantSelection(include=("gaussian_noise_0.25",)),
            val_fraction=0.5,
            test_fraction=0.49,
        )
