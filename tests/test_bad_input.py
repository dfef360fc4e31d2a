"""Input that no run can use is refused in one line, which says what is allowed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spinlock import SpinlockDataModule
from spinlock.commands.yaml_text import parsed_yaml, read_yaml
from spinlock.configuration.generation_config import MAX_INDEX, GenerationConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError
from spinlock.generation.executors import DaskExecutor, LocalProcesses
from spinlock.models import FeatureVQVAE
from spinlock.runtime.local_paths import local_path
from spinlock.runtime.temporary_outputs import in_use, remove_unused
from spinlock.simulation.sobol_design import make_design
from tests.forks import Fork

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(10 * [f'*{before}'])}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = {
    "aliases": (BOMB, "more than 100000 values"),
    "an alias of itself": ("a: &a [*a]", "more than 100000 values"),
    "deep": ("[" * 5000 + "]" * 5000, "nested too deeply"),
    "a date that is none": ("2023-99-99", "not valid yaml"),
    "too many digits": ("9" * 5000, "not valid yaml"),
    "latin-1": ("é".encode("latin-1"), "not valid yaml"),
    "NUL": (b"a: \x00", "not valid yaml"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_yaml_that_is_none_or_too_large(kind):
    text, pattern = TEXTS[kind]
    with pytest.raises(ConfigurationError, match=rf"^--data.*{pattern}"):
        parsed_yaml(text, "--data")


def test_aliases_of_a_usual_size_are_fine():
    assert parsed_yaml("a: &a [1, 2]\nb: [*a, *a]", "x") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_a_fifo_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_yaml(tmp_path / "a.yaml")


def test_paths_that_no_file_has(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    paths = {"a\x00b": "NUL", "x" * 300: "too long", str(tmp_path / "loop"): "link to itself"}
    for path, pattern in paths.items():
        for given in (path, Path(path), tmp_path / path):
            with pytest.raises(ConfigurationError, match=pattern):
                local_path(given)


SIZES = {
    "codebook_size": (0, 2**40),
    "latent_dim": (-1, 2**40),
    "hidden_dims": ([0], [8, 2**40]),
    "num_features": (0,),
    "num_variants": (0,),
    "learning_rate": (-1.0, 0.0, float("nan"), float("inf")),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in SIZES.items() for value in values]
)
def test_arguments_of_models_out_of_range(name, value):
    with pytest.raises(ConfigurationError, match=rf"^{name}: must .*, got "):
        FeatureVQVAE(**{"num_features": 5, name: value})


@pytest.mark.parametrize(
    "name",
    [
        *("batch_size", "split_seed", "max_samples", "sampling_seed", "val_fraction"),
        *("test_fraction", "train_operators", "eval_operators", "timestep", "scaling", "balance"),
    ],
)
@pytest.mark.parametrize("value", ["many", [1], {"a": 1}])
def test_arguments_of_data_modules_of_another_type(tmp_path, name, value):
    """A script gives them without a parser that checks types."""
    with pytest.raises(ConfigurationError, match=name):
        SpinlockDataModule(tmp_path / "a.h5", GenerationConfig(8), **{name: value})


def test_weights_that_sum_to_infinity():
    with pytest.raises(ConfigurationError, match="finite positive number, got inf"):
        InitialConditionConfig({"sinusoids": 1e308, "gaussian_noise_1": 1e308})


def test_executors():
    for name, make in (
        ("num_workers", lambda: LocalProcesses(-1)),
        ("num_workers", lambda: DaskExecutor(num_workers=0)),
        ("threads_per_worker", lambda: LocalProcesses(1, 0)),
        ("retries", lambda: DaskExecutor(retries=-1)),
    ):
        with pytest.raises(ConfigurationError, match=f"^{name}: must be at least"):
            make()


def test_the_end_of_the_sobol_sequence():
    config = GenerationConfig(MAX_INDEX)
    with pytest.raises(ConfigurationError, match=r"2\^30"):
        make_design(config, MAX_INDEX - 1, MAX_INDEX + 1)


def hold(path):
    with in_use(path):
        Path(f"{path}.ready").touch()
        import time

        time.sleep(60)


def test_only_what_nobody_uses_is_removed(tmp_path):
    for name in ("a.tmp", "b.other"):
        (tmp_path / name).touch()
    (tmp_path / "c.tmp").mkdir()
    (tmp_path / "c.tmp" / "inside").touch()
    (tmp_path / "d.tmp").symlink_to("b.other")
    holder = Fork(hold, tmp_path / "a.tmp")
    while not (tmp_path / "a.tmp.ready").exists():
        assert holder.process.is_alive()
    remove_unused(tmp_path, "*.tmp")
    left = ["a.tmp", "a.tmp.ready", "b.other", "d.tmp"]
    assert sorted(os.listdir(tmp_path)) == left
    holder.kill()
    remove_unused(tmp_path, "*.tmp")
    assert sorted(os.listdir(tmp_path)) == left[1:]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    """What a command opens does not take the place of a stream."""
    command = f"{sys.executable} -m spinlock info {tmp_path}/missing.h5 {closed}"
    assert subprocess.run(command, shell=True, timeout=100).returncode == 1
