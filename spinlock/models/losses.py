"""The loss of a token: what is decoded from it, and how far latents are from codes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from spinlock import contract
from spinlock.configuration.validation import check_types
from spinlock.errors import ConfigurationError
from spinlock.models.probe_sets import ProbeSets


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of the loss, apart from the independence terms.

    Args:
        other_probe: Weight w of the error of the features of other probes of the operator, in
            [0, 1]. The features of the encoded probes have the weight 1 - w. 0 for data with one
            probe of each operator.
        alignment: Weight of the mean squared distance between the latents of two probes of an
            operator; ramped like the independence terms. 0 for data with one probe.
        dynamics: Weight of the mean squared error of the decoded dynamics; without effect if the
            data have none.
        commitment: Weight of the squared distance of latent and code.

    Raises:
        ConfigurationError: An argument is out of range.

    Example:
        >>> from spinlock.models import LossConfig
        >>> LossConfig(dynamics=0.0).other_probe
        0.5
    """

    other_probe: float = 0.5
    alignment: float = 10.0
    dynamics: float = 0.3
    commitment: float = 0.25

    def __post_init__(self) -> None:
        check_types(self, "loss.")
        for name in ("alignment", "dynamics", "commitment"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ConfigurationError(f"loss.{name}: must be finite and >= 0, got {value}")
        if not 0 <= self.other_probe <= 1:
            raise ConfigurationError(f"loss.other_probe: must be in [0, 1], got {self.other_probe}")

    def require_other_probes(self, probes: ProbeSets) -> None:
        """Check that operators have several probes if a term compares probes.

        Raises:
            ContractError: They have one.
        """
        if probes.num_probes == 1 and (self.other_probe or self.alignment):
            raise contract.ContractError(
                f"the model needs batch['other_features'] ({contract.BATCH['other_features']}): "
                "set the data module's view to pairs or probes. If each operator has one probe, "
                "set the model's loss.other_probe and loss.alignment to 0"
            )

    def errors(
        self, probes: ProbeSets, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the weighted sum of errors and commitment, and the errors.

        Args:
            probes: Probes of the batch.
            outputs: ``latent`` and ``code``, ``decoded`` features of each probe ``[B * P, F]``,
                and ``dynamics`` if they are decoded.
            batch: Batch with ``dynamics`` if they are decoded.

        Returns:
            Scalars ``loss``, ``reconstruction`` and ``dynamics``.
        """
        own, other = probes.errors(outputs["decoded"], probes.rows["features"])
        errors = {"reconstruction": own}
        loss = own
        if probes.has_others:
            loss = (1 - self.other_probe) * own + self.other_probe * other
        if "dynamics" in outputs:
            target = contract.batch_entry(batch, "dynamics")
            errors["dynamics"] = functional.mse_loss(outputs["dynamics"], target)
            loss = loss + self.dynamics * errors["dynamics"]
        distance = functional.mse_loss(outputs["latent"], outputs["code"].detach())
        return {"loss": loss + self.commitment * distance, **errors}
