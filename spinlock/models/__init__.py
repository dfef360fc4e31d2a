"""Reference models, trained with Lightning."""

from spinlock.models.feature_vqvae import FeatureVQVAE
from spinlock.models.independence import IndependenceConfig
from spinlock.models.quantizer import QuantizerConfig
from spinlock.models.schedule import ScheduleConfig
from spinlock.models.sequence_vqvae import SequenceVQVAE
from spinlock.models.token_writer import TokenWriter

__all__ = [
    "FeatureVQVAE",
    "IndependenceConfig",
    "QuantizerConfig",
    "ScheduleConfig",
    "SequenceVQVAE",
    "TokenWriter",
]
