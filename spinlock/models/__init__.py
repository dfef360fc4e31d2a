"""Reference models, trained with Lightning."""

from spinlock.models.feature_vqvae import FeatureVQVAE
from spinlock.models.independence import IndependenceConfig
from spinlock.models.losses import LossConfig
from spinlock.models.quantizers import QuantizerConfig
from spinlock.models.schedule import ScheduleConfig
from spinlock.models.sequence_vqvae import SequenceVQVAE

__all__ = [
    "FeatureVQVAE",
    "IndependenceConfig",
    "LossConfig",
    "QuantizerConfig",
    "ScheduleConfig",
    "SequenceVQVAE",
]
