"""ICMutualInformation against known dependence, and in every way that Lightning runs it."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from sklearn import metrics as oracle

from spinlock import metrics
from spinlock.callbacks import ContractError, FiniteCheck, ICMutualInformation
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import PARAMETER_NAMES
from spinlock.configuration.variant_mixture import Mixture
from spinlock.simulation.sobol_design import make_design
from tests.callbacks import (
    FAMILY_OF_VARIANT,
    UPDATE_POLICIES,
    SyntheticDataModule,
    TokenModel,
    quiet_trainer,
)


def random_tokens(data, codes=256):
    """Adds to every split a column ``random`` of tokens that depend on nothing."""
    generator = torch.Generator().manual_seed(3)
    for split in (data.train, data.val, data.test):
        split.columns["random"] = torch.randint(codes, (len(split),), generator=generator)
    return data


def ic_information(**settings):
    return ICMutualInformation(plots_every_n_epochs=0, detailed=True, **settings)


def validate(tmp_path, model, data, *callbacks, **settings):
    trainer = quiet_trainer(tmp_path, *(callbacks or [ic_information()]), **settings)
    (logged,) = trainer.validate(model, data, verbose=False)
    return logged


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


class Recorder(Callback):
    """Keeps what is logged when training starts and at the end of every validation."""

    def __init__(self):
        self.at_start = None
        self.epochs = []

    def on_train_start(self, trainer, pl_module):
        self.at_start = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.epochs.append(dict(trainer.callback_metrics))


class NotLoggingWhileSanityChecking(TokenModel):
    def log_dict(self, *args, **kwargs):
        assert not self.trainer.sanity_checking
        super().log_dict(*args, **kwargs)


def test_sanity_checking_is_not_logged_and_epochs_do_not_mix(tmp_path):
    data, recorder = random_tokens(SyntheticDataModule(), codes=5), Recorder()
    settings = {"max_epochs": 2, "limit_train_batches": 1, "num_sanity_val_steps": 1}
    trainer = quiet_trainer(tmp_path, ic_information(), recorder, **settings)
    trainer.fit(NotLoggingWhileSanityChecking("random"), data)
    alone = validate(tmp_path, TokenModel("random"), data)
    assert recorder.at_start == {}
    assert recorder.epochs == [alone, alone]


def test_order_of_callbacks_does_not_matter(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    logged = []
    for order in (1, -1):
        stopping = EarlyStopping("ic/variant_ami", patience=5)
        callbacks = [stopping, FiniteCheck(), ic_information()][::order]
        trainer = quiet_trainer(tmp_path, *callbacks, limit_train_batches=1)
        trainer.fit(TokenModel("random"), data)
        logged.append(trainer.callback_metrics)
    assert logged[0] == logged[1]
    assert len(logged[0]) > 30


def test_several_validation_loaders_are_pooled(tmp_path):
    data = random_tokens(SyntheticDataModule(), codes=5)
    halves = torch.utils.data.random_split(data.val, [40, 56])
    loaders = [torch.utils.data.DataLoader(half, batch_size=16) for half in halves]
    expected = validate(tmp_path, TokenModel("random"), data)
    data.val_dataloader = lambda: loaders
    model = TokenModel("random")
    model.validation_step = lambda batch, batch_idx, dataloader_idx: {"tokens": batch["random"]}
    trainer = quiet_trainer(tmp_path, ic_information())
    logged = trainer.validate(model, data, verbose=False)
    assert logged[0] == pytest.approx(expected, abs=1e-6)


def test_tokens_beyond_the_codebook_are_refused(tmp_path):
    model = TokenModel("index")
    model.codebook_size = 8
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 8\), got values from 1000"):
        validate(tmp_path, model, SyntheticDataModule())


class LossOnly(TokenModel):
    def validation_step(self, batch, batch_idx):
        return {"loss": batch["features"].mean(), "reconstruction": batch["features"]}


class BareLoss(TokenModel):
    def validation_step(self, batch, batch_idx):
        return batch["features"].mean()


class Silent(TokenModel):
    def validation_step(self, batch, batch_idx):
        return None


class ListOfTokens(TokenModel):
    def validation_step(self, batch, batch_idx):
        return {"tokens": batch["variant"].tolist()}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (LossOnly(), "has the keys: 'loss', 'reconstruction'"),
        (BareLoss(), "is of type Tensor"),
        (Silent(), "is of type NoneType"),
        (ListOfTokens(), "has a list under that key"),
    ],
)
def test_a_model_without_tokens_is_refused_before_training(tmp_path, model, found):
    trainer = quiet_trainer(tmp_path, ic_information())
    with pytest.raises(ContractError) as error:
        trainer.fit(model, SyntheticDataModule())
    name = type(model).__name__
    step = f"{name}'s validation_step or test_step"
    assert str(error.value) == (
        "ICMutualInformation needs outputs['tokens'] ([B] or [B, Q] int64, the codebook index of "
        f"each sample), but the output of {step} {found}. Return it from {step}."
    )
    assert trainer.global_step == 0


@pytest.mark.parametrize("key", ["variant", "update_policy"])
def test_a_batch_without_labels_is_refused(tmp_path, key):
    data = SyntheticDataModule()
    del data.val.columns[key]
    keys = ", ".join(repr(k) for k in data.val.columns)
    with pytest.raises(ContractError) as error:
        validate(tmp_path, TokenModel("index"), data)
    message = str(error.value)
    assert message.startswith(f"ICMutualInformation needs batch['{key}'] ([B] int64, ")
    assert f"but the batch has the keys: {keys}." in message


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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("variant", -1, r"variant must be in \[0, 6\), got values from -1 to 5"),
        ("variant", 6, r"variant must be in \[0, 6\), got values from 0 to 6"),
        ("update_policy", 3, r"update_policy must be in \[0, 3\), got values from 0 to 3"),
    ],
)
def test_a_label_that_has_no_name_is_refused(tmp_path, key, value, message):
    """It would be counted as another label's."""
    data = SyntheticDataModule()
    data.val.columns[key][5] = value
    with pytest.raises(ValueError, match=message):
        validate(tmp_path, TokenModel("index"), data)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_labels_of_small_types_are_counted_right(tmp_path, dtype):
    """Combinations of labels have numbers beyond those of small types."""
    data = random_tokens(SyntheticDataModule(), codes=5)
    expected = validate(tmp_path, TokenModel("random"), data)
    for key in ("variant", "update_policy"):
        data.val.columns[key] = data.val.columns[key].to(dtype)
    assert validate(tmp_path, TokenModel("random"), data) == expected


def test_a_label_that_is_no_number_of_a_class_is_refused(tmp_path):
    data = SyntheticDataModule()
    data.val.columns["variant"] = data.val.columns["variant"][:, None]
    with pytest.raises(ValueError, match=r"variant must be integers \[B\], got \[\d+, 1\]"):
        validate(tmp_path, TokenModel("family"), data)


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
    kinds = ("ami", "ami_null_95", "p_value", "within_policy_ami")
    assert logged.keys() == {
        f"ic/{label}_{kind}" for label in ("variant", "family") for kind in kinds
    }
    assert logged == {key: whole[key] for key in logged}


@pytest.mark.parametrize(("threshold", "exceeded"), [(0.5, True), (1.0, False)])
def test_threshold_warns(tmp_path, threshold, exceeded):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        validate(
            tmp_path,
            TokenModel("variant"),
            SyntheticDataModule(),
            ic_information(threshold=threshold),
        )
    said = [str(w.message) for w in caught if "above the threshold" in str(w.message)]
    assert len(said) == exceeded
    if exceeded:
        assert (
            "_ami is 1.000, above the threshold of 0.5 in 1 successive validation epoch(s)"
            in said[0]
        )


def test_threshold_stops_training_after_its_patience(tmp_path):
    callback = ic_information(threshold=0.5, on_threshold="stop", patience=3)
    trainer = quiet_trainer(tmp_path, callback, max_epochs=9, limit_train_batches=1)
    with pytest.warns(RuntimeWarning, match="training stops"):
        trainer.fit(TokenModel("variant"), SyntheticDataModule())
    assert trainer.current_epoch == 3
    assert trainer.state.finished


def test_patience_is_restored_from_a_checkpoint(tmp_path):
    def fit(epochs, checkpoint):
        callback = ic_information(threshold=0.5, on_threshold="stop", patience=3)
        trainer = quiet_trainer(tmp_path, callback, max_epochs=epochs, limit_train_batches=1)
        trainer.fit(TokenModel("variant"), SyntheticDataModule(), ckpt_path=checkpoint)
        return trainer

    first = fit(2, None)
    first.save_checkpoint(tmp_path / "two.ckpt")
    with pytest.warns(RuntimeWarning, match="training stops"):
        resumed = fit(9, tmp_path / "two.ckpt")
    assert resumed.current_epoch == 3


def test_every_n_epochs(tmp_path):
    recorder = Recorder()
    callback = ic_information(every_n_epochs=2)
    settings = {"max_epochs": 4, "limit_train_batches": 1, "num_sanity_val_steps": 0}
    trainer = quiet_trainer(tmp_path, callback, recorder, **settings)
    seen = []
    callback._finish = lambda trainer, pl_module: seen.append(trainer.current_epoch) or {}
    trainer.fit(TokenModel("variant"), SyntheticDataModule())
    assert seen == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_threshold": "raise"}, "on_threshold: must be one of warn, stop, got 'raise'"),
        ({"patience": 0}, "patience: must be at least 1, got 0"),
        ({"permutations": 0}, "permutations: must be at least 1, got 0"),
        ({"every_n_epochs": 0}, "every_n_epochs: must be at least 1, got 0"),
        ({"plots_every_n_epochs": -1}, "plots_every_n_epochs: must be at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ICMutualInformation(**arguments)
