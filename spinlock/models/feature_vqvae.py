"""A vector-quantized autoencoder (VQ-VAE) of features.

References:
    1. van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, NeurIPS 2017:
       the loss and the straight-through gradient.
    2. Łańcucki et al., Robust training of vector quantized bottleneck models, IJCNN 2020: batch
       normalization of the latent, and k-means after a warm-up.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics.regression import R2Score

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.models.autoencoder import ConditionedAutoencoder, Normalization
from spinlock.models.conditioning import Batch, Condition, variants
from spinlock.models.independence import IndependenceConfig, IndependenceTerms
from spinlock.models.losses import LossConfig
from spinlock.models.model_arguments import configured, plain_arguments
from spinlock.models.probe_sets import ProbeSets
from spinlock.models.quantizers import Quantizer, QuantizerConfig
from spinlock.models.schedule import Schedule, ScheduleConfig
from spinlock.models.sized_module import SizedModule

Outputs = dict[str, Tensor]

# Suffix of "val" or "test" in names of logged values, for each data loader.
_LOADERS = ("", "/held_out")


class FeatureVQVAE(SizedModule):
    """Encodes features to one token of a codebook, and decodes the token.

    With its defaults, the model encodes what an operator does. Its data are response features, of
    which the data module selects the invariant columns, in the view ``pairs`` or ``probes``. The
    token of one probe has to decode the features of this probe, those of another probe of the same
    operator, and the operator's dynamics. The latents of two probes are drawn together.

    Batches of the view ``probes`` have ``features [B, P, F]``: P probes of each operator. The mean
    of their latents is quantized, so that one token stands for the operator. Training pools a
    random subset of the probes; evaluation pools all probes of the batch.

    `LossConfig` describes the loss [1]. Training starts with continuous latents. K-means of these
    latents then initializes the codebook [2].

    Features of output fields depend on the initial condition. For these, encoder and decoder may
    have features and variant of the initial condition as further inputs, so that the token does not
    need to encode them, and `normalization` and `independence` discourage the token from doing so
    anyway.

    Logs in each training step ``train/loss`` and the ramped terms as ``train/<term>``. Logs in each
    validation epoch ``val/loss`` (without the ramped terms), ``val/reconstruction`` and
    ``val/dynamics`` (mean squared errors in the scale of the batch) and ``val/r2`` (1 − residual /
    total sum of squares of the features, both over samples and columns, the total about each
    column's mean). A second data loader has held-out variants; its values are under
    ``val/held_out/``. Test epochs log the same under ``test/``. R2 needs at least two samples.

    Weights, k-means, replaced codes, projections and subsets depend on torch's global generators:
    call ``lightning.seed_everything`` for reproducible runs. See `ResumableModule` for checkpoints.

    Args:
        num_features: Number F of columns of ``batch["features"]``. Default of this and the next
            three: the number in the data module, when a trainer starts.
        num_dynamics: Number D' of columns of ``batch["dynamics"]``.
        num_initial_features: Number F' of columns of ``batch["initial_features"]``; used by
            conditions only.
        num_variants: Number of variants; used only by settings that distinguish variants.
        latent_dim: Dimension D of a code.
        hidden_dims: Widths of the encoder's hidden layers; the decoder has them in reverse order.
        codebook_size: Number of codes of each codebook.
        quantizer: Kind and number of codebooks, and how codes are learned.
        encoder_conditions: Inputs of the encoder besides the features: ``initial_features``,
            ``variant``, both or neither.
        decoder_conditions: Inputs of the decoder besides the code, from the same list.
        normalization: Batch normalization of the latent: with ``pooled`` statistics, with the
            statistics of each ``variant``, or ``none``. Evaluation uses running statistics.
        independence: Weights of the terms that make tokens independent of the variant; default:
            no such terms.
        loss: Weights of the other terms of the loss.
        schedule: Warm-up, ramp and learning rate, as fractions of the run.
        learning_rate: Maximum learning rate of Adam.

    Raises:
        ConfigurationError: An argument is out of range, or arguments do not fit together.
        ImportError: vector-quantize-pytorch is not installed.
        ContractError: From `configure_model`, if a size is neither given nor known; from steps, if
            a batch lacks an entry or an entry has another shape.

    Example:
        >>> import torch
        >>> from spinlock.models import FeatureVQVAE
        >>> model = FeatureVQVAE(num_features=5, num_dynamics=2)
        >>> outputs = model.eval()({"features": torch.arange(40.0).view(8, 5)})
        >>> outputs["tokens"].shape, outputs["reconstruction"].shape, outputs["dynamics"].shape
        (torch.Size([8]), torch.Size([8, 5]), torch.Size([8, 2]))
        >>> model({"features": torch.ones(8, 3, 5)})["tokens"].shape  # 3 probes of each operator
        torch.Size([8])
    """

    compares_probes: ClassVar[bool] = True
    autoencoder: ConditionedAutoencoder

    def __init__(
        self,
        num_features: int | None = None,
        *,
        num_dynamics: int | None = None,
        num_initial_features: int | None = None,
        num_variants: int | None = None,
        latent_dim: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        codebook_size: int = 256,
        quantizer: QuantizerConfig | None = None,
        encoder_conditions: Sequence[Condition] = (),
        decoder_conditions: Sequence[Condition] = (),
        normalization: Normalization = "pooled",
        independence: IndependenceConfig | None = None,
        loss: LossConfig | None = None,
        schedule: ScheduleConfig | None = None,
        learning_rate: float = 3e-3,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(latent_dim)
        self.save_hyperparameters(plain_arguments(type(self), given, FeatureVQVAE))
        self.codebook_size = codebook_size
        self.learning_rate = learning_rate
        self.loss = configured(LossConfig, loss)
        self._schedule_config = configured(ScheduleConfig, schedule)
        self._independence_config = (
            None if independence is None else configured(IndependenceConfig, independence)
        )
        self._make_network = partial(
            ConditionedAutoencoder,
            latent_dim=latent_dim,
            hidden_dims=hidden_dims,
            codebook_size=codebook_size,
            quantizer=configured(QuantizerConfig, quantizer),
            encoder_conditions=encoder_conditions,
            decoder_conditions=decoder_conditions,
            normalization=normalization,
        )
        conditions = (*encoder_conditions, *decoder_conditions)
        by_variant = "variant" in (*conditions, normalization) or independence is not None
        self._sizes = {
            "num_features": num_features,
            "num_dynamics": num_dynamics if self.loss.dynamics else 0,
            "num_initial_features": num_initial_features if "initial_features" in conditions else 0,
            "num_variants": num_variants if by_variant else 1,
        }
        prefixes = [stage + loader for stage in ("val", "test") for loader in _LOADERS]
        self.r2 = nn.ModuleDict({p: R2Score(multioutput="variance_weighted") for p in prefixes})
        if None not in self._sizes.values():
            self._build_with(self._sizes)

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer."""
        return self.autoencoder.quantizer

    def configure_model(self) -> None:
        """Build the network, and share the codebook among processes."""
        super().configure_model()
        if self._trainer is not None and self._trainer.world_size > 1:
            self.autoencoder.synchronize_codebook()

    def forward(self, batch: Batch) -> Outputs:
        """Encode, quantize and decode ``features [B, F]``, or ``[B, P, F]`` of P probes.

        Returns:
            ``tokens`` (int64 ``[B]`` or ``[B, Q]``), ``latent`` (``[B, D]``), ``code`` (``[B, D]``,
            the quantized latent with the latent's gradient), ``reconstruction`` (``[B, F]``) and
            ``dynamics`` (``[B, D']``, if they are decoded).
        """
        return self._outputs(self._encoded(ProbeSets.of(self._rows(batch))), batch)

    def quantize(self, latent: Tensor) -> Tensor:
        """Return the tokens ``[B]`` or ``[B, Q]`` of latents ``[B, D]``, in evaluation."""
        return self.autoencoder.quantize(latent)[1]

    def codes(self, tokens: Tensor) -> Tensor:
        """Return the codes ``[B, D]`` of tokens ``[B]`` or ``[B, Q]``, int64."""
        return self.quantizer.codes(tokens)

    def decode(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Return features ``[B, F]`` of tokens, under the decoder's conditions in a batch."""
        return self.autoencoder.decode(self.codes(tokens), batch)[0]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        rows, step, size = self._rows(batch), self.global_step, len(batch["features"])
        schedule = self._schedule.in_force(self.trainer)
        with self.own_randomness():
            probes = ProbeSets.of(rows, random=True)
            if self.compares_probes:
                self.loss.require_other_probes(probes)
            warming_up = schedule.is_warming_up(step) and not self.quantizer.is_initialized
            if self._recent and not warming_up:
                self.quantizer.initialize(torch.cat(self._recent), len(probes.pooled))
                self._recent = []
            outputs = self._encoded(probes, continuous=warming_up)
            if warming_up:
                self.remember(outputs["latent"])
            terms = self._terms(probes, outputs["latents"], schedule.ramp(step))
        loss: Tensor = self.loss.errors(probes, outputs, rows)["loss"] + sum(terms.values())
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
        """Return ``index``, ``operator``, ``tokens``, ``latent``, and a ``token_sequence``."""
        known = {key: contract.batch_entry(batch, key) for key in ("index", "operator")}
        outputs, keys = self(batch), ("tokens", "latent", "token_sequence")
        return {**known, **{key: outputs[key] for key in keys if key in outputs}}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's type is not public)
        """Return Adam, and a learning rate scheduled by step. Codes have no gradient."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        self._schedule = Schedule(self._schedule_config, self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._schedule.learning_rate)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _build(self, sizes: Mapping[str, Any]) -> None:
        self.autoencoder, config = self._make_network(**sizes), self._independence_config
        numbers = {
            "num_variants": sizes["num_variants"],
            "codebook_size": self.codebook_size,
            "num_codebooks": self.quantizer.num_codebooks,
        }
        self.independence = None if config is None else IndependenceTerms(config, **numbers)

    def _rows(self, batch: Batch) -> Batch:
        """Return the entries of a batch with features ``[B, F]`` or ``[B, P, F]`` for a token."""
        return batch

    def _outputs(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Return the outputs for the samples of a batch from those for its rows."""
        return {key: value for key, value in outputs.items() if key not in ("latents", "decoded")}

    def _encoded(self, probes: ProbeSets, *, continuous: bool = False) -> Outputs:
        """Return the outputs of `forward`, and ``latents`` and ``decoded`` of each probe.

        Args:
            probes: Probes.
            continuous: Whether to decode the latent itself, without quantization and tokens.
        """
        network = self.autoencoder
        latents = network.encode(probes.rows)
        outputs = {"latent": probes.pool(latents)}
        outputs["code"] = outputs["latent"]
        if not continuous:
            outputs["code"], outputs["tokens"] = network.quantize(outputs["latent"])
        decoded, dynamics = network.decode(probes.spread(outputs["code"]), probes.rows)
        if dynamics.shape[1]:
            outputs["dynamics"] = probes.pool(dynamics)
        reconstruction = probes.pool(decoded)
        return {**outputs, "reconstruction": reconstruction, "latents": latents, "decoded": decoded}

    def _terms(self, probes: ProbeSets, latents: Tensor, ramp: float) -> Outputs:
        terms = {}
        if self.independence is not None:
            quantizer = self.quantizer
            assignments = quantizer.soft_assignments(latents) if quantizer.is_initialized else []
            variant = variants(probes.rows, self.autoencoder.num_variants)
            terms = self.independence(latents, variant, assignments)
        if self.loss.alignment:
            terms["alignment"] = self.loss.alignment * probes.distance(latents)
        return {name: ramp * term for name, term in terms.items()}

    def _evaluate(self, batch: Batch, stage: str, loader: int) -> Outputs:
        if loader >= len(_LOADERS):
            raise ConfigurationError("the model evaluates two data loaders, held_in and held_out")
        rows = self._rows(batch)
        probes = ProbeSets.of(rows)
        outputs = self._encoded(probes)
        losses = self.loss.errors(probes, outputs, rows)
        prefix = stage + _LOADERS[loader]
        r2 = cast(R2Score, self.r2[prefix])
        pooled = probes.pooled.flatten()
        r2.update(outputs["decoded"][pooled], probes.rows["features"][pooled])
        size = len(batch["features"])
        options: dict[str, Any] = {"batch_size": size, "add_dataloader_idx": False}
        self.log_dict({f"{prefix}/{k}": v for k, v in losses.items()}, sync_dist=True, **options)
        self.log(f"{prefix}/r2", r2, prog_bar=prefix == "val", **options)
        return {**self._outputs(outputs, batch), "loss": losses["loss"]}
