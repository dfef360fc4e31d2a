"""The network: encoder, normalization, codebook and decoder, told of the initial condition."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spinlock.errors import ConfigurationError
from spinlock.models.codebook import QuantizerConfig
from spinlock.models.conditioning import Condition, Conditioning, feature_columns, variants
from spinlock.models.quantizers import make_quantizer
from spinlock.models.variant_normalization import VariantNormalization

Normalization = Literal["variant", "pooled", "none"]
Batch = Mapping[str, Tensor]


class ConditionedAutoencoder(nn.Module):
    """Features to latent to code to features.

    Args:
        num_features: Columns F of ``batch["features"]``.
        num_initial_features: Columns F' of ``batch["initial_features"]``.
        num_variants: Number of variants that ``batch["variant"]`` counts.
        latent_dim: Dimension D of a code.
        hidden_dims: Widths of the encoder's hidden layers; the decoder has them in reverse.
        codebook_size: Number of codes of each codebook.
        quantizer: Kind of the codebook.
        encoder_conditions: See `Conditioning`.
        decoder_conditions: Likewise; ``increment`` is not for the decoder.
        normalization: Batch normalization of the latent: by ``variant``, ``pooled`` or ``none``.
        carry_initial: Add the initial features to what the decoder gives, times a learned factor
            for each column, 1 at first.

    Raises:
        ConfigurationError: An argument is out of range, or arguments do not fit together.
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
        _check(decoder_conditions, normalization)
        if carry_initial and num_initial_features != num_features:
            raise ConfigurationError(
                "carry_initial: adds initial features to features column by column; there are "
                f"{num_initial_features} and {num_features}"
            )
        self.num_features = num_features
        self.num_variants = num_variants
        self.encoder_inputs, self.decoder_inputs = (
            Conditioning(
                conditions,
                num_features=num_features,
                num_initial_features=num_initial_features,
                num_variants=num_variants,
            )
            for conditions in (encoder_conditions, decoder_conditions)
        )
        encoder_width = num_features + self.encoder_inputs.width
        decoder_width = latent_dim + self.decoder_inputs.width
        self.encoder = _mlp([encoder_width, *hidden_dims, latent_dim])
        self.decoder = _mlp([decoder_width, *reversed(hidden_dims), num_features])
        self.carried = nn.Parameter(torch.ones(num_features)) if carry_initial else None
        self.normalization: VariantNormalization | None = None
        if normalization != "none":
            groups = num_variants if normalization == "variant" else 1
            self.normalization = VariantNormalization(groups, latent_dim)
        self._quantizer_arguments = (latent_dim, codebook_size, quantizer)
        self.quantizer = make_quantizer(*self._quantizer_arguments)

    def synchronize_codebook(self) -> None:
        """Have processes average their codes together; the codebook settles it when it is made."""
        state, device = self.quantizer.state_dict(), next(self.parameters()).device
        self.quantizer = make_quantizer(*self._quantizer_arguments, synchronize=True)
        self.quantizer.to(device).load_state_dict(state)

    def encode(self, batch: Batch) -> Tensor:
        """The latents ``[B, D]`` of a batch's features, normalized."""
        features = self.columns(batch, "features")
        latent: Tensor = self.encoder(self.encoder_inputs(features, batch))
        if self.normalization is None:
            return latent
        group = self.variants(batch)
        if len(self.normalization.batches) == 1:
            group = torch.zeros_like(group)
        normalized: Tensor = self.normalization(latent, group)
        return normalized

    def decode(self, code: Tensor, batch: Batch) -> Tensor:
        """Features ``[B, F]`` of codes ``[B, D]`` under the initial conditions of a batch."""
        features: Tensor = self.decoder(self.decoder_inputs(code, batch))
        if self.carried is None:
            return features
        return features + self.carried * self.columns(batch, "initial_features")

    def forward(self, batch: Batch, *, continuous: bool = False) -> dict[str, Tensor]:
        """Encode, quantize and decode.

        Args:
            batch: With ``features [B, F]`` and what the conditions need.
            continuous: Pass the latent to the decoder as it is; there are no tokens then.

        Returns:
            ``tokens [B]`` or ``[B, Q]`` int64, ``latent [B, D]``, ``code [B, D]`` (the quantized
            latent, with the latent's gradient) and ``reconstruction [B, F]``.
        """
        latent = self.encode(batch)
        if continuous:
            return {
                "latent": latent,
                "code": latent,
                "reconstruction": self.decode(latent, batch),
            }
        if self.training:
            self.quantizer.initialize(latent, len(latent))
        code, tokens = self.quantizer(latent)
        reconstruction = self.decode(code, batch)
        return {"tokens": tokens, "latent": latent, "code": code, "reconstruction": reconstruction}

    def columns(self, batch: Batch, key: str) -> Tensor:
        """Features of a batch, ``[B, F]``; a ContractError where they are missing or others."""
        return feature_columns(batch, key, self.num_features)

    def variants(self, batch: Batch) -> Tensor:
        """Variants of a batch, ``[B]``; a ContractError where they are missing or too many."""
        return variants(batch, self.num_variants)


def other_probe(batch: Batch) -> dict[str, Tensor]:
    """The other probe of each pair, under the keys of the first."""
    keys = ("features", "initial_features", "variant")
    return {key: batch[f"other_{key}"] for key in keys if f"other_{key}" in batch}


def _check(decoder_conditions: Sequence[str], normalization: str) -> None:
    if "increment" in decoder_conditions:
        raise ConfigurationError(
            "decoder_conditions: increment would tell the decoder what it is to reconstruct"
        )
    if normalization not in get_args(Normalization):
        raise ConfigurationError(
            f"normalization: must be one of {', '.join(get_args(Normalization))}; got "
            f"{normalization!r}"
        )


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
