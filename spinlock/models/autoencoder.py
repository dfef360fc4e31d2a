"""The network of the VQ-VAE: encoder, normalization of the latent, quantizer and decoder."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from spinlock.models.conditioning import Batch, Condition, Conditioning, feature_columns, variants
from spinlock.models.quantizers import QuantizerConfig, make_quantizer
from spinlock.models.variant_normalization import VariantNormalization

Normalization = Literal["variant", "pooled", "none"]


class ConditionedAutoencoder(nn.Module):
    """Maps features to latents, latents to codes, and codes to features and dynamics.

    Args:
        num_features: Number F of columns of ``batch["features"]``.
        num_dynamics: Number D' of decoded columns of dynamics.
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

    Raises:
        ConfigurationError: The arguments do not fit together.
        ImportError: vector-quantize-pytorch is not installed.
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_dynamics: int,
        num_initial_features: int,
        num_variants: int,
        latent_dim: int,
        hidden_dims: Sequence[int],
        codebook_size: int,
        quantizer: QuantizerConfig,
        encoder_conditions: Sequence[Condition],
        decoder_conditions: Sequence[Condition],
        normalization: Normalization,
    ) -> None:
        super().__init__()
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
        outputs = num_features + num_dynamics
        self.decoder = _mlp([decoder_width, *reversed(hidden_dims), outputs])
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

    def encode(self, rows: Batch) -> Tensor:
        """Return the normalized latents ``[B, D]`` of features ``[B, F]``."""
        features = feature_columns(rows, "features", self.num_features)
        latent: Tensor = self.encoder(self.encoder_inputs(features, rows))
        if self.normalization is not None:
            group = torch.zeros(len(latent), dtype=torch.int64, device=latent.device)
            if self.num_groups > 1:
                group = variants(rows, self.num_variants)
            latent = self.normalization(latent, group)
        return latent

    def quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of latents ``[B, D]``, with straight-through gradient, and tokens."""
        if self.training:
            self.quantizer.initialize(latent, len(latent))
        code, tokens = self.quantizer(latent)
        return code, tokens

    def decode(self, code: Tensor, rows: Batch) -> tuple[Tensor, Tensor]:
        """Return features ``[B, F]`` and dynamics ``[B, D']`` of codes ``[B, D]``.

        Args:
            code: Codes.
            rows: Batch with the decoder's conditions.
        """
        decoded: Tensor = self.decoder(self.decoder_inputs(code, rows))
        return decoded[:, : self.num_features], decoded[:, self.num_features :]


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
