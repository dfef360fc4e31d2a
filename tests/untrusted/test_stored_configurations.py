"""Nothing that a stored configuration names is imported, called or opened."""

import importlib
import os
import subprocess
import sys

import pytest

from spinlock.errors import DatasetError
from spinlock.storage.dataset_file import DatasetFile
from tests.untrusted.entry_points import COMPUTES, ENTRIES, OWN, SLOW, try_all
from tests.untrusted.forged_configurations import (
    FORMS,
    forge,
    forms,
    huge,
    names,
    opens,
    refused,
    with_axes,
)
from tests.untrusted.scene import ROOT, Outcome, audited

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("attack", "form"), forms(refused))
def test_what_is_no_configuration_is_refused(scene, attack, form):
    text, named = refused(scene)[attack]
    forge(scene.data, text, sealed=FORMS[form])
    before = scene.data.read_bytes()

    def problem(entry, outcome):
        if not outcome.error:
            return "accepted"
        return "" if named in outcome.text else f"does not name {named}: {outcome.text}"

    try_all(scene, ENTRIES, problem)
    assert scene.data.read_bytes() == before


@pytest.mark.parametrize(("attack", "form"), forms(opens))
def test_what_a_configuration_names_stays_text(scene, attack, form, no_plots):
    text, said = opens(scene)[attack]
    forge(scene.data, text, sealed=FORMS[form])

    def problem(entry, outcome):
        if entry in OWN:
            return "" if outcome.error else "not noticed"
        if entry in COMPUTES or (entry == "extract-features" and "feature" in attack):
            if said and form == "new digests":
                parts = [said, "trust=["] if said.startswith("--") else [said]
                missing = [part for part in parts if part not in outcome.error]
                return f"does not say {missing}: {outcome.text}" if missing else ""
            return ""
        if form == "stale digests" or entry.startswith("check"):
            return ""
        return outcome.error

    slow = SLOW if (attack, form) == ("command as the operator", "new digests") else ()
    entries = [entry for entry in ENTRIES if entry in slow or entry not in SLOW]
    try_all(scene, entries, problem)


@pytest.mark.parametrize("attack", names(huge))
def test_huge_values_are_no_crash(scene, attack):
    text, named = huge(scene)[attack]
    forge(scene.data, text, sealed=False)
    entries = [entry for entry in ENTRIES if entry not in SLOW]
    # To describe such a file is no crime; a file of the user's own it is not.
    try_all(scene, entries, lambda entry, outcome: "" if outcome.error or entry not in OWN else "?")
    assert named in ENTRIES["prepare_data"](scene).error


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"gain": {"kind": ["x"], "low": 0, "high": 1}}, "operator_axes.gain: expected"),
        ({"gain": {"kind": "uniform", "low": 0, "high": 10**400}}, "operator_axes.gain: low and"),
        ({"gain": {"kind": "integer", "low": 2**70, "high": 2**70}}, "operator_axes.gain: low and"),
        ({"gain": [[1], [2]]}, "operator_axes.gain: values"),
        ({"gain": [{}, {}]}, "operator_axes.gain: values"),
        ({"gain": []}, "operator_axes.gain: at least one"),
        ({"\x1b[2J\n": [1]}, r"'\\x1b\[2J\\n' must be a name"),
        ({"g" * 65: [1]}, "must be a name of at most 64"),
        ({f"gain_{number}": [1] for number in range(257)}, "at most 256 axes"),
    ],
)
def test_axes_that_are_not_valid_make_no_dataset(scene, axes, named):
    forge(scene.data, with_axes({"class_path": f"{scene.module}.Halves"}, **axes), sealed=False)
    with pytest.raises(DatasetError, match=f"its configuration is not valid: .*{named}") as caught:
        DatasetFile.open(scene.data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    scene.assert_nothing_happened()


def test_the_attacks_would_work(scene):
    """Following the class paths of the forgeries leaves the marks that the tests look for."""
    spec = scene.shell_command
    module, _, name = spec["class_path"].rpartition(".")
    with audited() as scene.events:
        process = getattr(importlib.import_module(module), name)(**spec["init_args"])
    process.wait()
    assert scene.mark.exists()
    with pytest.raises(AssertionError, match="command ran"):
        scene.assert_nothing_happened()
    scene.mark.unlink()
    with pytest.raises(AssertionError, match="Popen"):
        scene.assert_nothing_happened()
    scene.events = []
    scene.assert_nothing_happened()
    importlib.import_module(scene.module)
    with pytest.raises(AssertionError, match="was imported"):
        scene.assert_nothing_happened()


def test_the_good_file_passes_everywhere(scene, no_plots):
    for entry in ENTRIES:
        assert not ENTRIES[entry](scene).error


@pytest.mark.parametrize(
    ("command", "attack"),
    [
        ("info", "command in the operator"),
        pytest.param("extract-features", "module as a feature", marks=pytest.mark.repeated),
    ],
)
def test_a_process_of_its_own(scene, command, attack):
    """As a user types it, where the stranger's module can be imported."""
    text, _ = (refused(scene) | opens(scene))[attack]
    forge(scene.data, text, sealed=True)
    modules = os.pathsep.join([str(scene.folder / "modules"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "spinlock", command, str(scene.data)],
        env=os.environ | {"PYTHONPATH": modules, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    scene.assert_nothing_happened(Outcome("", done.stdout + done.stderr))
    assert done.returncode == 1
    assert done.stderr.startswith("spinlock: error: ")
    assert len(done.stderr.splitlines()) == 1
