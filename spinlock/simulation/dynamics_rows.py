"""Assembles the rows of operators/dynamics: measured columns, and true ones where known."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import SimulationError
from spinlock.simulation.dynamics_columns import DYNAMICS_NAMES
from spinlock.simulation.transport_flow import TRUE_DYNAMICS


def dynamics_names(config: GenerationConfig) -> tuple[str, ...]:
    """Return the names of the columns of the operators' dynamics; empty if they are left out.

    Example:
        >>> dynamics_names(GenerationConfig(1, operator="transport"))[-2:]
        ('true_shift_x', 'true_shift_y')
    """
    return DYNAMICS_NAMES + _true_names(config) if config.dynamics else ()


def _true_names(config: GenerationConfig) -> tuple[str, ...]:
    return tuple(TRUE_DYNAMICS) if config.operator == "transport" else ()


def dynamics_rows(
    measured: list[Tensor] | Tensor,
    values: NDArray[np.void],
    operators: NDArray[np.int64],
    config: GenerationConfig,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the dynamics of some operators, with the true values of transport operators.

    This waits for the measured values. To wait once for a whole block, copy them to the host
    first.

    Args:
        measured: Measured columns of each of the o operators, from `DynamicsMeter.measure` or
            `DynamicsMeter.measure_together`, on the device of the result.
        values: Parameter values of the operators, a structured array (o,).
        operators: Indices of the operators, (o,) int64.
        config: Configuration of the dataset.
        device: Device of the result; default: ``cpu``.

    Returns:
        Columns `dynamics_names`, (o, D) float32.

    Raises:
        SimulationError: If a measured value is NaN or infinite. Names the operators.
    """
    shape = (0, len(DYNAMICS_NAMES))
    rows = torch.stack(list(measured)) if len(measured) else torch.empty(shape, device=device)
    finite = rows.isfinite().all(dim=1)
    if not finite.all():
        bad = operators[~finite.cpu().numpy()].tolist()
        raise SimulationError(
            f"NaN or infinite values in the dynamics of operators {bad}, which are measured on "
            "fields of rms 1 and 2; mend the operator family, or leave the dynamics out with "
            "dynamics: false"
        )
    true = [values[TRUE_DYNAMICS[name]] for name in _true_names(config)]
    columns = np.array(true, dtype=np.float32).reshape(len(true), len(rows))
    # One copy for all operators: each copy to an accelerator waits for it.
    return torch.cat([rows, torch.from_numpy(columns).T.to(device)], dim=1)
