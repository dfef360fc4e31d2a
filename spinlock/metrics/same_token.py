"""Rate at which two probes of one operator have the same token, and what chance gives."""

from typing import NamedTuple

import torch
from torch import Tensor

from spinlock.metrics.joint_labels import count_table, joint_tokens


class SameTokenRate(NamedTuple):
    """Rates of equal tokens, float64 scalars; NaN if no pair can be compared.

    Args:
        rate: Share of the pairs of probes of one operator that have the same token.
        chance: The same for pairs of independent operators with the same families.
    """

    rate: Tensor
    chance: Tensor

    @property
    def above_chance(self) -> Tensor:
        """Rate minus chance: 0 for tokens that say nothing of the operator, at most 1."""
        return self.rate - self.chance


def same_token_rate(
    tokens: Tensor, families: Tensor, operators: Tensor, *, parts: Tensor | None = None
) -> SameTokenRate:
    r"""Return how often two probes of one operator have the same token, beside chance.

    The rate is that over all unordered pairs of probes A and B of one operator. Chance is the rate
    that pairs of two different operators have, with families that occur as often as in these pairs:

        chance = Σ_fg  share(f, g) · Pr(token of i = token of j | i has family f, j has family g,
                                        operator of i ≠ operator of j),

    where share(f, g) is the share of the pairs in which A has family f and B has family g. The
    probability is Σ_k p_f(k) p_g(k), with the distributions p_f and p_g of tokens under f and g,
    except that pairs of samples of one operator are left out, which makes the estimate unbiased.
    By design, the probes of an operator have different families. Chance given the families is 0 for
    tokens that name the family, and so is the rate.

    Pairs of families that are met by one operator only have no chance to compare with. They are
    left out of rate and chance.

    Args:
        tokens: Codebook indices, integers ``[N]`` or ``[N, Q]``; tokens are equal if they are equal
            at all levels.
        families: Family of each sample, integers ``[N]``; any other label that pairs should have in
            common with the pairs of chance is possible.
        operators: Operator of each sample, integers ``[N]``.
        parts: Part of each sample, such as held in or held out, integers ``[N]``. If given, only
            pairs of samples of different parts are compared. Default: all pairs.

    Example:
        >>> import torch
        >>> from spinlock.metrics import same_token_rate
        >>> operators, families = torch.arange(8) // 2, torch.arange(8) % 2
        >>> rate, chance = same_token_rate(operators % 2, families, operators)
        >>> rate.item(), round(chance.item(), 3)
        (1.0, 0.333)
        >>> same_token_rate(families, families, operators).above_chance.item()
        0.0
    """
    label = families if parts is None else torch.stack([families, parts.to(families.dtype)], 1)
    label, token, operator = joint_tokens(label), joint_tokens(tokens), joint_tokens(operators)
    cell = joint_tokens(torch.stack([operator, token], 1))
    # Ordered pairs of samples by their labels [F, F]: of all samples, and of one operator; with
    # equal tokens or not. All contain the pairs of a sample with itself.
    of_token, of_operator, of_cell = (_by_label(rows, label) for rows in (token, operator, cell))
    equal, own, own_equal = (counts.T @ counts for counts in (of_token, of_operator, of_cell))
    sizes = of_token.sum(0)
    alone = torch.diag(sizes)
    pairs, independent = own - alone, sizes[:, None] * sizes - own
    compared = (pairs > 0) & (independent > 0)
    if parts is not None:
        part = torch.zeros_like(sizes, dtype=parts.dtype).scatter_(0, label, parts)
        compared &= part[:, None] != part
    pairs = torch.where(compared, pairs, 0.0)
    found = torch.where(compared, own_equal - alone, 0.0)
    expected = pairs * (equal - own_equal) / independent.clamp(min=1)
    return SameTokenRate(found.sum() / pairs.sum(), expected.sum() / pairs.sum())


def _by_label(rows: Tensor, label: Tensor) -> Tensor:
    """Counts of samples by a number and by label, float64."""
    if not len(rows):
        return torch.zeros(0, 0, dtype=torch.float64, device=rows.device)
    return count_table(rows, label, (int(rows.max()) + 1, int(label.max()) + 1)).double()
