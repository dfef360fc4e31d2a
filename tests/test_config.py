"""Configuration: what is refused, and what identifies a dataset."""

import dataclasses
from typing import Any

import pytest

from spinlock.configuration.file_content import CustomFeatureConfig, Every, StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import (
    IntegerRange,
    LogUniformRange,
    ParameterSpaceConfig,
    UniformRange,
)
from spinlock.configuration.validation import check_arguments
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.errors import ConfigurationError
from spinlock.simulation.variants import make_variant


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_samples": -3}, "num_samples: must be at least 1, got -3"),
        ({"num_samples": 0}, "num_samples: must be at least 1"),
        ({"num_samples": 2**33}, "num_samples: must be at most"),
        ({"num_samples": 1.5}, "num_samples"),
        ({"num_samples": 3, "num_realizations": 0}, "num_realizations: must be at least 1"),
        ({"num_samples": 3, "num_timesteps": 0}, "num_timesteps: must be at least 1"),
        ({"num_samples": 3, "probes_per_operator": -1}, "probes_per_operator: must be at least"),
        ({"num_samples": 3, "channels": 0}, "channels: must be at least 1"),
        ({"num_samples": 3, "block_size": 0}, "block_size: must be at least 1"),
        ({"num_samples": 3, "seed": -1}, r"seed: must lie in \[0, 2\^64\), got -1"),
        ({"num_samples": 3, "precision": "float16"}, "precision"),
        ({"num_samples": 3, "nonsense": 1}, "nonsense"),
        ({"num_samples": 3, "parameter_space": {"nonsense": 1}}, "nonsense"),
        ({"num_samples": 3, "parameter_space": {"grid_size": [4]}}, "grid_size: must be at least"),
        (
            {"num_samples": 3, "parameter_space": {"grid_size": [32, 64]}},
            "grid_size: must be one choice",
        ),
        ({"num_samples": 3, "parameter_space": {"grid_size": []}}, "grid_size: at least one value"),
        (
            {"num_samples": 3, "parameter_space": {"grid_size": [8], "kernel_size": [9]}},
            "kernel_size: a kernel of 9 pixels does not fit a grid of 8",
        ),
        ({"num_samples": 3, "parameter_space": {"kernel_size": [4]}}, "kernel_size: must be odd"),
        (
            {"num_samples": 3, "parameter_space": {"num_layers": {"low": 5, "high": 2}}},
            "num_layers: low must not exceed high, got low=5, high=2",
        ),
        (
            {"num_samples": 3, "parameter_space": {"dropout_rate": {"low": 0, "high": 1}}},
            r"dropout_rate: values must lie in \[0, 1\)",
        ),
        (
            {"num_samples": 3, "parameter_space": {"noise_scale": {"low": 0, "high": 1}}},
            "noise_scale: a logarithmic axis needs low > 0",
        ),
        (
            {"num_samples": 3, "parameter_space": {"alpha": {"low": 0.5, "high": float("nan")}}},
            "alpha: low and high must be finite",
        ),
        ({"num_samples": 3, "parameter_space": {"activation": ["tanh"]}}, "activation"),
        (
            {"num_samples": 3, "parameter_space": {"activation": ["relu", "relu"]}},
            "activation: values must differ",
        ),
        (
            {"num_samples": 3, "initial_conditions": {"weights": {"sinusoids": 0.0}}},
            "weights must sum to a finite positive number, got 0",
        ),
        (
            {"num_samples": 3, "initial_conditions": {"weights": {}}},
            "weights must sum to a finite positive number",
        ),
        (
            {"num_samples": 3, "initial_conditions": {"weights": {"sinusoids": -1.0}}},
            "sinusoids must have a finite weight >= 0, got -1",
        ),
        (
            {"num_samples": 3, "initial_conditions": {"weights": {"squares": 1.0}}},
            "unknown variant 'squares'; known are gaussian_noise_0.25",
        ),
        (
            {"num_samples": 3, "initial_conditions": {"custom": {"sinusoids": {}}}},
            "sinusoids is the name of a built-in variant",
        ),
        ({"num_samples": 3, "features": "fourier"}, "features"),
        ({"num_samples": 3, "features": {"nonsense": ["a.b"]}}, "nonsense"),
        ({"num_samples": 3, "features": {"per_field": []}}, "per_trajectory are empty"),
        ({"num_samples": 3, "features": {"per_field": ["b"]}}, "import paths .* got 'b'"),
        (
            {"num_samples": 3, "features": {"per_field": ["a.c"], "per_trajectory": ["b.c"]}},
            "features: c occurs twice",
        ),
        ({"num_samples": 3, "storage": {"shard_size": 100}}, "shard_size: must be a multiple of"),
        ({"num_samples": 3, "storage": {"fields": "some"}}, "fields"),
        ({"num_samples": 3, "storage": {"fields": {"every": 2}}}, "every: must be at most 1"),
        ({"num_samples": 3, "storage": {"compression": "lz4"}}, "compression"),
    ],
)
def test_bad_values_are_refused_by_name(values, message):
    with pytest.raises(ConfigurationError, match=message):
        GenerationConfig.from_dict(values)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {
                "class_path": "spinlock.simulation.initial_conditions.Sinusoids",
                "init_args": {"waves": 3},
            },
            "does not take these init_args: .*waves",
        ),
        ({"class_path": "no.such.Module"}, "cannot import no.such.Module"),
        ({"class_path": "spinlock.configuration.StorageConfig"}, "must be a subclass of"),
    ],
)
def test_custom_variants_that_cannot_be_made(spec, message):
    config = InitialConditionConfig(weights={"mine": 1.0}, custom={"mine": spec})
    with pytest.raises(ConfigurationError, match=message):
        make_variant("mine", config)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GenerationConfig(3, precision="float16"), "precision: must be one of 'float32'"),
        (lambda: GenerationConfig(3, seed=1.5), "seed: must be of type int, got 1.5"),
        (lambda: GenerationConfig(True), "num_samples: must be of type int, got True"),
        (lambda: GenerationConfig("3"), "num_samples: must be of type int, got '3'"),
        (lambda: GenerationConfig(3, storage=StorageConfig(fields="lsat")), "storage.fields: must"),
        (
            lambda: GenerationConfig(3, storage=StorageConfig(compression="gzip")),
            "storage.compression: must be one of 'deflate', 'none', got 'gzip'",
        ),
        (
            lambda: ParameterSpaceConfig(activation=("tanh",)),
            "parameter_space.activation: must be a list of values, each one of 'relu'",
        ),
        (lambda: ParameterSpaceConfig(activation="relu"), "parameter_space.activation: must be a"),
        (lambda: ParameterSpaceConfig(grid_size=64), "parameter_space.grid_size: must be a list"),
        (
            lambda: ParameterSpaceConfig(num_layers=UniformRange(2, 3)),
            "parameter_space.num_layers: must be of type IntegerRange",
        ),
        (
            lambda: ParameterSpaceConfig(dt=UniformRange(0.1, 0.2)),
            "parameter_space.dt: must be of type LogUniformRange",
        ),
        (
            lambda: ParameterSpaceConfig(num_layers=IntegerRange(2.0, 3)),
            "parameter_space.num_layers.low: must be of type int, got 2.0",
        ),
    ],
)
def test_python_users_get_the_same_checks_as_yaml(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()


def resize(size: int, *sizes: int, mode: str = "linear", **others: Any) -> None:
    """A function with all kinds of parameters."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": 1}, "sizes: unknown key; allowed are size, mode"),
        ({"others": {}}, "others: unknown key"),
        ({"return": None}, "return: unknown key"),
        ({5: 1}, "5: unknown key"),
        ({"size": "1"}, r"size: must be of type int, got '1' \(str\)"),
        ({"mode": 10**5000}, "mode: must be of type str, got an integer beyond 2"),
        ({"size": 10**5000}, "size: must be less than"),
        ({"size": "x" * 10_000}, r"got 'xx.*\.\.\..*xx' \(str\)"),
    ],
)
def test_arguments_are_checked_against_named_parameters(arguments, message):
    check_arguments(resize, {"size": 3, "mode": "cubic"})
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_arguments(resize, arguments)
    assert len(str(caught.value)) < 400


def deep_list():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested


# Functions, so that deep lists exist only while their test runs.
@pytest.mark.parametrize(
    "values",
    [
        lambda: {"num_samples": deep_list()},
        lambda: {"operator": {"class_path": "a.B", "init_args": {"x": deep_list()}}},
        lambda: {"storage": {"fields": deep_list()}},
        lambda: {"initial_conditions": {"weights": {5: 1.0}}},
        lambda: {"initial_conditions": {"weights": {"sinusoids": 10**5000}}},
        lambda: {"operator": {5: 1}},
        lambda: {"features": {"per_field": [deep_list()]}},
        lambda: {5: 1},
    ],
    ids=range(8),
)
def test_no_data_crash_the_parser(values):
    with pytest.raises(ConfigurationError) as caught:
        GenerationConfig.from_dict({"num_samples": 3} | values())
    assert len(str(caught.value)) < 1000


def test_json_round_trip():
    config = GenerationConfig(
        12,
        num_timesteps=10,
        probes_per_operator=2,
        parameter_space=ParameterSpaceConfig(
            num_layers=IntegerRange(2, 3),
            activation=("gelu",),
            alpha=UniformRange(0.2, 0.3),
            dt=LogUniformRange(0.01, 0.01),
            grid_size=(64,),
        ),
        initial_conditions=InitialConditionConfig(weights={"sinusoids": 2.0, "gaussian_blobs": 1}),
        features=CustomFeatureConfig(per_field=("package.b", "package.a")),
        storage=StorageConfig(fields=Every(5), compression="none", shard_size=128),
    )
    again = GenerationConfig.from_json(config.to_json())
    assert again == config
    assert again.fingerprint == config.fingerprint


def test_fingerprint_covers_what_determines_bytes_and_nothing_else():
    base = GenerationConfig(100)
    same = [
        GenerationConfig(250),
        GenerationConfig(100, storage=StorageConfig(compression="none")),
        GenerationConfig(100, storage=StorageConfig(shard_size=192)),
    ]
    assert {config.fingerprint for config in same} == {base.fingerprint}
    changes = {
        "num_realizations": 4,
        "num_timesteps": 2,
        "probes_per_operator": 2,
        "channels": 1,
        "seed": 43,
        "parameter_space": ParameterSpaceConfig(alpha=UniformRange(0.1, 0.8)),
        "initial_conditions": InitialConditionConfig(weights={"sinusoids": 1.0}),
        "features": CustomFeatureConfig(per_field=("package.a",)),
        "operator": {"class_path": "spinlock.simulation.operator_family.TransportFamily"},
        "responses": False,
        "dynamics": False,
        "precision": "tf32",
        "block_size": 8,
        "storage": StorageConfig(fields="last"),
    }
    others = {name: dataclasses.replace(base, **{name: v}) for name, v in changes.items()}
    prints = {name: config.fingerprint for name, config in others.items()}
    assert base.fingerprint not in prints.values()
    assert len(set(prints.values())) == len(prints)
    fields = {field.name for field in dataclasses.fields(GenerationConfig)}
    assert fields - set(changes) == {"num_samples"}


def test_whole_and_real_weights_are_the_same():
    """Also in the stored text, which the fingerprint covers."""
    whole, real = (
        GenerationConfig(3, initial_conditions=InitialConditionConfig({"sinusoids": weight}))
        for weight in (2, 2.0)
    )
    assert whole.to_json() == real.to_json()
    assert whole.fingerprint == real.fingerprint


def test_order_of_weights_is_part_of_the_identity():
    one = InitialConditionConfig(weights={"sinusoids": 1.0, "gaussian_blobs": 1.0})
    two = InitialConditionConfig(weights={"gaussian_blobs": 1.0, "sinusoids": 1.0})
    prints = {GenerationConfig(1, initial_conditions=c).fingerprint for c in (one, two)}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("fields", "steps"),
    [("all", (1, 2, 3, 4, 5, 6, 7)), ("last", (7,)), ("none", ()), (Every(3), (3, 6))],
)
def test_stored_steps(fields, steps):
    config = GenerationConfig(1, num_timesteps=7, storage=StorageConfig(fields=fields))
    assert config.stored_steps == steps


def test_defaults_are_the_baseline():
    config = GenerationConfig.from_dict({"num_samples": 10_000})
    assert (config.num_realizations, config.num_timesteps, config.seed) == (5, 1, 42)
    assert (config.grid_size, config.channels, config.precision) == (128, 3, "float32")
