"""A file says which of its samples which device and packages have computed."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, strategies as st

from spinlock.generation import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.runtime import device_record as records
from spinlock.storage import origins, read_info
from spinlock.storage.origins import merged_records, records_of, with_features
from tests.helpers import small_config

SIZE = 12


@pytest.fixture
def other_device(monkeypatch):
    """Let this machine pass for another one."""

    def change(**changes):
        here = records.device_record(torch.device("cpu"))
        monkeypatch.setattr(
            "spinlock.simulation.provenance.device_record", lambda device: here | changes
        )
        return here | changes

    return change


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=SIZE), st.integers(1, 4))
def test_every_sample_has_the_record_of_what_computed_it(computers, step):
    """However the samples are spread over files, and after another merge of the merged file."""
    files = [
        ([{"name": name}], range(index, index + 1), range(index, index + 1))
        for index, name in enumerate(computers)
    ]
    half = len(computers) // step
    first = merged_records(files[:half], half) if half else []
    merged = merged_records([(first, range(half), range(half)), *files[half:]], len(computers))
    assert ["samples" in r for r in merged] == [len(set(computers)) > 1] * len(merged)
    for index, name in enumerate(computers):
        assert records_of(merged, index) == [{"name": name}]


def test_older_files_do_not_say_which_samples_their_records_describe():
    older = [{"name": "a"}, {"name": "b"}]
    assert records_of(older, 0) is None
    files = [(older, range(4), range(4)), ([{"name": "b"}], range(4, 8), range(4, 8))]
    assert merged_records(files, 8) == older


def test_parts_of_a_file_that_are_not_taken_do_not_count():
    files = [([{"name": "a"}], range(8), range(4)), ([{"name": "b"}], range(2, 8), range(4, 8))]
    assert merged_records(files, 8) == [
        {"name": "a", "samples": "0..3"},
        {"name": "b", "samples": "4..7"},
    ]


def test_more_ranges_than_an_attribute_holds_are_left_out(monkeypatch):
    monkeypatch.setattr(origins, "_MOST_RANGES", 3)
    files = [([{"name": "ab"[i % 2]}], range(i, i + 1), range(i, i + 1)) for i in range(4)]
    assert merged_records(files, 4) == [{"name": "a"}, {"name": "b"}]


@pytest.mark.parametrize("text", ["1..", "x", "", "2..1, a", 3, None, ["0..1"]])
def test_ranges_that_cannot_be_read_describe_no_sample(text):
    found = records_of([{"name": "a", "samples": text}], 0)
    assert found is None


def test_features_that_were_computed_again_have_records_of_their_own():
    here, there = [{"name": "a"}], [{"name": "b"}]
    assert with_features(here, here, 4, 8) == here
    some = with_features(here, there, 4, 8)
    assert some == [*here, {"name": "b", "part": "features", "samples": "0..3"}]
    assert records_of(some, 2) == [*here, {"name": "b", "part": "features"}]
    assert records_of(some, 6) == here
    assert with_features(some, [{"name": "c"}], 8, 8) == [*here, {"name": "c", "part": "features"}]


def test_extending_on_another_device_records_the_samples_of_each(tmp_path, other_device):
    path = tmp_path / "a.h5"
    options = {"device": "cpu", "progress": False}
    generate(small_config(8, num_realizations=1), path, **options)
    (here,) = read_info(path).provenance["device"]
    there = other_device(name="another")
    generate(small_config(12, num_realizations=1), path, **options)
    assert read_info(path).provenance["device"] == [
        here | {"samples": "0..7"},
        there | {"samples": "8..11"},
    ]
    assert len(read_info(path).provenance["package_versions"]) == 1


def test_the_record_of_a_gpu_names_what_decides_its_bytes(monkeypatch, tmp_path):
    properties = SimpleNamespace(
        name="NVIDIA H100", major=9, minor=0, multi_processor_count=132, total_memory=85_000_000_000
    )
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release\nGCC 12.3\n"
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90501)
    monkeypatch.setattr(records, "_NVIDIA_DRIVER", tmp_path / "version")
    assert records.device_record(torch.device("cuda:1")) == {
        "type": "cuda",
        "name": "NVIDIA H100",
        "compute_capability": "9.0",
        "multiprocessors": "132",
        "memory": "85 GB",
        "cuda": "12.6",
        "cudnn": "90501",
        "driver": "560.35.03",
    }


@pytest.mark.parametrize(
    ("info", "model"),
    [
        (
            "processor : 0\nmodel name\t: AMD  EPYC 9654\x1b\n\nmodel name\t: other\n",
            "AMD EPYC 9654",
        ),
        ("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd40\n", "0x41 0xd40"),
    ],
)
def test_the_record_of_a_cpu_names_its_model(info, model, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr(records, "_CPU_INFO", tmp_path / "cpuinfo")
    found = records.device_record(torch.device("cpu"))
    assert found["model"] == model
    assert torch.backends.cpu.get_cpu_capability() in found["name"]
    monkeypatch.setattr(records, "_CPU_INFO", tmp_path / "missing")
    assert records.device_record(torch.device("cpu"))["model"]
    json.dumps(found)


def test_extraction_on_another_device_is_recorded(tmp_path, other_device):
    path = tmp_path / "a.h5"
    config = small_config(4, num_realizations=1)
    generate(config, path, device="cpu", progress=False)
    there = other_device(model="another")
    extract_features(path, responses=False, device="cpu", progress=False)
    assert read_info(path).provenance["device"][1] == there | {"part": "features"}
