"""A vector-quantized autoencoder of the features of every timestep of a trajectory."""

from typing import ClassVar, cast

from torch import nn

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.metrics.token_dynamics import TokenDynamics
from spinlock.models.conditioning import CONDITION_KEYS, Batch
from spinlock.models.feature_vqvae import FeatureVQVAE, Outputs

COMPARED = ("lyapunov", "memory")
"""Columns of the dynamics that are compared with the fraction of kept tokens."""


class SequenceVQVAE(FeatureVQVAE):
    """Encodes trajectories ``[B, T, F]`` (the data module's view ``sequence``) to T tokens each.

    One network and one codebook serve all timesteps, and each timestep is encoded independently, so
    that a token means the same at every time. `FeatureVQVAE` describes training and logged scores;
    its samples are here the timesteps of all samples. Steps return ``token_sequence [B, T]``. Their
    ``tokens``, ``latent``, ``code`` and ``reconstruction`` are those of the last timestep.

    Logs in addition the scores of `TokenDynamics.compute` (dwell times and transitions, and their
    dependence on the update policy and on the operator's ``lyapunov`` and ``memory``), under
    ``sequence/`` at the end of each validation epoch and under ``test/sequence/`` at the end of a
    test epoch. The counts are available as ``dynamics`` until the next epoch.

    Arguments are those of `FeatureVQVAE`, with a single codebook. Terms of the loss that compare
    probes have no effect.

    Raises:
        ConfigurationError: From `configure_model`, if there are several codebooks.
        ContractError: From `setup`, if the data module has no ``update_policy_names``, and from
            steps, if a batch has no sequences.

    Example:
        >>> import torch
        >>> from spinlock.models import SequenceVQVAE
        >>> model = SequenceVQVAE(num_features=5, num_dynamics=0)
        >>> model.eval()({"features": torch.ones(4, 3, 5)})["token_sequence"].shape
        torch.Size([4, 3])
    """

    compares_probes: ClassVar[bool] = False

    def setup(self, stage: str) -> None:
        """Make the counts of the data module's update policies."""
        super().setup(stage)
        names = contract.data_attribute(
            self.trainer, "update_policy_names", reader=type(self).__name__
        )
        columns = contract.known_property(self.trainer, "dynamics_names") or ()
        self._columns = [columns.index(name) for name in COMPARED if name in columns]
        compared = [columns[column] for column in self._columns]
        counts = {s: TokenDynamics(self.codebook_size, names, compared) for s in ("val", "test")}
        # Checkpoints do not contain the counts, whose size depends on the data.
        self.dynamics = nn.ModuleDict(counts).to(self.device)

    def configure_model(self) -> None:
        """Build the network, and check that it has one codebook."""
        super().configure_model()
        if self.is_built and (count := self.quantizer.num_codebooks) > 1:
            raise ConfigurationError(
                f"SequenceVQVAE: quantizer.num_codebooks must be 1, got {count}"
            )

    def on_validation_epoch_start(self) -> None:
        """Reset the counts."""
        self._counts("val").reset()

    def on_validation_epoch_end(self) -> None:
        """Log the dynamics."""
        if not self.trainer.sanity_checking:
            self._log_dynamics("val", prefix="sequence")

    def on_test_epoch_start(self) -> None:
        """Reset the counts."""
        self._counts("test").reset()

    def on_test_epoch_end(self) -> None:
        """Log the dynamics."""
        self._log_dynamics("test", prefix="test/sequence")

    def _counts(self, stage: str) -> TokenDynamics:
        return cast(TokenDynamics, self.dynamics[stage])

    def _log_dynamics(self, stage: str, prefix: str) -> None:
        scores = self._counts(stage).compute()
        values = {
            f"{prefix}/{name}": value.float().to(self.device) for name, value in scores.items()
        }
        # All processes have the same values. Without sync_dist, Lightning would warn.
        self.log_dict(values, sync_dist=True)

    def _rows(self, batch: Batch) -> Batch:
        features = contract.batch_entry(batch, "features")
        if features.ndim != 3:
            raise contract.ContractError(
                f"batch['features'] is {list(features.shape)}, expected [B, T, F]: set the data "
                "module's view to sequence"
            )
        keys = [key for key in (*CONDITION_KEYS, "dynamics") if key in batch]
        rows = {key: batch[key].repeat_interleave(features.shape[1], 0) for key in keys}
        return {**rows, "features": features.flatten(0, 1)}

    def _outputs(self, outputs: Outputs, batch: Batch) -> Outputs:
        shape, outputs = batch["features"].shape[:2], super()._outputs(outputs, batch)
        by_step = {k: values.view(*shape, *values.shape[1:]) for k, values in outputs.items()}
        last = {name: values[:, -1] for name, values in by_step.items()}
        return {**last, "token_sequence": by_step["tokens"]}

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> Outputs:
        outputs = super()._evaluate(batch, stage, loader)
        policy = contract.batch_entry(batch, "update_policy")
        compares = bool(self._columns) and "dynamics" in batch
        dynamics = batch["dynamics"][:, self._columns] if compares else None
        self._counts(stage).update(outputs["token_sequence"], policy, dynamics)
        return outputs
