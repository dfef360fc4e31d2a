"""How tokens follow each other along trajectories: pure functions, and a metric of an epoch.

The state of a trajectory is its token; a *dwell* is a run of equal tokens. Dwells are cut off at
both ends of a trajectory, so times on the order of its length T are underestimated.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from spinlock import metrics


def transition_counts(sequence: Tensor, num_codes: int) -> Tensor:
    """How often each token is followed by each.

    Args:
        sequence: Tokens ``[B, T]`` int64, each in [0, num_codes).
        num_codes: K.

    Returns:
        int64 ``[K, K]``; row: the token, column: the next one; their sum is B (T - 1).
    """
    cells = sequence[:, :-1] * num_codes + sequence[:, 1:]
    return torch.bincount(cells.flatten(), minlength=num_codes**2).view(num_codes, num_codes)


def transition_matrix(counts: Tensor) -> Tensor:
    """Probability of each token to follow each.

    Args:
        counts: ``[K, K]``, as `transition_counts` gives them.

    Returns:
        float64 ``[K, K]``; rows sum to 1, or to 0 where a token was never followed by any.
    """
    return counts.double() / counts.sum(1, keepdim=True).clamp(min=1)


def dwell_times(sequence: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of the runs of equal tokens.

    Args:
        sequence: Tokens ``[B, T]`` int64.

    Returns:
        Lengths in timesteps and tokens of all runs, int64 ``[R]`` each, trajectory by trajectory.
    """
    starts = torch.ones_like(sequence, dtype=torch.bool)
    starts[:, 1:] = sequence[:, 1:] != sequence[:, :-1]
    first = starts.flatten().nonzero()[:, 0]
    end = torch.cat([first[1:], first.new_tensor([sequence.numel()])])
    return end - first, sequence.flatten()[first]


class TokenDynamics(Metric):
    """Accumulates transitions and dwells of each update policy over batches and processes.

    Args:
        num_codes: K.
        update_policy_names: Names that ``update_policy`` counts.
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    transitions: Tensor
    occupancy: Tensor
    dwells: Tensor

    def __init__(self, num_codes: int, update_policy_names: Sequence[str]) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.update_policy_names = tuple(update_policy_names)
        policies = len(self.update_policy_names)
        tables = {
            "transitions": (policies, num_codes, num_codes),
            "occupancy": (policies, num_codes),
            "dwells": (policies,),
        }
        for name, shape in tables.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, sequence: Tensor, policy: Tensor) -> None:
        """Count trajectories.

        Args:
            sequence: Tokens ``[B, T]`` int64.
            policy: ``[B]`` int64.
        """
        for number in sorted(set(policy.tolist())):
            rows = sequence[policy == number]
            self.transitions[number] += transition_counts(rows, self.num_codes)
            self.occupancy[number] += torch.bincount(rows.flatten(), minlength=self.num_codes)
            self.dwells[number] += len(dwell_times(rows)[0])

    def compute(self) -> dict[str, Tensor]:
        """Figures over all trajectories, and of each policy that occurs.

        - ``dwell_time``, ``dwell_time/<policy>``: mean length of a dwell, timesteps;
        - ``stay_probability``, ``stay_probability/<policy>``: share of steps that keep the token;
        - ``next_token_entropy``: H(next token | token), nats;
        - ``policy_ami``: adjusted mutual information of token and update policy;
        - ``transition_policy_mi``: mutual information of next token and policy given the token,
          with chance subtracted: the dependence of the dynamics on the policy that the token does
          not tell already, nats.
        """
        figures = _figures(self.transitions.sum(0), self.occupancy.sum(), self.dwells.sum())
        for number, name in enumerate(self.update_policy_names):
            if self.dwells[number]:
                of_policy = _figures(
                    self.transitions[number], self.occupancy[number].sum(), self.dwells[number]
                )
                figures |= {f"{figure}/{name}": value for figure, value in of_policy.items()}
        figures["next_token_entropy"] = metrics.conditional_entropy(self.transitions.sum(0))
        figures["policy_ami"] = metrics.adjusted_mutual_information(self.occupancy.T)
        # Strata: the token; rows: the next one; columns: the policy.
        given_token = self.transitions.permute(1, 2, 0)
        occupied = given_token[given_token.sum((1, 2)) > 0]
        share = occupied.sum((1, 2)).double() / occupied.sum().clamp(min=1)
        chance = share @ metrics.expected_mutual_information(occupied).to(share)
        information = metrics.conditional_mutual_information(occupied)
        figures["transition_policy_mi"] = information - chance
        return figures


def _figures(transitions: Tensor, timesteps: Tensor, dwells: Tensor) -> dict[str, Tensor]:
    stayed = transitions.diagonal().sum().double()
    return {
        "dwell_time": timesteps.double() / dwells.clamp(min=1),
        "stay_probability": stayed / transitions.sum().clamp(min=1),
    }
