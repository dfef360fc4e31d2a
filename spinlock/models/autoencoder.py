"""The network of the VQ-VAE: encoder, normalization of the latent, quantizer and decoder."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from spinlock.errors import ConfigurationError
from spinlock.models.conditioning import Batch, Condition, Conditioning, feature_columns, variants
from spinlock.models.quantizers import QuantizerConfig, make_quantizer
from spinlock.models.variant_normalization import VariantNormalization

Normalization = Literal["variant", "pooled", "none"]


class ConditionedAutoencoder(nn.Module):
    """Maps features to latents, latents to codes, and codes to features.

    Args:
        num_features: Number F of columns of ``batch["features"]``.
        num_initial_features: Number F' of columns of ``batch["initial_features"]``.
        num_variants: Number of variants.
        latent_dim: Dimension D of a code.
        hidden_dims: Widths of the encoder's hidden layers; the decoder has them in reverse order.
        codebook_size: Number of codes of each codebook.
        quantizer: Configuration of the quantizer.
        encoder_conditions: Conditioning inputs of the encoder; see `Conditioning`.
        decoder_conditions: Conditioning inputs of the decoder.
        normalization: Batch normalization of the latent: with the statistics of each ``variant``,
            with ``pooled`` statistics, or ``none``.
        carry_initial: Whether to add the initial features, times one learned factor for each
            column (initially 1), to the decoder's output.

    Raises:
        ConfigurationError: The arguments do not fit together.
        ImportError: vector-quantize-pytorch is not installed.
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_initial_features: int,
        num_variants: int,
        latent_dim: int,
        hidden_dims: Sequence[int],
        codebook_size: int,
        quantizer: QuantizerConfig,
        encoder_conditions: Sequence[Condition],
        decoder_conditions: Sequence[Condition],
        normalization: Normalization,
        carry_initial: bool,
    ) -> None:
        super().__init__()
        if carry_initial and num_initial_features != num_features:
            raise ConfigurationError(
                "carry_initial: requires as many initial features as features; got "
                f"{num_initial_features} and {num_features}"
            )
        self.num_features = num_features
        self.num_variants = num_variants
        self.encoder_inputs, self.decoder_inputs = (
            Conditioning(
                conditions, num_initial_features=num_initial_features, num_variants=num_variants
            )
            for conditions in (encoder_conditions, decoder_conditions)
        )
        encoder_width = num_features + self.encoder_inputs.width
        decoder_width = latent_dim + self.decoder_inputs.width
        self.encoder = _mlp([encoder_width, *hidden_dims, latent_dim])
        self.decoder = _mlp([decoder_width, *reversed(hidden_dims), num_features])
        self.initial_factors = nn.Parameter(torch.ones(num_features)) if carry_initial else None
        self.num_groups = {"variant": num_variants, "pooled": 1, "none": 0}[normalization]
        self.normalization: VariantNormalization | None = None
        if self.num_groups:
            self.normalization = VariantNormalization(self.num_groups, latent_dim)
        self._quantizer_arguments = (latent_dim, codebook_size, quantizer)
        self.quantizer = make_quantizer(*self._quantizer_arguments)

    def synchronize_codebook(self) -> None:
        """Replace the quantizer by one whose codes are averages over all processes."""
        state, device = self.quantizer.state_dict(), next(self.parameters()).device
        # The library takes this setting only when it makes a codebook.
        self.quantizer = make_quantizer(*self._quantizer_arguments, synchronize=True)
        self.quantizer.to(device).load_state_dict(state)

    def encode(self, batch: Batch) -> Tensor:
        """Return the normalized latents ``[B, D]`` of a batch's features."""
        features = feature_columns(batch, "features", self.num_features)
        latent: Tensor = self.encoder(self.encoder_inputs(features, batch))
        if self.normalization is not None:
            # Modulo 1 is 0: pooled statistics have a single group.
            group = variants(batch, self.num_variants)
            latent = self.normalization(latent, group % self.num_groups)
        return latent

    def decode(self, code: Tensor, batch: Batch) -> Tensor:
        """Return features ``[B, F]`` for codes ``[B, D]`` and a batch's initial conditions."""
        features: Tensor = self.decoder(self.decoder_inputs(code, batch))
        if self.initial_factors is not None:
            initial = feature_columns(batch, "initial_features", self.num_features)
            features = features + self.initial_factors * initial
        return features

    def forward(self, batch: Batch, *, continuous: bool = False) -> dict[str, Tensor]:
        """Encode, quantize and decode.

        Args:
            batch: Batch with ``features [B, F]`` and the entries that the conditions need.
            continuous: Whether to decode the latent itself, without quantization and tokens.

        Returns:
            ``tokens`` (int64 ``[B]`` or ``[B, Q]``), ``latent`` (``[B, D]``), ``code`` (``[B, D]``,
            the quantized latent with the latent's gradient) and ``reconstruction`` (``[B, F]``).
        """
        latent = self.encode(batch)
        outputs = {"latent": latent, "code": latent}
        if not continuous:
            if self.training:
                self.quantizer.initialize(latent, len(latent))
            outputs["code"], outputs["tokens"] = self.quantizer(latent)
        return {**outputs, "reconstruction": self.decode(outputs["code"], batch)}


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
