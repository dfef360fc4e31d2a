"""Tables of an epoch's tokens and variants, and their nulls: independent or repeated samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spinlock import metrics
from spinlock.metrics.joint_labels import count_table, first_rows, joint_tokens

ByLabel = Callable[[Tensor], tuple[Tensor, ...]]
"""Function of counts ``[..., variants]`` that returns counts ``[..., classes]`` of each label."""


class LabelNull(NamedTuple):
    """Mutual information of tokens and a label that is permuted.

    Args:
        informations: Mutual information of pooled samples and given the update policy, for each
            permutation, ``[permutations, 2]``.
        chance: Expectation of the mutual information of pooled samples, and within each update
            policy, ``[1 + update policies]``.
    """

    informations: Tensor
    chance: Tensor


def informations(strata: Tensor) -> Tensor:
    """Return the mutual information of pooled samples, given the stratum, and in each stratum.

    Args:
        strata: Counts ``[..., strata, codes, classes]``.

    Returns:
        ``[..., 2 + strata]``, nats.
    """
    pooled, each = metrics.mutual_information(strata.sum(-3)), metrics.mutual_information(strata)
    samples = strata.sum((-2, -1)).to(each)
    given = (samples * each).sum(-1) / samples.sum(-1).clamp(min=1)
    return torch.cat([pooled[..., None], given[..., None], each], -1)


@dataclass
class LabelTables(ABC):
    """Counts of an epoch's samples by token, update policy and variant.

    Args:
        strata: Counts ``[update policies, codes, variants]`` of the joint token.
        levels: Counts ``[codes, variants]`` of each level's tokens, if there are several.
    """

    strata: Tensor
    levels: Mapping[str, Tensor]

    @abstractmethod
    def nulls(self, by_label: ByLabel, *, permutations: int, seed: int) -> list[LabelNull]:
        """Return the null of each label, from permutations of the variants."""

    @abstractmethod
    def level_chance(self, name: str, by_label: ByLabel, *, permutations: int, seed: int) -> Tensor:
        """Return what chance gives for a level's tokens and each label, ``[labels]``, nats."""


class IndependentSamples(LabelTables):
    """Samples of different operators: variants are permuted within update policies."""

    @classmethod
    def of(cls, tables: Mapping[str, Tensor]) -> "IndependentSamples":
        """Make tables from counts ``[codes, update policies, variants]``."""
        levels = {name: table.sum(1) for name, table in tables.items() if name != "joint"}
        strata = tables["joint"].transpose(0, 1)
        # Codes that do not occur change no score.
        return cls(strata[:, strata.sum((0, 2)) > 0], levels)

    def nulls(self, by_label: ByLabel, *, permutations: int, seed: int) -> list[LabelNull]:
        """Return the null of each label; chance is the exact expectation, of pooled samples too."""
        drawn = metrics.permutation_null(
            lambda some: torch.stack([informations(each) for each in by_label(some)], 1),
            self.strata,
            permutations=permutations,
            seed=seed,
        )
        chances = [
            metrics.expected_mutual_information(torch.cat([counts.sum(0)[None], counts]))
            for counts in by_label(self.strata)
        ]
        return [LabelNull(drawn[:, n, :2], chance) for n, chance in enumerate(chances)]

    def level_chance(self, name: str, by_label: ByLabel, *, permutations: int, seed: int) -> Tensor:
        """Return the exact expectation for each label."""
        counts = by_label(self.levels[name])
        return torch.stack([metrics.expected_mutual_information(each) for each in counts])


@dataclass
class RepeatedOperators(LabelTables):
    """Samples of which several are of one operator.

    Variants are permuted among operators of equally many samples and the same update policy, and
    among the probes of each.

    Args:
        columns: Columns of each sample, in the order of the index: ``tokens`` ``[N, Q]``,
            ``operator``, ``update_policy`` and ``variant`` ``[N]``.
    """

    columns: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, columns: Mapping[str, Tensor], *, num_codes: int, num_policies: int, num_variants: int
    ) -> "RepeatedOperators":
        """Count samples."""
        variant, tokens = columns["variant"].long(), columns["tokens"].long()
        rows, number = _rows(columns)
        strata = count_table(rows, variant, (num_policies * number, num_variants))
        levels = {
            f"level_{level}": count_table(token, variant, (num_codes, num_variants))
            for level, token in enumerate(tokens.unbind(1))
            if tokens.shape[1] > 1
        }
        return cls(strata.view(num_policies, number, num_variants), levels, columns)

    def nulls(self, by_label: ByLabel, *, permutations: int, seed: int) -> list[LabelNull]:
        """Return the null of each label; chance is its mean."""
        policies, codes, variants = self.strata.shape

        def score(tables: Tensor) -> Tensor:
            strata = tables.view(-1, policies, codes, variants)
            return torch.stack([informations(each) for each in by_label(strata)], 1)

        drawn = metrics.group_permutation_null(
            score,
            _rows(self.columns)[0],
            self.columns["variant"].long(),
            self.columns["operator"],
            strata=self.columns["update_policy"],
            shape=(policies * codes, variants),
            permutations=permutations,
            seed=seed,
        )
        chance = drawn.mean(0)
        return [
            LabelNull(drawn[:, n, :2], torch.cat([chance[n, :1], chance[n, 2:]]))
            for n in range(drawn.shape[1])
        ]

    def level_chance(self, name: str, by_label: ByLabel, *, permutations: int, seed: int) -> Tensor:
        """Return the mean of the null for each label."""
        drawn = metrics.group_permutation_null(
            lambda some: torch.stack([metrics.mutual_information(t) for t in by_label(some)], 1),
            self.columns["tokens"].long()[:, int(name.removeprefix("level_"))],
            self.columns["variant"].long(),
            self.columns["operator"],
            strata=self.columns["update_policy"],
            shape=(self.levels[name].shape[0], self.levels[name].shape[1]),
            permutations=permutations,
            seed=seed,
        )
        return drawn.mean(0)


def repeats_operators(columns: Mapping[str, Tensor]) -> bool:
    """Return whether an operator has several of the samples."""
    operator = columns["operator"]
    return len(torch.unique(operator)) < len(operator)


def first_probes(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one sample of each operator, the first in the order of the columns."""
    rows = first_rows(columns["operator"])
    return {key: column[rows] for key, column in columns.items()}


def _rows(columns: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    """Row of each sample among update policies times joint tokens, and the number of tokens."""
    token = joint_tokens(columns["tokens"])
    number = int(token.max()) + 1
    return columns["update_policy"].long() * number + token, number
