"""Simulates long trajectories, and compares operators in float32 with an oracle in float64."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from benchmarks.faults.verdicts import Tally
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import ParameterSpaceConfig
from spinlock.configuration.parameter_space import ParameterValues, typed_row
from spinlock.simulation.calibration import calibration_fields
from spinlock.simulation.convolutional_operator import OUTPUT_BOUND, ConvOperator
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design
from tests.reference_operator import ReferenceOperator

_OPERATORS, _TIMESTEPS, _COMPARED = 200, 500, 50
_LARGEST_ERROR = 1e-4


def try_numerics(folder: Path, seed: int, share: float) -> Tally:
    """Run operators of the full ranges of all axes."""
    tally = Tally("numerics")
    config = GenerationConfig(
        max(2, round(share * _OPERATORS)),
        num_timesteps=_TIMESTEPS,
        num_realizations=1,
        seed=seed,
        parameter_space=ParameterSpaceConfig(grid_size=(32,)),
        storage=StorageConfig(fields="all"),
        dynamics=False,
        block_size=8,
    )
    _errors(tally, dataclasses.replace(config, num_samples=max(5, round(share * _COMPARED))))
    # Features of the spread of realizations need two of them.
    _trajectories(tally, dataclasses.replace(config, num_timesteps=20, num_realizations=2))
    _trajectories(tally, config)
    return tally


def _trajectories(tally: Tally, config: GenerationConfig) -> None:
    """Fields and features are finite, and what is bounded stays within its bounds."""
    rows = make_design(config).values
    for samples in Simulator(config, "cpu").samples(0, config.num_samples):
        done = int(samples.index[-1]) + 1
        if done % 20 == 0:
            print(
                f"{done} of {config.num_samples} operators, T = {config.num_timesteps}", flush=True
            )
        features = {"initial": samples.initial_features, **samples.features._asdict()}
        if samples.responses is not None:
            features |= samples.responses._asdict()
        for place, sample in enumerate(samples.index.tolist()):
            tally.trials += 1
            values = typed_row(rows[sample])
            fields = samples.fields[place]
            if not torch.isfinite(fields).all():
                tally.fault(f"sample {sample} has fields that are not finite")
            largest = float(fields.abs().max())
            initial = float(samples.initial[place].abs().max())
            if largest > (bound := _bound(values, initial, config.num_timesteps)):
                tally.fault(f"sample {sample} exceeds its bound {bound}: {largest}")
            for name, part in features.items():
                missing = config.num_realizations == 1 and name in ("noise", "divergence")
                if missing != (not torch.isfinite(part[place]).all()):
                    tally.fault(f"sample {sample} has features of {name} that are not finite")


def _bound(values: ParameterValues, initial: float, timesteps: int) -> float:
    """Return the bound of fields in docs/data_format.md, with forcing of 25 standard deviations."""
    step = OUTPUT_BOUND + 25 * 1.5 * values.noise_scale
    match values.update_policy:
        case "autoregressive":
            return step
        case "convex":
            return max(step, initial)
        case _:
            return initial + step * values.dt * timesteps


def _errors(tally: Tally, config: GenerationConfig) -> None:
    """Compare applications of operators in float32 with float64."""
    errors = []
    generator = torch.Generator().manual_seed(0)
    design = make_design(config)
    for row, operator in zip(design.values, design.operator_index.tolist(), strict=True):
        tally.trials += 1
        values = typed_row(row)
        fields = torch.randn(2, 3, config.grid_size, config.grid_size, generator=generator)
        device = torch.device("cpu")
        batch = calibration_fields(config.seed, 3, config.grid_size, values.kernel_size, device)
        reference = ReferenceOperator(values, config.seed, operator, 3, batch.numpy())
        expected = reference(fields.numpy())
        made = ConvOperator(values, seed=config.seed, index=operator, channels=3, device="cpu")
        found = made(fields).double().numpy()
        errors.append(float(np.linalg.norm(found - expected) / np.linalg.norm(expected)))
    print(f"relative errors: median {np.median(errors):.1e}, largest {max(errors):.1e}", flush=True)
    if not np.median(errors) < _LARGEST_ERROR:
        tally.fault(f"median relative error {np.median(errors):.1e} of float32 operators")
