"""Blocks whose operators are applied together have the samples of operators applied one by one.

On the CPU, the plain versions of the operations stand for the kernels, whose equality
``tests/kernels`` shows. On the meta device, operations are counted, and nothing can wait.
"""

import warnings
from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from spinlock import GenerationConfig, ParameterSpaceConfig
from spinlock.errors import SimulationError
from spinlock.runtime.one_copy import copy_to_device
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation import block_fields, kernel_check
from spinlock.simulation.block_fields import BlockFields
from spinlock.simulation.group_rollout import GroupRollout
from spinlock.simulation.kernel_check import computes_together, kernels_agree
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from spinlock.simulation.unit_fields import OperatorByOperator, UnitFields
from spinlock.simulation.variants import InitialConditions
from tests.counting import META, CountOperations
from tests.helpers import small_config

BLOCK = 6
DATASETS = {
    "one probe, one timestep": {},
    "three probes, transport": {
        "operator": "transport",
        "num_timesteps": 3,
        "probes_per_operator": 3,
    },
}


def config_of(**options):
    options = {"grid_size": 24, "num_realizations": 2, "dynamics": True} | options
    return small_config(2 * BLOCK, block_size=BLOCK, **options)


def computed(config, start=0, stop=2 * BLOCK, *, together):
    """Samples as arrays by name."""
    parts = list(Simulator(config, "cpu", together=together).samples(start, stop))
    arrays = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("initial", "fields", "initial_features", "dynamics")
    }
    arrays["features"] = torch.cat([part.features.per_timestep for part in parts])
    arrays["responses"] = torch.cat([part.responses.per_timestep for part in parts])
    return arrays


@cache
def pair(name):
    """Samples of a dataset, of operators one by one and together."""
    config = config_of(**DATASETS[name])
    return tuple(computed(config, together=together) for together in (False, True))


@pytest.mark.parametrize("name", DATASETS)
def test_samples_are_those_of_operators_applied_one_by_one(name):
    expected, found = pair(name)
    for array, values in expected.items():
        tolerance = {"dynamics": 1e-4, "features": 1e-3}.get(array, 2e-5)
        torch.testing.assert_close(found[array], values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", 0.01), ("bfloat16", 0.05)])
def test_operands_of_lower_precision_are_rounded(precision, allowed):
    """By more than float32 rounds, and by less than `spinlock check` allows."""
    expected = pair("one probe, one timestep")[0]["fields"][:BLOCK]
    config = config_of(precision=precision, dynamics=False)
    (found,) = Simulator(config, "cpu", together=True).samples(0, BLOCK)
    error = (found.fields - expected).norm() / expected.norm()
    assert 1e-5 < error < allowed


def test_samples_do_not_depend_on_the_range_asked_for():
    name = "three probes, transport"
    config = config_of(**DATASETS[name])
    part = computed(config, 4, 11, together=True)
    for array, values in pair(name)[1].items():
        # Operators have their first sample at 6 and 9.
        rows = slice(2, 4) if array == "dynamics" else slice(4, 11)
        assert torch.equal(part[array], values[rows]), array


def test_samples_do_not_depend_on_the_groups(monkeypatch):
    """Groups hold what memory allows; here each operator is a group of its own."""
    monkeypatch.setattr(block_fields, "_GROUP_BYTES", 1)
    name = "three probes, transport"
    found = computed(config_of(**DATASETS[name]), together=True)
    for array, values in pair(name)[1].items():
        torch.testing.assert_close(found[array], values, rtol=1e-4, atol=1e-4)


def test_kernels_of_several_calibration_fields_are_in_several_groups():
    """Larger kernels than 8 have larger calibration fields."""
    space = {"grid_size": [32], "base_channels": {"low": 4, "high": 5}, "kernel_size": [3, 11]}
    config = GenerationConfig.from_dict(
        {"num_samples": 4, "block_size": 4, "parameter_space": space, "num_realizations": 1}
    )
    expected, found = (computed(config, 0, 4, together=t)["fields"] for t in (False, True))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("broken", ["trajectory", "dynamics"])
def test_a_block_beyond_the_range_of_kernels_is_computed_operator_by_operator(broken, monkeypatch):
    """The whole block is, whichever of its samples are asked for."""
    original = GroupRollout.run

    def overflowing(self, tables, initial, trajectory, clock):
        measured = original(self, tables, initial, trajectory, clock)
        (trajectory if broken == "trajectory" else measured)[0] = torch.nan
        return measured

    monkeypatch.setattr(GroupRollout, "run", overflowing)
    expected = pair("one probe, one timestep")[0]
    for start, stop in ((0, 2 * BLOCK), (2, 5)):
        found = computed(config_of(), start, stop, together=True)
        for array, values in expected.items():
            assert torch.equal(found[array], values[start:stop]), array


@pytest.mark.parametrize("together", [False, True])
def test_samples_that_are_not_finite_are_named(together, monkeypatch):
    def broken(self, unit, rows):
        shape = len(rows), 2, 1, 3, 24, 24
        found = UnitFields(torch.zeros(shape[:1] + shape[3:]), torch.zeros(shape), torch.empty(0))
        found.trajectory[0] = torch.nan
        return found

    for source in (BlockFields, OperatorByOperator):
        monkeypatch.setattr(source, "fields", broken)
    config = config_of(dynamics=False)
    with pytest.raises(SimulationError, match=r"fields of samples \[0\]") as error:
        next(Simulator(config, "cpu", together=together).samples(0, BLOCK))
    last = BLOCK - 1 if together else 0
    assert error.value.__notes__ == [f"while computing samples 0..{last}"]


@pytest.fixture
def counted(monkeypatch):
    """A function that counts the operations of a block of 64 samples of the default space.

    It fails if anything waits for the device, or is copied to it apart from the tables of a block.
    """
    copies = []

    def copy_once(*given):
        copies.append(given)
        with _disable_current_modes():
            return copy_to_device(*given)

    monkeypatch.setattr(block_fields, "copy_to_device", copy_once)

    def count(**options):
        config = GenerationConfig(num_samples=128, block_size=64, **options)
        blocks = BlockFields(config, META, InitialConditions(config), StageClock())
        with torch.no_grad():
            # The first block makes what all blocks share, such as the calibration fields.
            blocks.fields(make_design(config, 0, 64), range(64))
            copies.clear()
            with CountOperations() as operations:
                blocks.fields(make_design(config, 64, 128), range(64))
        assert len(copies) == 1
        return operations.names

    return count


def test_a_block_takes_few_operations_and_one_copy(counted):
    executed = counted(dynamics=False)
    assert executed.total() <= 150
    # One launch for each step of all operators: the input, ten convolutions, and the output.
    assert executed["convolve"] == 12


def test_further_timesteps_and_dynamics_take_few_operations(counted):
    base = counted(dynamics=False).total()
    steps = counted(dynamics=False, num_timesteps=3, num_realizations=1).total() - base
    assert steps <= 2 * 65
    assert counted().total() - base <= 480


def test_kernels_need_a_cuda_device():
    assert not computes_together(config_of(), torch.device("cpu"))
    assert not Simulator(config_of(), "cpu").together


def test_families_of_users_and_huge_layers_are_applied_one_by_one(monkeypatch):
    monkeypatch.setattr(kernel_check, "kernels_agree", lambda device, precision: True)
    device = torch.device("cuda")
    assert computes_together(config_of(), device)
    assert not computes_together(config_of(base_channels=(4, 2**12)), device)
    wide = ParameterSpaceConfig(kernel_size=(3, 35), grid_size=(64,))
    assert not computes_together(GenerationConfig(4, parameter_space=wide), device)
    own = {"class_path": "tests.test_operator_family.Wrapped"}
    config = GenerationConfig(4)
    object.__setattr__(config, "operator", own)
    assert not computes_together(config, device)


@pytest.fixture
def gpu(monkeypatch):
    """A CUDA device with Triton, whose checks a test replaces."""
    monkeypatch.setattr(kernel_check, "triton_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(kernel_check, "draws_agree", lambda device: True)
    monkeypatch.setattr(kernel_check, "fields_difference", lambda device, precision: 0.0)
    kernels_agree.cache_clear()
    yield torch.device("cuda:0")
    kernels_agree.cache_clear()


def test_kernels_that_agree_are_used(gpu, recwarn):
    assert kernels_agree(gpu, "float32")
    assert not recwarn


@pytest.mark.parametrize("wrong", [0.1, float("nan"), RuntimeError("ptxas\nmore")])
def test_kernels_that_do_not_agree_are_named_once(wrong, gpu, monkeypatch):
    def failing(*given):
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    monkeypatch.setattr(kernel_check, "fields_difference", failing)
    said = (
        "RuntimeError: ptxas more. Op" if isinstance(wrong, Exception) else f"differ by .*{wrong}"
    )
    with pytest.warns(UserWarning, match=rf"cuda:0 \(Some GPU\).*float32.*{said}"):
        assert not kernels_agree(gpu, "float32")
    with warnings.catch_warnings(action="error"):
        assert not kernels_agree(gpu, "float32")


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_check_of_kernels_measures_rounding(precision):
    """The plain versions on the CPU differ by rounding alone."""
    with torch.inference_mode():
        found = kernel_check.fields_difference(torch.device("cpu"), precision)
    assert 0 < found < kernel_check._ALLOWED[precision] / 2


@pytest.mark.parametrize("operation", ["convolve", "finish_layers", "moments", "draw_weights"])
def test_the_check_of_kernels_sees_a_wrong_kernel(operation, monkeypatch):
    from spinlock.simulation import operator_group

    original = getattr(operator_group, operation)

    def wrong(first, *others, **named):
        original(first, *others, **named)
        written = {"convolve": 3, "moments": 0, "finish_layers": 4, "draw_weights": None}[operation]
        tensor = first if written is None else others[written]
        tensor[: len(tensor) // 2] *= 1.01

    monkeypatch.setattr(operator_group, operation, wrong)
    found = kernel_check.fields_difference(torch.device("cpu"), "float32")
    assert not found <= kernel_check._ALLOWED["float32"]
