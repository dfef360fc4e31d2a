"""What is known of a dataset without its file, and without `setup`: yaml can link it to models."""

from lightning import LightningDataModule

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules.labels import LabelNames
from spinlock.features import PER_TIMESTEP_NAMES, custom_columns
from spinlock.simulation.parameter_space import PARAMETER_NAMES, ParameterSpace


class DescribedDataModule(LightningDataModule):
    """A data module that knows the names and sizes of its dataset.

    Args:
        generation: What the dataset is made from.
    """

    def __init__(self, generation: GenerationConfig) -> None:
        super().__init__()
        self.generation = generation
        self.label_names = LabelNames.of(generation)

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Variants of initial conditions; ``variant`` counts in this order."""
        return self.label_names.ic

    @property
    def variant_families(self) -> tuple[str, ...]:
        """Family of each variant, in the order of `variant_names`."""
        return self.label_names.family_of_variant

    @property
    def family_names(self) -> tuple[str, ...]:
        """Families of initial conditions; ``family`` counts in this order."""
        return self.label_names.families

    @property
    def update_policy_names(self) -> tuple[str, ...]:
        """Update policies; ``update_policy`` counts in this order."""
        return self.label_names.policies

    @property
    def normalization_names(self) -> tuple[str, ...]:
        """Normalizations of the operators; ``normalization`` counts in this order."""
        return self.label_names.normalizations

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F columns of ``features`` and ``initial_features``, the user's own last."""
        return PER_TIMESTEP_NAMES + custom_columns(self.generation.features).get("initial", ())

    @property
    def num_features(self) -> int:
        """Number F of feature columns."""
        return len(self.feature_names)

    @property
    def num_timesteps(self) -> int:
        """Timesteps T of a trajectory."""
        return self.generation.num_timesteps

    @property
    def num_variants(self) -> int:
        """Number of variants of initial conditions."""
        return len(self.variant_names)

    @property
    def parameter_axes(self) -> tuple[str, ...]:
        """Names of the 15 columns of ``params``."""
        return PARAMETER_NAMES

    @property
    def parameter_space(self) -> ParameterSpace:
        """What the coordinates ``params`` mean."""
        return ParameterSpace(self.generation.parameter_space)
