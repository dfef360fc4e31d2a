"""The probes of a batch: which of them make a token, and which have to be predicted from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spinlock import contract
from spinlock.models.conditioning import CONDITION_KEYS, Batch


@dataclass(frozen=True)
class ProbeSets:
    """B operators with P probes each, some of which are pooled to one token.

    Args:
        rows: Entries of all probes, ``[B * P, ...]``; the probes of an operator are consecutive.
        pooled: Whether a probe is among those of the token, bool ``[B, P]``; at least one is.
        has_others: Whether each operator has probes that are not pooled.

    Example:
        >>> import torch
        >>> batch = {"features": torch.ones(3, 5), "other_features": torch.zeros(3, 5)}
        >>> probes = ProbeSets.of(batch)
        >>> probes.rows["features"].shape, probes.pooled[0]
        (torch.Size([6, 5]), tensor([ True, False]))
        >>> probes.pool(probes.rows["features"]).shape
        torch.Size([3, 5])
    """

    rows: Batch
    pooled: Tensor
    has_others: bool

    @property
    def num_probes(self) -> int:
        """Number P of probes of each operator."""
        return self.pooled.shape[1]

    @classmethod
    def of(cls, batch: Batch, *, random: bool = False) -> Self:
        """Return the probes of a batch.

        A batch of the view ``probes`` has P probes of each operator, all of which are pooled. A
        batch of pairs has two, and the token is that of the first. Other batches have one.

        Args:
            batch: Batch with ``features [B, F]`` or ``[B, P, F]``.
            random: Whether to pool a random number, from 1 to P - 1, of random probes, if the
                batch has sets of at least two probes. Draws from torch's global generator.

        Raises:
            ContractError: If features are neither, such as those of the view ``sequence``.
        """
        features = contract.batch_entry(batch, "features")
        if features.ndim == 3:
            return cls._of_sets(batch, features, random)
        parts: list[Mapping[str, Tensor]] = [batch]
        if "other_features" in batch:
            others = ((key, f"other_{key}") for key in ("features", *CONDITION_KEYS))
            parts.append({key: batch[other] for key, other in others if other in batch})
        keys = [key for key in ("features", *CONDITION_KEYS) if all(key in p for p in parts)]
        rows = {key: torch.stack([part[key] for part in parts], 1).flatten(0, 1) for key in keys}
        first = torch.arange(len(parts), device=features.device) == 0
        return cls(rows, first.expand(len(features), -1), len(parts) > 1)

    @classmethod
    def _of_sets(cls, batch: Batch, features: Tensor, random: bool) -> Self:
        size = features.shape[:2]
        for key in CONDITION_KEYS:
            if key in batch and batch[key].shape[:2] != size:
                raise contract.ContractError(
                    f"batch['features'] is {list(features.shape)} but batch[{key!r}] is "
                    f"{list(batch[key].shape)}: expected [B, F], or [B, P, F] and [B, P, ...] of P "
                    "probes (the view probes). SequenceVQVAE takes features of all timesteps"
                )
        keys = ("features", *CONDITION_KEYS)
        rows = {key: batch[key].flatten(0, 1) for key in keys if key in batch}
        pooled = torch.ones(size, dtype=torch.bool, device=features.device)
        has_others = random and size[1] > 1
        if has_others:
            number = torch.randint(1, size[1], (len(features), 1), device=features.device)
            pooled = torch.rand(size, device=features.device).argsort(dim=1) < number
        return cls(rows, pooled, has_others)

    def pool(self, values: Tensor) -> Tensor:
        """Return the mean ``[B, ...]`` over the pooled probes of values ``[B * P, ...]``."""
        values = values.reshape(*self.pooled.shape, *values.shape[1:])
        weights = self.pooled.to(values.dtype)
        weights = weights / weights.sum(1, keepdim=True)
        return torch.einsum("bp,bp...->b...", weights, values)

    def spread(self, values: Tensor) -> Tensor:
        """Repeat values ``[B, ...]`` of operators for each probe, ``[B * P, ...]``."""
        return values.repeat_interleave(self.num_probes, dim=0)

    def errors(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared errors of the pooled probes and of the others.

        Args:
            prediction: Predictions ``[B * P, F]``.
            target: True values ``[B * P, F]``.

        Returns:
            Two scalars; the second is 0 if all probes are pooled.
        """
        error = (prediction - target).square().mean(1).view(self.pooled.shape)
        own = self.pooled.to(error.dtype)
        pooled, others = ((error * of).sum() / of.sum().clamp(min=1) for of in (own, 1 - own))
        return pooled, others

    def distance(self, latents: Tensor) -> Tensor:
        """Return the mean squared distance between two probes of an operator.

        Args:
            latents: Latents ``[B * P, D]``.

        Returns:
            Scalar, the mean over operators, pairs of probes and columns; 0 for P = 1.
        """
        if self.num_probes == 1:
            return latents.new_zeros(())
        return 2 * latents.reshape(*self.pooled.shape, -1).var(dim=1).mean()
