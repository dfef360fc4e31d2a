"""Attributes with values that this package does not write are refused, and never interpreted."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from h5py import h5a, h5d, h5s, h5t

from spinlock import GenerationConfig
from spinlock.checks import CheckReport
from spinlock.errors import ConfigurationError
from spinlock.generation.build import generate
from spinlock.report import write_report
from spinlock.storage import read_info, schema
from tests.helpers import reseal, seal
from tests.untrusted.entry_points import ENTRIES, try_all
from tests.untrusted.forged_configurations import settings, with_mixture
from tests.untrusted.scene import CONFIG, ROOT

pytestmark = pytest.mark.slow

NO_CHECKS = CheckReport(())
ATTRIBUTES = ("package_versions", "device", "design_quality", "run_summary")
VALUES = {
    "list": "[]",
    "list of text": '["a"]',
    "number": "5",
    "null": "null",
    "text": '"text"',
    "mapping": "{}",
    "mapping of text": '{"seconds": "a", "computed_samples": "b", "centered_l2_discrepancy": []}',
    "mapping to huge numbers": json.dumps(
        dict.fromkeys(("seconds", "field_bytes", "stored_field_bytes", "computed_samples"), 10**400)
    ),
    "list of lists": "[[1, 2]]",
    "control characters": json.dumps([{"name": "\x1b]0;owned\x07", "type": "cpu"}]),
    "huge number": "9" * 5000,
    "deep": "[" * 20_000 + "]" * 20_000,
    "no JSON": "{",
    "surrogates": r'[{"name": "\ud800", "type": "\udfff"}]',
}


@pytest.mark.parametrize("value", VALUES)
def test_attributes_of_other_kinds_are_no_crash(scene, original, value, no_plots):
    problems = {}
    for name in ATTRIBUTES:
        shutil.copy(original, scene.data)
        with h5py.File(scene.data, "r+") as file:
            file.attrs[name] = VALUES[value]
            seal(file, CONFIG)
        page = scene.folder / f"{name}.html"
        actions = [
            lambda: scene.type("info", scene.data),
            lambda: scene.run(lambda: read_info(scene.data)),
            lambda p=page: scene.run(lambda: write_report(scene.data, p, checks=NO_CHECKS)),
        ]
        if name == "device" and value in ("number", "mapping of text", "list of lists"):
            longer = dataclasses.replace(CONFIG, num_samples=13)
            actions.append(
                lambda c=longer: scene.run(lambda: generate(c, scene.data, progress=False))
            )
        for action in actions:
            try:
                # What a terminal can take.
                text = action().text
                text.encode()
                assert text.replace("\n", "").isprintable()
            except Exception as error:
                problems[name] = f"{type(error).__name__}: {error}"
    assert not problems


@pytest.mark.parametrize("name", ["configuration", "fingerprint", "schema_version", *ATTRIBUTES])
def test_attributes_that_are_no_text_are_refused(scene, name):
    with h5py.File(scene.data, "r+") as file:
        file.attrs[name] = np.arange(3)
        seal(file, CONFIG)
    entries = ("info", "read_info", "setup", "generate")
    try_all(scene, entries, lambda entry, outcome: "" if name in outcome.error else "not named")


@pytest.mark.parametrize("place", ["configuration", "fingerprint", "names", "data"])
def test_types_that_numpy_lacks_are_refused(scene, place):
    """HDF5 has a type of times, which h5py cannot read."""
    name, number = schema.PER_TIMESTEP, h5t.UNIX_D32LE
    with h5py.File(scene.data, "r+") as file:
        if place == "data":
            del file[name]
            h5d.create(file.id, name.encode(), number, h5s.create_simple((12, 1, 46)))
        else:
            holder = file[name] if place == "names" else file
            del holder.attrs[place]
            h5a.create(holder.id, place.encode(), number, h5s.create(h5s.SCALAR))
    entries = ("check", "prepare_data", "setup", "extract-features")
    try_all(scene, entries, lambda entry, outcome: "" if outcome.error else "accepted")


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "$\\frac{$", "\x1b]0;owned\x07"],
    ids=["markup", "formula", "escape"],
)
def test_names_of_variants_are_text(scene, name):
    """On a page, in a plot and on a terminal."""
    conditions = {
        "weights": {name: 1.0},
        "custom": {name: {"class_path": f"{scene.module}.Stripes"}},
    }
    with pytest.raises(ConfigurationError, match="names must be ASCII letters, digits"):
        GenerationConfig.from_dict(settings() | {"initial_conditions": conditions})


def test_a_page_holds_no_markup_of_the_file(scene, no_plots):
    markup = "<script>alert(1)</script>"
    with h5py.File(scene.data, "r+") as file:
        for name in ("package_versions", "device"):
            file.attrs[name] = json.dumps([{markup: markup, "name": markup, "type": markup}])
        file.attrs["fingerprint"] = markup
        file.attrs["run_summary"] = json.dumps({"stage_seconds": {markup: 1.0}})
        custom = {"other": {"class_path": "a.B", "init_args": {"text": markup}}}
        file.attrs["configuration"] = with_mixture(custom=custom)
        file[schema.PER_TIMESTEP].attrs["names"] = [markup] * 46
        file[schema.IC_TYPES][0] = b"<script>"
    page = scene.folder / "report.html"
    write_report(scene.data, page, progress=False)
    assert "<script" not in page.read_text()


def test_labels_that_are_no_text_are_refused(scene, no_plots):
    with h5py.File(scene.data, "r+") as file:
        file[schema.IC_TYPES][3] = b"\xff\xfe\x80"
        reseal(file, CONFIG)
    entries = ("info", "setup", "plot", "export")
    try_all(scene, entries, lambda entry, outcome: "" if outcome.error else "accepted")
    assert "FAILED" in ENTRIES["report"](scene).text


@pytest.mark.parametrize("command", ["info", "check"])
def test_labels_are_no_commands_of_a_terminal(scene, command):
    with h5py.File(scene.data, "r+") as file:
        file[schema.IC_TYPES][3] = b"\x1b[31m\r"
        reseal(file, CONFIG)
    outcome = scene.type(command, scene.data)
    assert "\x1b" not in outcome.text + outcome.error
    assert (command == "check") or r"\x1b[31m\r" in outcome.text


# Opens each file in a child, and prints how it ended.
CHILDREN = """
import json, os, sys
from spinlock.checks import CheckReport, check_dataset
from spinlock.errors import SpinlockError
from spinlock.generation.feature_extraction import extract_features
from spinlock.commands.command_line import main
import spinlock.datamodules, spinlock.storage

ended = {}
for name, action, path in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            if action == "read_info":
                spinlock.storage.read_info(path)
            else:
                main([action, path])
        except (SpinlockError, SystemExit):
            os._exit(0)
        except BaseException:
            os._exit(3)
        os._exit(0)
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""

# Where an attribute is, and who reads it.
POINTERS = {
    "configuration": ("/", "configuration", "read_info"),
    "fingerprint": ("/", "fingerprint", "info"),
    "schema_version": ("/", "schema_version", "info"),
    "run_summary": ("/", "run_summary", "info"),
    "checked": ("/", "design_quality", "check"),
    "names": (schema.PER_TIMESTEP, "names", "check"),
    "verified": (schema.PER_TIMESTEP, "names", "extract-features"),
    "the user's own": ("/", "note", "extract-features"),
    "the user's own, of a dataset": (schema.PARAMS, "note", "extract-features"),
}


@pytest.fixture(scope="module")
def endings(original, tmp_path_factory):
    """How readers of attributes end whose type h5py takes for pointers to Python objects.

    h5py reads the tag of an opaque type, ``NUMPY:|O``, as a dtype: the bytes in the file become the
    address of a Python object.
    """
    folder, cases = tmp_path_factory.mktemp("pointers"), []
    for number, (name, (where, attribute, action)) in enumerate(POINTERS.items()):
        path = folder / f"{number}.h5"
        shutil.copy(original, path)
        with h5py.File(path, "r+") as file:
            file[schema.PER_TIMESTEP][0, 0, 0] += 1.0
            reseal(file, CONFIG)
            if attribute in file[where].attrs:
                del file[where].attrs[attribute]
            kind = h5t.create(h5t.OPAQUE, 8)
            kind.set_tag(b"HARMLESS")
            made = h5a.create(file[where].id, attribute.encode(), kind, h5s.create(h5s.SCALAR))
            made.write(np.array(np.void(b"A" * 8)), mtype=kind)
        content = path.read_bytes()
        assert content.count(b"HARMLESS") == 1
        path.write_bytes(content.replace(b"HARMLESS", b"NUMPY:|O"))
        cases.append((name, action, str(path)))
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, json.dumps(cases)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", POINTERS)
def test_bytes_of_a_file_are_not_taken_for_objects(endings, name):
    assert endings[name] != -signal.SIGSEGV, "an address from the file was followed"
    assert endings[name] == 0
