"""Runs operators of a dataset: under their own initial conditions, or under any given ones.

An operator is a function of the configuration and its index, so it can be run again without the
file. `OperatorRunner` draws one operator and rolls it out. `Simulator` uses it for the samples of a
dataset.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import ParameterValues, typed_row
from spinlock.errors import ConfigurationError, SimulationError
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.device_memory import computed_in_memory
from spinlock.runtime.ordered_map import reproducible_map
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.forcing import Forcing
from spinlock.simulation.operator_family import Operator, operator_family
from spinlock.simulation.rollout import Step, rollout, update_step
from spinlock.simulation.sobol_design import operator_values

_Result = TypeVar("_Result")

#: Numbers of noise from here on belong to no sample of any dataset.
NEW_NOISE = 1 << 62


@dataclass(frozen=True)
class DrawnOperator:
    """An operator of a dataset, drawn and calibrated.

    Args:
        values: Parameter values.
        function: The operator F.
        step: Update of a timestep, with the flow of the operator family.
    """

    values: ParameterValues
    function: Operator
    step: Step


class Run(NamedTuple):
    """One operator, and the initial conditions to apply it to.

    Attributes:
        operator: Index of the operator.
        rows: Positions of the initial conditions among the given ones.
    """

    operator: int
    rows: Sequence[int]


class OperatorRunner:
    """Draws operators of a dataset and runs them.

    Args:
        config: Configuration of the dataset.
        device: Device to compute on; see `spinlock.runtime.device_choice` for the default.
        clock: Counts the time of the stages; default: none.
        num_realizations: Number M of realizations of a run; default: that of the configuration.
            The first ones are the same for every M.

    Raises:
        ConfigurationError: If dropout could silence a layer, or a user-defined operator family
            cannot be imported.

    Example:
        >>> import torch
        >>> from spinlock import GenerationConfig
        >>> space = {"grid_size": [16], "base_channels": {"low": 4, "high": 8}}
        >>> config = GenerationConfig.from_dict({"num_samples": 8, "parameter_space": space})
        >>> initial, noise = torch.ones(2, 3, 16, 16), [NEW_NOISE, NEW_NOISE + 1]
        >>> runs = [Run(operator=3, rows=[0, 1])]
        >>> (fields,) = OperatorRunner(config, "cpu").run(runs, initial, noise, lambda x: x)
        >>> fields.shape  # initial conditions, realizations, timesteps, channels, height, width
        torch.Size([2, 5, 1, 3, 16, 16])
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: str | torch.device | None = None,
        clock: StageClock | None = None,
        *,
        num_realizations: int | None = None,
    ) -> None:
        self.config = config
        self.device = choose_device(device)
        self.clock = clock or StageClock()
        self.num_realizations = num_realizations or config.num_realizations
        if isinstance(config.operator, str):
            config.parameter_space.check_dropout()
        self.family = operator_family(config.operator, config.trusted_modules, self.clock)

    def draw(self, index: int, values: ParameterValues) -> DrawnOperator:
        """Draw an operator.

        Args:
            index: Index of the operator.
            values: Its parameter values.
        """
        function = self.family.operator(
            values,
            seed=self.config.seed,
            index=index,
            channels=self.config.channels,
            precision=self.config.precision,
            device=self.device,
        )
        step = update_step(values, self.family.flow(values, device=self.device))
        return DrawnOperator(values, function, step)

    def roll_out(self, operator: DrawnOperator, initial: Tensor, noise: int, out: Tensor) -> None:
        """Run an operator on one initial condition.

        Args:
            operator: The operator.
            initial: Initial condition u_0, [C, H, W] float32, on the device of the runner.
            noise: Number of the noise, see `run`.
            out: Tensor [M, T, C, H, W] that receives the fields u_1 .. u_T.
        """
        forcing = Forcing(
            operator.values,
            seed=self.config.seed,
            index=noise,
            channels=self.config.channels,
            num_realizations=self.num_realizations,
            num_timesteps=self.config.num_timesteps,
            device=self.device,
        )
        rollout(operator.function, initial, forcing, operator.step, out, self.clock)

    def run(
        self,
        runs: Sequence[Run],
        initial: Tensor,
        noise: Sequence[int],
        function: Callable[[Tensor], _Result],
    ) -> Iterator[_Result]:
        """Compute trajectories, and yield a function of those of each run, in order.

        On a CPU, several runs are computed in parallel, each by one thread. A trajectory does not
        depend on which others are computed with it: the operator, the initial condition and the
        noise of a sample give the sample's fields, bit for bit on the same kind of device.

        Args:
            runs: Operators, each with rows of the initial conditions.
            initial: Initial conditions u_0, [B, C, H, W] float32.
            noise: Number of the noise of each initial condition: the index of a sample for the
                noise of that sample, or `NEW_NOISE` plus any number for noise that no sample has.
            function: Function of the fields [r, M, T, C, H, W] float32 of a run with r rows. It is
                called in the thread that computed them, and once more if memory does not suffice.

        Raises:
            ConfigurationError: If the initial conditions do not fit the operators.
            SimulationError: If a field has NaN or infinite values, or the memory of the device does
                not suffice.
        """
        self._check(initial, noise)
        numbers = np.array([run.operator for run in runs], dtype=np.int64)
        work = zip(runs, map(typed_row, operator_values(self.config, numbers)), strict=True)

        def compute(task: tuple[Run, ParameterValues]) -> _Result:
            run, values = task
            given = [noise[row] for row in run.rows]
            own = initial[list(run.rows)]
            return computed_in_memory(
                lambda: self._run(run.operator, values, own, given, function),
                self.device,
                f"operator {run.operator} under {len(own)} initial condition(s)",
                "Use another device, or give fewer initial conditions for each run",
            )

        if self.device.type == "cpu":
            yield from reproducible_map(compute, work, ahead=2)
        else:
            yield from map(compute, work)

    def _run(
        self,
        index: int,
        values: ParameterValues,
        initial: Tensor,
        noise: Sequence[int],
        function: Callable[[Tensor], _Result],
    ) -> _Result:
        with fixed_arithmetic(self.device), torch.inference_mode():
            initial = initial.to(self.device)
            steps = self.num_realizations, self.config.num_timesteps
            # The dtype is explicit because the caller may have changed torch's default.
            size = (len(initial), *steps, *initial.shape[1:])
            fields = torch.zeros(size, dtype=torch.float32, device=self.device)
            operator = self.draw(index, values)
            for row, number in enumerate(noise):
                self.roll_out(operator, initial[row], number, fields[row])
            if not fields.isfinite().all():
                raise SimulationError(
                    f"NaN or infinite values in the fields of operator {index} under the given "
                    "initial conditions"
                )
            return function(fields)

    def _check(self, initial: Tensor, noise: Sequence[int]) -> None:
        size, channels = self.config.grid_size, self.config.channels
        expected = (len(noise), channels, size, size)
        if tuple(initial.shape) != expected or initial.dtype != torch.float32:
            raise ConfigurationError(
                f"initial: the operators of this dataset act on fields of {channels} channel(s) on "
                f"{size} x {size} pixels, so {len(noise)} initial condition(s) must be float32 of "
                f"the shape {expected}; got {initial.dtype} of the shape {tuple(initial.shape)}. "
                "Draw initial conditions on that grid"
            )
