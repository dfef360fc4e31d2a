"""A vector-quantized autoencoder of the features of every timestep of a trajectory."""

from typing import cast

from torch import Tensor, nn

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.metrics.token_dynamics import TokenDynamics
from spinlock.models.autoencoder import Batch
from spinlock.models.feature_vqvae import FeatureVQVAE

# Entries of a batch that belong to a sample, and to each of its timesteps alike.
_OF_SAMPLES = ("initial_features", "variant")


class SequenceVQVAE(FeatureVQVAE):
    """Encodes trajectories ``[B, T, F]`` (the data module's view ``sequence``) to T tokens each.

    One network and one codebook serve all timesteps, each encoded by itself, so that a token means
    the same at every time. All of `FeatureVQVAE` applies, with the timesteps of all samples as its
    samples; figures are over all timesteps. Steps return ``token_sequence [B, T]``; their
    ``tokens``, ``latent`` and ``reconstruction`` are those of the last timestep.

    Logs also, at the end of each validation epoch under ``sequence/``, and of each test epoch under
    ``test/sequence/``, what `TokenDynamics.compute` lists: dwell times and transitions, and how
    they depend on the update policy. The counts stay in ``dynamics`` until the next epoch.

    Arguments are those of `FeatureVQVAE`, with a single codebook and without ``pair_weight``.

    Raises:
        ConfigurationError: By `setup`, on several codebooks or a ``pair_weight``.
        ContractError: By its steps, where a batch has no sequences.
    """

    def setup(self, stage: str) -> None:
        """Check arguments, and start the counts of the data's update policies."""
        super().setup(stage)
        if self.quantizer.num_codebooks > 1 or self.pair_weight:
            raise ConfigurationError(
                "SequenceVQVAE: quantizer.num_codebooks must be 1 and pair_weight 0, got "
                f"{self.quantizer.num_codebooks} and {self.pair_weight}"
            )
        names = contract.data_attribute(
            self.trainer, "update_policy_names", reader=type(self).__name__
        )
        dynamics = {part: TokenDynamics(self.codebook_size, names) for part in ("val", "test")}
        # No part of a checkpoint: their size is that of the data's policies.
        self.dynamics = nn.ModuleDict(dynamics).to(self.device)

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self._counts("val").reset()

    def on_validation_epoch_end(self) -> None:
        """Log."""
        if not self.trainer.sanity_checking:
            self._log_dynamics("val", prefix="sequence")

    def on_test_epoch_start(self) -> None:
        """Count anew."""
        self._counts("test").reset()

    def on_test_epoch_end(self) -> None:
        """Log."""
        self._log_dynamics("test", prefix="test/sequence")

    def _counts(self, part: str) -> TokenDynamics:
        return cast(TokenDynamics, self.dynamics[part])

    def _log_dynamics(self, part: str, prefix: str) -> None:
        figures = self._counts(part).compute()
        values = {f"{prefix}/{name}": value.float() for name, value in figures.items()}
        # Equal on all processes already; Lightning warns of epoch values without sync_dist.
        self.log_dict(values, sync_dist=True)

    def _rows(self, batch: Batch) -> Batch:
        features = contract.batch_entry(batch, "features")
        if features.ndim != 3:
            raise contract.ContractError(
                f"batch['features'] is {list(features.shape)}, expected [B, T, F]: set the data "
                "module's view to sequence"
            )
        steps = features.shape[1]
        rows = {key: batch[key].repeat_interleave(steps, 0) for key in _OF_SAMPLES if key in batch}
        return {**rows, "features": features.flatten(0, 1)}

    def _outputs(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        shape = batch["features"].shape[:2]
        by_step = {k: values.view(*shape, *values.shape[1:]) for k, values in outputs.items()}
        last = {name: values[:, -1] for name, values in by_step.items()}
        return {**last, "token_sequence": by_step["tokens"]}

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> dict[str, Tensor]:
        outputs = super()._evaluate(batch, stage, loader)
        policy = contract.batch_entry(batch, "update_policy")
        self._counts(stage).update(outputs["token_sequence"], policy)
        return outputs
