"""Reference models, trained with Lightning."""

from spinlock.models.feature_vqvae import FeatureVQVAE

__all__ = ["FeatureVQVAE"]
