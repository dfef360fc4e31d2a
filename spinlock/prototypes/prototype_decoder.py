"""Predicts what a token means under an initial condition, by running its prototypes."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError
from spinlock.features import PER_TIMESTEP_NAMES, extract_per_timestep
from spinlock.simulation.operator_runs import NEW_NOISE, OperatorRunner, Run


@dataclass(frozen=True)
class Prediction:
    """What the n prototypes of B tokens do to B initial conditions.

    Args:
        prototypes: Indices of the operators, [B, n] int64; -1 where there is none.
        features: Their features at each timestep, [B, n, T, 46] float32, means over realizations
            and channels; NaN where there is no prototype.
        fields: Their fields, [B, n, M, T, C, H, W] float32; NaN where there is no prototype. None
            if only the features were asked for.
    """

    prototypes: Tensor
    features: Tensor
    fields: Tensor | None

    def mean_features(self, transform: Callable[[Tensor], Tensor], timestep: int = -1) -> Tensor:
        """Return the mean over the prototypes of scaled features, [B, 46] float32.

        The mean is taken after scaling, because some features range over many decades. A row
        without prototypes is NaN.

        Args:
            transform: Scaling, such as `FeatureScaler.transform`, from [..., 46] to [..., 46].
            timestep: Position of the timestep in 0..T-1; default: the last.
        """
        known = self.prototypes >= 0
        scaled = transform(self.features[:, :, timestep].nan_to_num())
        total = torch.where(known[..., None], scaled, 0.0).sum(dim=1)
        return total / known.sum(dim=1, keepdim=True)


class PrototypeDecoder:
    """Runs the operators that tokens stand for under given initial conditions.

    The operators are those of a dataset, which are functions of its configuration, so they act on
    any initial condition, also of families that neither the model nor the dataset has seen. The
    forcing of a row depends on the dataset's seed and the row's ``noise`` number alone; prototypes
    of one row share its random numbers, and no sample of the dataset has them. Results do not
    depend on which rows are computed together, beyond the rounding of features.

    Args:
        config: Configuration of the dataset.
        device: Device to compute on; see `spinlock.runtime.device_choice` for the default.
        num_realizations: Number M of realizations; default: that of the configuration.

    Raises:
        ConfigurationError: If a user-defined operator family cannot be imported.

    Example:
        >>> import torch
        >>> from spinlock import GenerationConfig
        >>> space = {"grid_size": [16], "base_channels": {"low": 4, "high": 8}}
        >>> config = GenerationConfig.from_dict({"num_samples": 8, "parameter_space": space})
        >>> prototypes = torch.tensor([[3, 5]])  # of one token, as in a token file
        >>> decode = PrototypeDecoder(config, "cpu")
        >>> predicted = decode(prototypes, torch.ones(1, 3, 16, 16))
        >>> predicted.fields.shape, predicted.features.shape
        (torch.Size([1, 2, 5, 1, 3, 16, 16]), torch.Size([1, 2, 1, 46]))
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: str | torch.device | None = None,
        *,
        num_realizations: int | None = None,
    ) -> None:
        self._runner = OperatorRunner(config, device, num_realizations=num_realizations)

    def __call__(
        self,
        prototypes: Tensor,
        initial: Tensor,
        noise: Tensor | None = None,
        *,
        fields: bool = True,
    ) -> Prediction:
        """Run prototypes.

        Args:
            prototypes: Indices of the operators of each row, [B, n] int64, such as
                ``TokenFile.prototypes[tokens]``; negative where there is none.
            initial: Initial conditions u_0, [B, C, H, W] float32 on the grid of the dataset.
            noise: Number of the noise of each row, [B] int64, at least 0; default: 0, 1, ....
            fields: Whether the fields are wanted; default: True.

        Returns:
            Features and fields, in the memory of the host.

        Raises:
            ConfigurationError: If an argument has another shape or the initial conditions have
                another grid than the operators, or the dataset has fewer operators.
            SimulationError: If a field has NaN or infinite values.
        """
        if noise is None:
            noise = torch.arange(len(initial), device="cpu")
        if prototypes.ndim != 2 or not len(prototypes) == len(initial) == len(noise):
            raise ConfigurationError(
                "prototypes: expected [B, n] operators, B initial conditions and B numbers of "
                f"noise; got the shapes {list(prototypes.shape)}, {list(initial.shape)} and "
                f"{list(noise.shape)}"
            )
        count = -(-self._runner.config.num_samples // self._runner.config.probes_per_operator)
        # The design of an operator is as long as its index, which may come from a stranger's file.
        if prototypes.numel() and (largest := int(prototypes.max())) >= count:
            raise ConfigurationError(
                f"prototypes: the dataset has {count} operators, got operator {largest}; give the "
                "configuration of the dataset that the prototypes are of"
            )
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, operators in enumerate(prototypes.tolist()):
            for rank, operator in enumerate(operators):
                if operator >= 0:
                    places[operator].append((row, rank))
        numbers = (noise + NEW_NOISE).tolist()
        runs = [Run(operator, [row for row, _ in some]) for operator, some in places.items()]
        runner, batch = self._runner, tuple(prototypes.shape)
        steps = runner.config.num_timesteps
        size = (*batch, steps, len(PER_TIMESTEP_NAMES))
        features = torch.full(size, torch.nan, dtype=torch.float32, device="cpu")
        found: Tensor | None = None
        if fields:
            size = (*batch, runner.num_realizations, steps, *initial.shape[1:])
            found = torch.full(size, torch.nan, dtype=torch.float32, device="cpu")

        def measured(trajectories: Tensor) -> tuple[Tensor, Tensor | None]:
            kept = trajectories.cpu() if fields else None
            return extract_per_timestep(trajectories).cpu(), kept

        results = runner.run(runs, initial, numbers, measured)
        for some, (own, kept) in zip(places.values(), results, strict=True):
            at = tuple(torch.tensor(some, device="cpu").T)
            features[at] = own
            if found is not None and kept is not None:
                found[at] = kept
        return Prediction(prototypes.cpu(), features, found)
