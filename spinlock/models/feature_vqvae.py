"""A vector-quantized autoencoder of the features of one timestep.

References:
    1. van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, NeurIPS 2017:
       the loss and the straight-through gradient.
    2. Łańcucki et al., Robust training of vector quantized bottleneck models, IJCNN 2020: batch
       normalization before the codebook, and a codebook made by k-means after a warm-up.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.regression import R2Score

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.features import PER_TIMESTEP_NAMES
from spinlock.models.autoencoder import Batch, ConditionedAutoencoder, Normalization, other_probe
from spinlock.models.codebook import Quantizer, QuantizerConfig
from spinlock.models.conditioning import Condition
from spinlock.models.configuration import configured, kept_arguments
from spinlock.models.independence import IndependenceConfig, IndependenceTerms
from spinlock.models.resumable import ResumableModule
from spinlock.models.schedule import Schedule, ScheduleConfig

# Latents kept for k-means: 64 for each of 256 codes.
_MOST_LATENTS = 16384
_STAGES, _PARTS = ("val", "test"), ("held_in", "held_out")


class FeatureVQVAE(ResumableModule):
    """Encodes features to one token of a codebook, and decodes the token to features.

    The initial condition is known, so encoder and decoder may see its features and its variant too:
    what the decoder gets from there, the token need not carry. That it does not carry it all the
    same is the business of `normalization`, of the `independence` terms and of pairs.

    The loss is the mean squared error of the reconstruction, plus `commitment_weight` times the
    squared distance of latent and code [1], plus the independence terms. With `pair_weight` w the
    error is (1 - w) that of the sample's own features plus w that of the features of the same
    operator under another probe, decoded from the same token (the data module's view ``pairs``).

    Training starts with continuous latents; then k-means of those latents makes the codebook [2].

    Logs ``train/loss`` each step, with ``train/<term>`` of the ramped terms, and over each
    validation epoch ``val/loss`` (without these terms), ``val/reconstruction`` (mean squared error
    in the scale of ``batch["features"]``) and ``val/r2`` (1 − residual / total sum of squares, both
    summed over samples and columns, the total about each column's mean). Of a second loader,
    held-out variants, the same under ``val/held_out/``. On testing ``test/`` in place of ``val/``.
    Validation and test epochs need two samples or more.

    Weights, k-means, revival and projections depend on torch's global generators: seed them
    (``lightning.seed_everything``) for runs that repeat. See `ResumableModule` for checkpoints.

    Args:
        num_features: Columns of ``batch["features"]``.
        num_initial_features: Columns of ``batch["initial_features"]``.
        num_variants: Number of variants that ``batch["variant"]`` counts.
        latent_dim: Dimension of a code.
        hidden_dims: Widths of the encoder's hidden layers; the decoder has them in reverse.
        codebook_size: Number of codes of each codebook.
        quantizer: Kind and number of codebooks, and how codes learn.
        commitment_weight: Weight of the commitment term.
        encoder_conditions: What the encoder sees beside the features: of ``initial_features``,
            ``variant`` and ``increment``; see `Conditioning`.
        decoder_conditions: What the decoder sees beside the code; it may not see ``increment``.
        normalization: Batch normalization of the latent by the statistics of each ``variant``, by
            ``pooled`` statistics, or ``none``; evaluation uses running statistics.
        carry_initial: Add the initial features to what the decoder gives, times a learned factor
            for each column: features of initial conditions unlike those trained on then still pass.
        independence: Weights of the terms that make tokens independent of the variant.
        pair_weight: w, in [0, 1].
        alignment_weight: Weight of the mean squared distance of an operator's latents under its two
            probes, ramped like the independence terms.
        schedule: Warm-up, ramp and learning rate, in fractions of the run.
        learning_rate: Largest learning rate, of AdamW.
        weight_decay: Of AdamW.

    Raises:
        ConfigurationError: An argument is out of range, or arguments do not fit together.
        ImportError: vector-quantize-pytorch is not installed.
        ContractError: By its steps, where a batch lacks an entry or has another number of columns.
    """

    def __init__(
        self,
        num_features: int = len(PER_TIMESTEP_NAMES),
        *,
        num_initial_features: int = len(PER_TIMESTEP_NAMES),
        num_variants: int = 10,
        latent_dim: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        codebook_size: int = 256,
        quantizer: QuantizerConfig | None = None,
        commitment_weight: float = 0.25,
        encoder_conditions: Sequence[Condition] = ("initial_features", "variant"),
        decoder_conditions: Sequence[Condition] = ("initial_features", "variant"),
        normalization: Normalization = "variant",
        carry_initial: bool = False,
        independence: IndependenceConfig | None = None,
        pair_weight: float = 0.0,
        alignment_weight: float = 0.0,
        schedule: ScheduleConfig | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(latent_dim)
        # Primitives only: a checkpoint has to load with weights_only=True.
        self.save_hyperparameters(kept_arguments(type(self), given, FeatureVQVAE))
        if not (0 <= pair_weight <= 1 and alignment_weight >= 0):
            raise ConfigurationError(
                "pair_weight: must be in [0, 1], and alignment_weight at least 0; got "
                f"{pair_weight} and {alignment_weight}"
            )
        quantizer = configured(QuantizerConfig, quantizer)
        self.num_variants = num_variants
        self.codebook_size = codebook_size
        self.commitment_weight = commitment_weight
        self.pair_weight = pair_weight
        self.alignment_weight = alignment_weight
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.autoencoder = ConditionedAutoencoder(
            num_features,
            num_initial_features=num_initial_features,
            num_variants=num_variants,
            latent_dim=latent_dim,
            hidden_dims=hidden_dims,
            codebook_size=codebook_size,
            quantizer=quantizer,
            encoder_conditions=encoder_conditions,
            decoder_conditions=decoder_conditions,
            normalization=normalization,
            carry_initial=carry_initial,
        )
        self.independence = IndependenceTerms(
            configured(IndependenceConfig, independence),
            num_variants=num_variants,
            codebook_size=codebook_size,
            num_codebooks=quantizer.num_codebooks,
        )
        self._schedule_config = configured(ScheduleConfig, schedule)
        self._schedule: Schedule | None = None
        self.r2 = nn.ModuleDict(
            {
                f"{stage}_{part}": R2Score(multioutput="variance_weighted")
                for stage in _STAGES
                for part in _PARTS
            }
        )

    @property
    def quantizer(self) -> Quantizer:
        """The codebook."""
        return self.autoencoder.quantizer

    def setup(self, stage: str) -> None:
        """Check the number of variants, connect the codebooks of processes, and start anew.

        Raises:
            ConfigurationError: The data module has another number of variants.
        """
        super().setup(stage)
        known = contract.known_property(self.trainer, "variant_names")
        if known is not None and len(known) != self.num_variants:
            raise ConfigurationError(
                f"num_variants: the model was made for {self.num_variants} variants of initial "
                f"conditions, the data have {len(known)}; set model.num_variants to {len(known)}"
            )
        if self.trainer.world_size > 1:
            self.autoencoder.synchronize_codebook()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Encode, quantize and decode; see `ConditionedAutoencoder.forward`."""
        return self._outputs(self.autoencoder(self._rows(batch)), batch)

    def decode(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Features ``[B, F]`` that tokens stand for under the initial conditions of a batch.

        Args:
            tokens: ``[B]`` or ``[B, Q]`` int64.
            batch: What the decoder's conditions need: ``initial_features [B, F']``, ``variant``.
        """
        return self.autoencoder.decode(self.quantizer.codes(tokens), batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        schedule, step, rows = self._running_schedule(), self.global_step, self._rows(batch)
        with self.own_randomness():
            if schedule.is_warming_up(step) and not self.quantizer.is_initialized:
                outputs = self.autoencoder(rows, continuous=True)
                self._remember(outputs["latent"])
            else:
                self._initialize_codebook(len(rows["features"]))
                outputs = self.autoencoder(rows)
            terms = self._terms(rows, outputs["latent"], schedule.ramp(step))
        loss: Tensor = self._losses(rows, outputs)["loss"] + sum(terms.values())
        size = len(batch["features"])
        self.log_dict({f"train/{k}": v for k, v in terms.items()}, batch_size=size)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        return loss

    def validation_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """What :meth:`forward` gives, and the loss: the contract's outputs."""
        return self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """What :meth:`forward` gives, and the loss: the contract's outputs."""
        return self._evaluate(batch, "test", dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """``tokens``, and ``token_sequence`` if any, with the ``index [B]`` of their samples."""
        index = contract.batch_entry(batch, "index")
        outputs = self(batch)
        kinds = ("tokens", "token_sequence")
        return {"index": index, **{kind: outputs[kind] for kind in kinds if kind in outputs}}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's type is not public)
        """AdamW over encoder and decoder, scheduled by step; codes have no gradient."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        # A model may be trained again, for another number of steps.
        self._schedule = None
        factor = self._running_schedule().learning_rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _rows(self, batch: Batch) -> Batch:
        """The batch as rows of features ``[B, F]``, which this model's batches are already."""
        return batch

    def _outputs(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """What the rows of a batch gave, as the outputs of its samples."""
        return outputs

    def _running_schedule(self) -> Schedule:
        if self._schedule is None:
            steps = self.trainer.estimated_stepping_batches
            self._schedule = Schedule(self._schedule_config, steps)
        return self._schedule

    def _remember(self, latent: Tensor) -> None:
        """Keep the latest latents of the warm-up, for k-means."""
        self._recent.append(latent.detach())
        while sum(map(len, self._recent)) - len(self._recent[0]) > _MOST_LATENTS:
            del self._recent[0]

    def _initialize_codebook(self, batch_size: int) -> None:
        if self._recent:
            self.quantizer.initialize(torch.cat(self._recent), batch_size)
            self._recent = []

    def _terms(self, batch: Batch, latent: Tensor, ramp: float) -> dict[str, Tensor]:
        ready = self.quantizer.is_initialized and self.independence.need_assignments
        assignments = self.quantizer.soft_assignments(latent) if ready else []
        variant = self.autoencoder.variants(batch)
        terms = self.independence(latent, variant, assignments)
        if self.alignment_weight:
            distance = functional.mse_loss(latent, self.autoencoder.encode(other_probe(batch)))
            terms["alignment"] = self.alignment_weight * distance
        return {name: ramp * term for name, term in terms.items()}

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> dict[str, Tensor]:
        if loader >= len(_PARTS):
            known = " and ".join(_PARTS)
            raise ConfigurationError(f"the model names {len(_PARTS)} loaders, {known}; got more")
        rows = self._rows(batch)
        outputs = self.autoencoder(rows)
        losses = self._losses(rows, outputs)
        r2 = cast(R2Score, self.r2[f"{stage}_{_PARTS[loader]}"])
        r2.update(outputs["reconstruction"], rows["features"])
        prefix = stage if loader == 0 else f"{stage}/{_PARTS[loader]}"
        size = len(batch["features"])
        options: dict[str, Any] = {"batch_size": size, "add_dataloader_idx": False}
        self.log_dict({f"{prefix}/{k}": v for k, v in losses.items()}, sync_dist=True, **options)
        self.log(f"{prefix}/r2", r2, **options)
        return {**self._outputs(outputs, batch), "loss": losses["loss"]}

    def _losses(self, batch: Batch, outputs: Batch) -> dict[str, Tensor]:
        target = self.autoencoder.columns(batch, "features")
        reconstruction = functional.mse_loss(outputs["reconstruction"], target)
        error = reconstruction
        if self.pair_weight:
            decoded = self.autoencoder.decode(outputs["code"], other_probe(batch))
            cross = functional.mse_loss(decoded, self.autoencoder.columns(batch, "other_features"))
            error = (1 - self.pair_weight) * reconstruction + self.pair_weight * cross
        commitment = functional.mse_loss(outputs["latent"], outputs["code"].detach())
        loss = error + self.commitment_weight * commitment
        return {"loss": loss, "reconstruction": reconstruction}
