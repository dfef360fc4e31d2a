"""A vector-quantized autoencoder of the features of one timestep.

References:
    1. van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, NeurIPS 2017:
       the loss, the straight-through gradient, and (appendix A.1) codes as moving averages.
    2. Zeghidour et al., SoundStream, IEEE/ACM TASLP 30 (2022), section III-C: k-means
       initialization and revival of codes that fall out of use.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.regression import R2Score

from spinlock.callbacks import contract
from spinlock.features import PER_TIMESTEP_NAMES

if TYPE_CHECKING:
    from vector_quantize_pytorch import VectorQuantize


class FeatureVQVAE(LightningModule):
    """Encodes features to one token of a codebook, and decodes the token to features.

    Since the initial condition is known, the encoder and the decoder may see its features too; what
    the decoder gets from there, the token need not carry. The loss is mean squared error plus
    `commitment_weight` times the squared distance of latent and code [1]; codes are moving averages
    of the latents they take [1], initialized by k-means on the first training batch [2].

    Logs ``train/loss`` each step, and over each validation epoch ``val/loss``,
    ``val/reconstruction`` (mean squared error in the scale of ``batch["features"]``) and ``val/r2``
    (1 − residual / total sum of squares, both summed over samples and columns, the total about each
    column's mean); on testing the same under ``test/``. Validation and test epochs need two samples
    or more.

    Weights, k-means and revival draw from torch's global generator: seed it
    (``lightning.seed_everything``) for runs that repeat.

    Args:
        num_features: Columns of ``batch["features"]``.
        num_initial_features: Columns of ``batch["initial_features"]``.
        latent_dim: Dimension of a code.
        hidden_dims: Widths of the encoder's hidden layers; the decoder has them in reverse.
        codebook_size: Number of codes.
        commitment_weight: Weight of the commitment term.
        decay: Of the codes' moving averages, a step.
        dead_code_threshold: A code that takes fewer samples of a batch than this, in moving
            average, is moved to a random latent of the batch. Even use is batch size /
            `codebook_size`; keep it well below. 0 revives none.
        condition_encoder: Give the encoder ``batch["initial_features"]``.
        condition_decoder: Give the decoder ``batch["initial_features"]``.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.

    Raises:
        ImportError: vector-quantize-pytorch is not installed.
        ContractError: By its steps, where a batch lacks an entry or has another number of columns.
    """

    def __init__(
        self,
        num_features: int = len(PER_TIMESTEP_NAMES),
        *,
        num_initial_features: int = len(PER_TIMESTEP_NAMES),
        latent_dim: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        codebook_size: int = 256,
        commitment_weight: float = 0.25,
        decay: float = 0.95,
        dead_code_threshold: float = 0.05,
        condition_encoder: bool = True,
        condition_decoder: bool = True,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.num_features = num_features
        self.num_initial_features = num_initial_features
        self.codebook_size = codebook_size
        self.commitment_weight = commitment_weight
        self.condition_encoder = condition_encoder
        self.condition_decoder = condition_decoder
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        encoder_inputs = num_features + condition_encoder * num_initial_features
        decoder_inputs = latent_dim + condition_decoder * num_initial_features
        self.encoder = _mlp([encoder_inputs, *hidden_dims, latent_dim])
        self.decoder = _mlp([decoder_inputs, *reversed(hidden_dims), num_features])
        self._make_quantizer = partial(
            _codebook, latent_dim, codebook_size, decay, dead_code_threshold
        )
        self.quantizer = self._make_quantizer()
        self.val_r2 = R2Score(multioutput="variance_weighted")
        self.test_r2 = R2Score(multioutput="variance_weighted")

    def setup(self, stage: str) -> None:
        """Have processes that train together average their codes together.

        VectorQuantize settles this when it is made, at which time they are not yet connected.
        """
        if self.trainer.world_size > 1:
            state = self.quantizer.state_dict()
            self.quantizer = self._make_quantizer().to(self.device)
            self.quantizer.load_state_dict(state)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode, quantize and decode.

        Args:
            batch: With ``features [B, F]`` and, where conditioned, ``initial_features [B, F']``.

        Returns:
            ``tokens [B]`` int64, ``latent [B, D]``, ``code [B, D]`` (the quantized latent, with the
            latent's gradient) and ``reconstruction [B, F]``.
        """
        features = self._columns(batch, "features", self.num_features)
        latent = self.encoder(self._conditioned(features, batch, self.condition_encoder))
        code, tokens = self._quantize(latent)
        reconstruction = self.decoder(self._conditioned(code, batch, self.condition_decoder))
        return {"tokens": tokens, "latent": latent, "code": code, "reconstruction": reconstruction}

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        losses = self._losses(batch, self(batch))
        self.log("train/loss", losses["loss"], prog_bar=True, batch_size=len(batch["features"]))
        return losses["loss"]

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """What :meth:`forward` gives, and the loss: the contract's outputs."""
        return self._evaluate(batch, "val", self.val_r2)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """What :meth:`forward` gives, and the loss: the contract's outputs."""
        return self._evaluate(batch, "test", self.test_r2)

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """``tokens [B]`` and the ``index [B]`` of the samples they belong to."""
        index = contract.from_batch(batch, "index", needed_by=type(self).__name__)
        return {"tokens": self(batch)["tokens"], "index": index}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over encoder and decoder; the codebook has no gradient."""
        return torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )

    def _evaluate(self, batch: Mapping[str, Tensor], stage: str, r2: R2Score) -> dict[str, Tensor]:
        outputs = self(batch)
        losses = self._losses(batch, outputs)
        r2.update(outputs["reconstruction"], batch["features"])
        logged = {f"{stage}/{name}": value for name, value in losses.items()}
        self.log_dict(logged, batch_size=len(batch["features"]), sync_dist=True)
        self.log(f"{stage}/r2", r2, batch_size=len(batch["features"]))
        return {**outputs, "loss": losses["loss"]}

    def _losses(
        self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        reconstruction = functional.mse_loss(outputs["reconstruction"], batch["features"])
        commitment = functional.mse_loss(outputs["latent"], outputs["code"].detach())
        loss = reconstruction + self.commitment_weight * commitment
        return {"loss": loss, "reconstruction": reconstruction}

    def _quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codes ``[B, D]`` and their numbers ``[B]``."""
        if self.training:
            code, tokens, _ = self.quantizer(latent)
            return code, tokens
        # VectorQuantize would run its k-means here too, on held-out data: sanity checking comes
        # before the first training batch.
        codebook = self.quantizer.codebook
        tokens = torch.cdist(latent.float(), codebook).argmin(-1)
        return codebook[tokens], tokens

    def _conditioned(self, values: Tensor, batch: Mapping[str, Tensor], condition: bool) -> Tensor:
        if not condition:
            return values
        initial = self._columns(batch, "initial_features", self.num_initial_features)
        return torch.cat([values, initial], dim=-1)

    def _columns(self, batch: Mapping[str, Tensor], key: str, expected: int) -> Tensor:
        values = contract.from_batch(batch, key, needed_by=type(self).__name__)
        if values.ndim != 2 or values.shape[1] != expected:
            shape = f"{list(values.shape)}, expected [B, {expected}]"
            raise contract.ContractError(f"batch[{key!r}] is {shape}: set the model's num_{key}")
        return values


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _codebook(dim: int, size: int, decay: float, dead_code_threshold: float) -> "VectorQuantize":
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError as error:
        message = "FeatureVQVAE needs vector-quantize-pytorch: pip install 'spinlock[vqvae]'"
        raise ImportError(message) from error
    return VectorQuantize(
        dim,
        size,
        decay=decay,
        kmeans_init=True,
        threshold_ema_dead_code=dead_code_threshold,
        # The model adds the commitment term itself, so that it is in the validation loss too.
        commitment_weight=0.0,
        # Else it replaces the straight-through gradient.
        rotation_trick=False,
    )
