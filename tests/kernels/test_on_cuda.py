"""What only a CUDA device can show: its kernels agree, and its samples are those of the CPU."""

import dataclasses
import warnings

import pytest
import torch

from benchmarks import gpu
from spinlock import GenerationConfig
from spinlock.configuration.parameter_axes import ParameterSpaceConfig
from spinlock.simulation.kernel_check import kernels_agree
from spinlock.simulation.simulator import Simulator

pytestmark = pytest.mark.slow

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device"
)
PRECISIONS = ("float32", "tf32", "bfloat16")
SMALL = GenerationConfig(
    64, parameter_space=ParameterSpaceConfig(grid_size=(24,)), block_size=2, num_realizations=1
)


@needs_cuda
@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_agree_without_a_warning(precision):
    kernels_agree.cache_clear()
    with warnings.catch_warnings(action="error"):
        assert kernels_agree(torch.device("cuda", torch.cuda.current_device()), precision)


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"operator": "transport", "num_timesteps": 2}])
def test_samples_are_those_of_the_cpu(options):
    """At the default size, in float32, within the tolerance of `spinlock check`."""
    config = GenerationConfig(64, **options)
    simulators = Simulator(config, "cuda"), Simulator(config, "cpu")
    assert simulators[0].together
    for name in ("initial", "fields", "dynamics"):
        found, expected = (
            torch.cat([getattr(part, name) for part in simulator.samples(0, 8)])
            for simulator in simulators
        )
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@needs_cuda
def test_a_range_has_the_bytes_of_the_whole_block():
    config = GenerationConfig(64)
    whole, part = (
        torch.cat([own.fields for own in Simulator(config, "cuda").samples(*given)])
        for given in ((0, 64), (10, 20))
    )
    assert torch.equal(whole[10:20], part)


def test_the_first_run_on_a_gpu_measures_a_cpu_as_well(capsys):
    """Without a CUDA device, this shows that the command still fits the modules."""
    device = torch.device("cpu")
    gpu.show_agreement(device)
    gpu.show_replay(SMALL, device, 3)
    gpu.show_speed(dataclasses.replace(SMALL, num_timesteps=2), device, 2, "two timesteps")
    gpu.show_operations(SMALL, device)
    printed = capsys.readouterr().out
    assert "bfloat16: kernels differ by 0.0" in printed
    assert "0 of 3 samples are outside rtol 0.001" in printed
    assert "computed again: True; in another range: True" in printed
    assert "two timesteps, operators one by one: " in printed
