"""A vector-quantized autoencoder (VQ-VAE) of the features of one timestep.

References:
    1. van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, NeurIPS 2017:
       the loss and the straight-through gradient.
    2. Łańcucki et al., Robust training of vector quantized bottleneck models, IJCNN 2020: batch
       normalization of the latent, and k-means after a warm-up.
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
from spinlock.models.autoencoder import ConditionedAutoencoder, Normalization
from spinlock.models.conditioning import Batch, Condition, feature_columns, other_probe, variants
from spinlock.models.independence import IndependenceConfig, IndependenceTerms
from spinlock.models.model_arguments import configured, plain_arguments
from spinlock.models.quantizers import Quantizer, QuantizerConfig
from spinlock.models.resumable import ResumableModule
from spinlock.models.schedule import Schedule, ScheduleConfig

Outputs = dict[str, Tensor]

# Number of latents that k-means uses: 64 for each of 256 codes.
_MOST_LATENTS = 16384
# Suffix of "val" or "test" in names of logged values, for each data loader.
_LOADERS = ("", "/held_out")


class FeatureVQVAE(ResumableModule):
    """Encodes features to one token of a codebook, and decodes the token to features.

    Encoder and decoder may have features and variant of the initial condition as further inputs, so
    that the token does not need to encode the initial condition. Three settings discourage it from
    doing so anyway: `normalization`, the `independence` terms, and pairs of probes.

    The loss is the mean squared error of the reconstruction, plus `commitment_weight` times the
    squared distance of latent and code [1], plus the independence terms. With `pair_weight` w, the
    error is (1 - w) times that of the sample's own features plus w times that of the features of
    the same operator under another probe, decoded from the same token (the data module's view
    ``pairs``).

    Training starts with continuous latents. K-means of these latents then initializes the codebook
    [2].

    Logs in each training step ``train/loss`` and the ramped terms as ``train/<term>``. Logs in each
    validation epoch ``val/loss`` (without the ramped terms), ``val/reconstruction`` (mean squared
    error in the scale of ``batch["features"]``) and ``val/r2`` (1 − residual / total sum of
    squares, both over samples and columns, the total about each column's mean). A second data
    loader has held-out variants; its values are under ``val/held_out/``. Test epochs log the same
    under ``test/``. R2 needs at least two samples.

    Weights, k-means, replaced codes and projections depend on torch's global generators: call
    ``lightning.seed_everything`` for reproducible runs. See `ResumableModule` for checkpoints.

    Args:
        num_features: Number F of columns of ``batch["features"]``.
        num_initial_features: Number F' of columns of ``batch["initial_features"]``.
        num_variants: Number of variants of the data module.
        latent_dim: Dimension D of a code.
        hidden_dims: Widths of the encoder's hidden layers; the decoder has them in reverse order.
        codebook_size: Number of codes of each codebook.
        quantizer: Kind and number of codebooks, and how codes are learned.
        commitment_weight: Weight of the commitment term.
        encoder_conditions: Inputs of the encoder besides the features: ``initial_features``,
            ``variant``, both or neither.
        decoder_conditions: Inputs of the decoder besides the code, from the same list.
        normalization: Batch normalization of the latent: with the statistics of each ``variant``,
            with ``pooled`` statistics, or ``none``. Evaluation uses running statistics.
        carry_initial: Whether to add the initial features, times one learned factor for each
            column, to the decoder's output. Features of initial conditions unlike those of training
            then still have an effect.
        independence: Weights of the terms that make tokens independent of the variant.
        pair_weight: Weight w of the other probe's features, in [0, 1].
        alignment_weight: Weight of the mean squared distance between the latents of an operator
            under its two probes; ramped like the independence terms.
        schedule: Warm-up, ramp and learning rate, as fractions of the run.
        learning_rate: Maximum learning rate of AdamW.
        weight_decay: Weight decay of AdamW.

    Raises:
        ConfigurationError: An argument is out of range, or arguments do not fit together.
        ImportError: vector-quantize-pytorch is not installed.
        ContractError: From steps, if a batch lacks an entry or an entry has another shape.

    Example:
        >>> import torch
        >>> from spinlock.models import FeatureVQVAE
        >>> model = FeatureVQVAE(num_features=5, num_initial_features=5, num_variants=2)
        >>> features = torch.arange(40.0).view(8, 5)
        >>> variant = torch.tensor([0, 1] * 4)
        >>> batch = {"features": features, "initial_features": features, "variant": variant}
        >>> outputs = model.eval()(batch)
        >>> outputs["tokens"].shape, outputs["reconstruction"].shape
        (torch.Size([8]), torch.Size([8, 5]))
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
        self.save_hyperparameters(plain_arguments(type(self), given, FeatureVQVAE))
        if not (0 <= pair_weight <= 1 and alignment_weight >= 0):
            raise ConfigurationError(
                "pair_weight: must be in [0, 1], and alignment_weight at least 0; got "
                f"{pair_weight} and {alignment_weight}"
            )
        quantizer = configured(QuantizerConfig, quantizer)
        self.num_features = num_features
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
        prefixes = [stage + loader for stage in ("val", "test") for loader in _LOADERS]
        self.r2 = nn.ModuleDict({p: R2Score(multioutput="variance_weighted") for p in prefixes})

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer."""
        return self.autoencoder.quantizer

    def setup(self, stage: str) -> None:
        """Check the number of variants, and synchronize the codebook if there are more processes.

        Raises:
            ConfigurationError: The data module has another number of variants.
        """
        super().setup(stage)
        known = contract.known_property(self.trainer, "variant_names")
        if known is not None and len(known) != self.num_variants:
            raise ConfigurationError(
                f"num_variants: the model has {self.num_variants} variants, the data module has "
                f"{len(known)}; set model.num_variants to {len(known)}"
            )
        if self.trainer.world_size > 1:
            self.autoencoder.synchronize_codebook()

    def forward(self, batch: Batch) -> Outputs:
        """Encode, quantize and decode; see `ConditionedAutoencoder.forward`."""
        return self._outputs(self.autoencoder(self._rows(batch)), batch)

    def decode(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Return features ``[B, F]`` for tokens and the initial conditions of a batch.

        Args:
            tokens: Tokens ``[B]`` or ``[B, Q]``, int64.
            batch: Batch with the decoder's conditions: ``initial_features [B, F']``, ``variant``.
        """
        return self.autoencoder.decode(self.quantizer.codes(tokens), batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        rows, step, size = self._rows(batch), self.global_step, len(batch["features"])
        with self.own_randomness():
            warming_up = self._schedule.is_warming_up(step) and not self.quantizer.is_initialized
            if self._recent and not warming_up:
                self.quantizer.initialize(torch.cat(self._recent), len(rows["features"]))
                self._recent = []
            outputs = self.autoencoder(rows, continuous=warming_up)
            if warming_up:
                self._remember(outputs["latent"])
            terms = self._terms(rows, outputs["latent"], self._schedule.ramp(step))
        loss: Tensor = self._losses(rows, outputs)["loss"] + sum(terms.values())
        self.log_dict({f"train/{k}": v for k, v in terms.items()}, batch_size=size)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Outputs:
        """Return the outputs of `forward`, and the loss."""
        return self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Outputs:
        """Return the outputs of `forward`, and the loss."""
        return self._evaluate(batch, "test", dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> Outputs:
        """Return ``index [B]`` and ``tokens``, and ``token_sequence`` of a sequence model."""
        index, outputs = contract.batch_entry(batch, "index"), self(batch)
        keys = ("tokens", "token_sequence")
        return {"index": index, **{key: outputs[key] for key in keys if key in outputs}}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's type is not public)
        """Return AdamW, and a learning rate scheduled by step. Codes have no gradient."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        self._schedule = Schedule(self._schedule_config, self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._schedule.learning_rate)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _rows(self, batch: Batch) -> Batch:
        """Return the batch with one row of features ``[B, F]`` for each token."""
        return batch

    def _outputs(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Return the outputs for the samples of a batch from those for its rows."""
        return outputs

    def _remember(self, latent: Tensor) -> None:
        """Keep the latest latents of the warm-up for k-means."""
        self._recent.append(latent.detach())
        while sum(map(len, self._recent)) - len(self._recent[0]) > _MOST_LATENTS:
            del self._recent[0]

    def _terms(self, batch: Batch, latent: Tensor, ramp: float) -> Outputs:
        quantizer = self.quantizer
        assignments = quantizer.soft_assignments(latent) if quantizer.is_initialized else []
        terms = self.independence(latent, variants(batch, self.num_variants), assignments)
        if self.alignment_weight:
            distance = functional.mse_loss(latent, self.autoencoder.encode(other_probe(batch)))
            terms["alignment"] = self.alignment_weight * distance
        return {name: ramp * term for name, term in terms.items()}

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> Outputs:
        if loader >= len(_LOADERS):
            raise ConfigurationError(
                f"the model evaluates up to {len(_LOADERS)} data loaders, held_in and held_out; "
                "got more"
            )
        rows = self._rows(batch)
        outputs = self.autoencoder(rows)
        losses = self._losses(rows, outputs)
        prefix = stage + _LOADERS[loader]
        r2 = cast(R2Score, self.r2[prefix])
        r2.update(outputs["reconstruction"], rows["features"])
        size = len(batch["features"])
        options: dict[str, Any] = {"batch_size": size, "add_dataloader_idx": False}
        self.log_dict({f"{prefix}/{k}": v for k, v in losses.items()}, sync_dist=True, **options)
        self.log(f"{prefix}/r2", r2, **options)
        return {**self._outputs(outputs, batch), "loss": losses["loss"]}

    def _losses(self, batch: Batch, outputs: Batch) -> Outputs:
        target = feature_columns(batch, "features", self.num_features)
        reconstruction = functional.mse_loss(outputs["reconstruction"], target)
        error = reconstruction
        if self.pair_weight:
            decoded = self.autoencoder.decode(outputs["code"], other_probe(batch))
            other = feature_columns(batch, "other_features", self.num_features)
            cross = functional.mse_loss(decoded, other)
            error = (1 - self.pair_weight) * reconstruction + self.pair_weight * cross
        commitment = functional.mse_loss(outputs["latent"], outputs["code"].detach())
        loss = error + self.commitment_weight * commitment
        return {"loss": loss, "reconstruction": reconstruction}
