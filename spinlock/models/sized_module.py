"""Base class of models whose sizes are those of the data module, or of a checkpoint."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from spinlock.models.model_arguments import data_sizes, stored_sizes
from spinlock.models.resumable import ResumableModule


class SizedModule(ResumableModule):
    """A module whose network is built when its sizes are known.

    They are known from arguments, from the data module when a trainer starts, or from the
    checkpoint that the model is loaded from.

    Args:
        latent_dim: Number of columns of the latents.

    Example:
        >>> from spinlock.models import FeatureVQVAE
        >>> model = FeatureVQVAE()
        >>> model.is_built, FeatureVQVAE(num_features=5, num_dynamics=0).is_built
        (False, True)
        >>> sizes = {"num_features": 5, "num_dynamics": 0}
        >>> sizes |= {"num_initial_features": 0, "num_variants": 1}
        >>> state = {"generators": {}, "latents": [], "gradients": {}}
        >>> model.on_load_checkpoint({"hyper_parameters": sizes, "training": [state]})
        >>> model.is_built
        True
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.is_built = False
        # ``num_features`` and so on; None for those that are not known yet.
        self._sizes: dict[str, int | None] = {}

    def configure_model(self) -> None:
        """Build the network with the sizes of the data module, or check those that were given."""
        if self._trainer is None and None in self._sizes.values():
            return  # Lightning is loading a checkpoint, which has the sizes.
        sizes = data_sizes(self._trainer, self._sizes, reader=type(self).__name__)
        if not self.is_built:
            self._build_with(sizes)
            self.hparams.update(sizes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network with the sizes in the checkpoint, if they are not known.

        Raises:
            DatasetError: If the checkpoint has no sizes, or no training state of this form.
        """
        if not self.is_built:
            self._sizes.update(stored_sizes(checkpoint))
            self.configure_model()
        super().on_load_checkpoint(checkpoint)

    def _build_with(self, sizes: Mapping[str, Any]) -> None:
        self._build(sizes)
        self.is_built = True

    @abstractmethod
    def _build(self, sizes: Mapping[str, Any]) -> None:
        """Build the network."""
