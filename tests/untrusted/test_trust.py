"""Class paths in a file are imported only if the user trusts their module."""

import contextlib
import copy
import dataclasses
import importlib
import pickle
import sys

import pytest

from spinlock import GenerationConfig, SpinlockDataModule
from spinlock.checks import check_dataset
from spinlock.errors import DatasetError
from spinlock.generation.build import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_info
from tests.helpers import dataset_contents
from tests.untrusted.entry_points import COMPUTES, ENTRIES
from tests.untrusted.forged_configurations import forge, settings, with_settings
from tests.untrusted.scene import EXTENSIONS, STRANGER

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("there", [False, True])
def test_a_file_of_custom_classes_opens_without_them(custom, there, no_plots):
    """Whether the stranger's module is there, with another content, makes no difference."""
    if there:
        custom.lay_module(STRANGER)
    outcomes = {name: ENTRIES[name](custom) for name in ("info", "read_info", "report")}
    outcomes |= {name: ENTRIES[name](custom) for name in ("plot", "export", "setup as stored")}
    assert {name: outcome.error for name, outcome in outcomes.items()} == dict.fromkeys(
        outcomes, ""
    )
    assert "positive_share" in outcomes["info"].text
    assert "stripes" in outcomes["info"].text


@pytest.mark.parametrize("there", [False, True])
def test_a_check_measures_what_needs_no_class(custom, there):
    if there:
        custom.lay_module(STRANGER)
    report = check_dataset(custom.data, full=True, replay=2, progress=False)
    custom.assert_nothing_happened()
    assert report.passed
    replay = [row for row in report.rows if row.group == "replay"]
    assert replay
    assert not any(row.measurable for row in replay)
    # It says what to do.
    assert any("trust" in row.measured and STRANGER in row.measured for row in replay)
    assert report.row("integrity", "sample digests").passed
    assert report.row("integrity", "fingerprint").passed


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("entry", ["extract-features", *COMPUTES])
def test_computing_needs_the_users_word(custom, entry, there):
    if there:
        custom.lay_module(STRANGER)
    before = custom.data.read_bytes()
    outcome = ENTRIES[entry](custom)
    assert f"--trust {STRANGER}" in outcome.error
    assert f"trust=['{STRANGER}']" in outcome.error
    assert custom.data.read_bytes() == before


def test_every_view_of_a_custom_file_is_served(custom):
    config = read_info(custom.data).config
    for view in ("features", "sequence", "fields", "both"):
        module = SpinlockDataModule(custom.data, config, view=view, progress=False, batch_size=2)
        module.setup()
        batch = next(iter(module.predict_dataloader()))
        if view != "fields":
            assert batch["features"].shape[-1] == 47
        assert module.family_names == ("gaussian_noise", "sinusoids", "waves")
    custom.assert_nothing_happened()


def test_a_trusted_module_is_replayed(custom):
    custom.lay_module(STRANGER)
    report = check_dataset(custom.data, replay=3, trust=[STRANGER], progress=False)
    replay = [row for row in report.rows if row.group == "replay"]
    assert replay
    assert all(row.passed for row in replay)
    assert custom.imported.exists()


@pytest.mark.parametrize("command", ["check", "extract-features", "report"])
def test_the_command_line_takes_modules_to_trust(custom, command, no_plots):
    custom.trusting = True
    custom.lay_module(STRANGER)
    options = ("--out", custom.folder / "report.html") if command == "report" else ()
    outcome = custom.type(command, custom.data, *options, "--trust", STRANGER)
    assert outcome.error == ""
    assert custom.imported.exists()
    if command == "check":
        assert "samples equal" in outcome.text
    if command == "report":
        page = (custom.folder / "report.html").read_text()
        assert "samples equal" in page


@pytest.mark.parametrize("command", ["check", "extract-features", "report"])
def test_help_tells_of_trust(scene, command):
    outcome = scene.type(command, "--help")
    assert "--trust" in outcome.text


def test_a_trusted_module_extends_the_file(custom):
    custom.lay_module(STRANGER)
    held = dataset_contents(custom.data)
    config = read_info(custom.data, trust=[STRANGER]).config
    generate(dataclasses.replace(config, num_samples=16), custom.data, progress=False)
    assert read_info(custom.data).config.num_samples == 16
    longer = dataset_contents(custom.data)
    assert all(longer[name][: len(old)] == old for name, old in held.items())


def test_extracting_features_with_trust(custom):
    custom.lay_module(STRANGER)
    done = extract_features(custom.data, trust=[STRANGER], progress=False)
    assert (done.samples, done.changed) == (12, 0)


@pytest.mark.parametrize(
    "trust",
    [
        [STRANGER[:-1]],
        [f"{STRANGER}.more"],
        [f"{STRANGER}s"],
        ["a", ""],
        [STRANGER.upper()],
        [f"{STRANGER}.Halves"],
        [f" {STRANGER}"],
        ["*"],
        [f"{STRANGER[:-1]}?"],
    ],
)
def test_trust_in_another_name_is_no_trust(custom, trust):
    custom.lay_module(STRANGER)
    config = dataclasses.replace(read_info(custom.data, trust=trust).config, num_samples=16)
    outcomes = [
        custom.run(lambda: generate(config, custom.data, progress=False)),
        custom.run(lambda: extract_features(custom.data, trust=trust, progress=False)),
    ]
    assert all("--trust" in outcome.error for outcome in outcomes)
    report = check_dataset(custom.data, replay=1, trust=trust, progress=False)
    assert not any(row.measurable for row in report.rows if row.group == "replay")


def test_trust_in_a_package_includes_its_modules_only(scene):
    package = scene.folder / "modules" / f"{scene.module}_package"
    package.mkdir()
    (package / "__init__.py").touch()
    for folder, name in ((package, "inside"), (package.parent, f"{package.name}s")):
        text = EXTENSIONS.format(imported=str(folder / f"{name}.mark"), used=str(scene.mark))
        (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    for module in (f"{package.name}.inside", f"{package.name}s"):
        operator = {"class_path": f"{module}.Halves"}
        forge(scene.data, with_settings(operator=operator), sealed=True)
        config = read_info(scene.data, trust=[package.name]).config
        outcome = scene.run(
            lambda c=config: generate(c, scene.folder / "longer.h5", progress=False)
        )
        assert bool(outcome.error) == (module != f"{package.name}.inside")
    assert (package / "inside.mark").exists()
    assert not (package.parent / f"{package.name}s.mark").exists()


def test_a_name_in_place_of_a_list_does_not_trust_its_letters(scene):
    scene.lay_module("e")
    forge(scene.data, with_settings(operator={"class_path": "e.Halves"}), sealed=True)
    for attempt in (
        lambda: check_dataset(scene.data, replay=1, trust="evil", progress=False),
        lambda: generate(
            dataclasses.replace(read_info(scene.data, trust="evil").config, num_samples=13),
            scene.data,
            progress=False,
        ),
    ):
        with contextlib.suppress(TypeError):
            scene.run(attempt)
        assert not scene.imported.exists()
        assert "e" not in sys.modules


@pytest.mark.parametrize("name", ["Other", "run", "Path", "torch.Generator", "nothing"])
@pytest.mark.parametrize("where", ["operator", "variant", "feature"])
def test_a_trusted_module_gives_what_is_expected_only(scene, where, name):
    scene.trusting = True
    spec = {"class_path": f"{scene.module}.{name}", "init_args": {"a": 1}}
    changes = {
        "operator": {"operator": spec},
        "variant": {"initial_conditions": {"weights": {"evil": 1.0}, "custom": {"evil": spec}}},
        "feature": {"features": {"per_field": [spec["class_path"]], "per_trajectory": []}},
    }[where]
    forge(scene.data, with_settings(**changes), sealed=True)
    # Of a configuration that the user wrote, and of one that is trusted; a file whose layout does
    # not fit its configuration gives none.
    configs = [GenerationConfig.from_dict(settings() | changes)]
    with contextlib.suppress(DatasetError):
        configs.append(read_info(scene.data, trust=[scene.module]).config)
    assert where == "variant" or len(configs) == 2
    for each in configs:
        outcome = scene.run(lambda c=each: generate(c, scene.folder / "other.h5", progress=False))
        assert outcome.error
        assert spec["class_path"] in outcome.error
        assert not (scene.folder / "other.h5").exists()
    assert not scene.mark.exists(), "it was called"


@pytest.mark.parametrize("change", ["pickle", "copy", "replace", "deepcopy"])
def test_trust_is_neither_lost_nor_won(custom, change):
    custom.lay_module(STRANGER)
    changes = {
        "pickle": lambda c: pickle.loads(pickle.dumps(c)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "replace": lambda c: dataclasses.replace(c, seed=c.seed),
    }
    untrusted = changes[change](read_info(custom.data).config)
    outcome = custom.run(lambda: generate(untrusted, custom.folder / "b.h5", progress=False))
    assert f"--trust {STRANGER}" in outcome.error
    trusted = changes[change](read_info(custom.data, trust=[STRANGER]).config)
    trusted = dataclasses.replace(trusted, num_samples=4)
    generate(trusted, custom.folder / "b.h5", progress=False)
    assert custom.imported.exists()


def test_a_module_of_a_stored_configuration_keeps_its_doubts(custom):
    """What a data module keeps in a checkpoint is no more trusted than what it was made of."""
    custom.lay_module(STRANGER)
    module = SpinlockDataModule(custom.folder / "new.h5", read_info(custom.data).config)
    again = SpinlockDataModule(**module.hparams | {"progress": False})
    outcomes = [custom.run(each.prepare_data) for each in (module, again)]
    assert all(f"--trust {STRANGER}" in outcome.error for outcome in outcomes)
