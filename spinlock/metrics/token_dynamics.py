"""Transitions between the tokens of successive timesteps, and the times that a token is kept.

A *dwell* is a run of equal tokens. Dwells are cut off at both ends of a trajectory, so times of the
order of its length T are underestimated.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from spinlock.metrics.chance import expected_mutual_information
from spinlock.metrics.contingency_information import (
    adjusted_mutual_information,
    conditional_entropy,
    conditional_mutual_information,
)
from spinlock.metrics.spearman import rank_correlation


class TokenDynamics(Metric):
    """Counts transitions and dwells of each update policy over batches and processes.

    Args:
        num_codes: Number of codes K.
        update_policy_names: Names of the update policies.
        dynamics_names: Names of columns of the operators' dynamics that `update` receives; default:
            none.

    Example:
        >>> import torch
        >>> from spinlock.metrics import TokenDynamics
        >>> metric = TokenDynamics(4, ["residual", "convex"])
        >>> metric.update(torch.tensor([[0, 0, 3], [1, 1, 1]]), torch.tensor([0, 1]))
        >>> scores = metric.compute()
        >>> scores["stay_probability"].item(), scores["dwell_time/residual"].item()
        (0.75, 1.5)
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    transitions: Tensor
    occupancy: Tensor
    trajectories: list[Tensor] | Tensor

    def __init__(
        self,
        num_codes: int,
        update_policy_names: Sequence[str],
        dynamics_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.update_policy_names = tuple(update_policy_names)
        self.dynamics_names = tuple(dynamics_names)
        policies = len(self.update_policy_names)
        for name, shape in {
            "transitions": (policies, num_codes, num_codes),
            "occupancy": (policies, num_codes),
        }.items():
            zeros = torch.zeros(shape, dtype=torch.int64, device="cpu")
            self.add_state(name, zeros, dist_reduce_fx="sum")
        # Rows of update policy, fraction of kept tokens, and dynamics.
        self.add_state("trajectories", default=[], dist_reduce_fx="cat")

    def update(
        self, sequence: Tensor, update_policy: Tensor, dynamics: Tensor | None = None
    ) -> None:
        """Count trajectories.

        Args:
            sequence: Tokens ``[B, T]`` int64, each in [0, K).
            update_policy: Update policy of each trajectory, ``[B]`` int64.
            dynamics: Columns ``dynamics_names`` of each trajectory's operator, ``[B, D]``.
        """
        if self.dynamics_names and dynamics is not None and sequence.shape[1] > 1:
            # Apple's GPUs have no float64; scores are computed in float64 on the CPU.
            stays = (sequence[:, 1:] == sequence[:, :-1]).float().mean(1)
            columns = [update_policy.float()[:, None], stays[:, None], dynamics.float()]
            cast(list[Tensor], self.trajectories).append(torch.cat(columns, 1))
        rows = update_policy[:, None] * self.num_codes + sequence
        cells = rows[:, :-1] * self.num_codes + sequence[:, 1:]
        for counts, labels in ((self.transitions, cells), (self.occupancy, rows)):
            counts += torch.bincount(labels.flatten(), minlength=counts.numel()).view_as(counts)

    def compute(self) -> dict[str, Tensor]:
        """Return scores over all trajectories and for each update policy that occurs, on the CPU.

        - ``dwell_time``, ``dwell_time/<policy>``: mean length of a dwell, in timesteps;
        - ``stay_probability``, ``stay_probability/<policy>``: fraction of steps that keep a token;
        - ``next_token_entropy``: H(next token | token), nats;
        - ``policy_ami``: adjusted mutual information of token and update policy;
        - ``transition_policy_mi``: mutual information of next token and update policy given the
          token, minus its expectation by chance, nats. It measures how the dynamics depend on the
          update policy beyond what the token already says;
        - ``stay_correlation/<column>``: Spearman's rank correlation, over trajectories, of the
          fraction of kept tokens and a column of the dynamics;
        - ``stay_correlation_within_policy/<column>``: the same among trajectories of one update
          policy, averaged over policies, weighted by number of trajectories.
        """
        transitions, occupancy = self.transitions.cpu(), self.occupancy.cpu()
        scores = _stay_scores(transitions.sum(0), occupancy.sum())
        for name, of_policy, timesteps in zip(
            self.update_policy_names, transitions, occupancy.sum(1), strict=True
        ):
            if timesteps:
                own = _stay_scores(of_policy, timesteps)
                scores |= {f"{score}/{name}": value for score, value in own.items()}
        scores["next_token_entropy"] = conditional_entropy(transitions.sum(0))
        scores["policy_ami"] = adjusted_mutual_information(occupancy.T)
        # Groups: the token. Rows: the next token. Columns: the update policy.
        given_token = transitions.permute(1, 2, 0)
        occupied = given_token[given_token.sum((1, 2)) > 0]
        share = occupied.sum((1, 2)).double() / occupied.sum().clamp(min=1)
        chance = share @ expected_mutual_information(occupied).to(share)
        scores["transition_policy_mi"] = conditional_mutual_information(occupied) - chance
        return scores | self._correlations()

    def _correlations(self) -> dict[str, Tensor]:
        rows = dim_zero_cat(self.trajectories) if len(self.trajectories) else torch.empty(0, 2)
        rows = rows.cpu().double()
        if len(rows) < 2:
            return {}
        policy, stays, dynamics = rows[:, 0], rows[:, 1], rows[:, 2:]
        pooled = rank_correlation(stays, dynamics)
        parts = [policy == number for number in torch.unique(policy)]
        within = sum(
            part.double().mean() * rank_correlation(stays[part], dynamics[part]) for part in parts
        )
        return {
            f"{score}/{name}": value
            for score, values in (
                ("stay_correlation", pooled),
                ("stay_correlation_within_policy", torch.as_tensor(within)),
            )
            for name, value in zip(self.dynamics_names, values, strict=True)
        }


def _stay_scores(transitions: Tensor, timesteps: Tensor) -> dict[str, Tensor]:
    stayed = transitions.diagonal().sum()
    # A dwell begins at every timestep that does not keep the token of the one before.
    return {
        "dwell_time": timesteps.double() / (timesteps - stayed).clamp(min=1),
        "stay_probability": stayed.double() / transitions.sum().clamp(min=1),
    }
