"""Scores of a codebook's tokens against a label, computed from tables of counts.

Every score of tokens is a pure function of an integer table ``contingency [codes, classes]``: the
number of samples with each token and each class. :class:`TokenContingency` accumulates such a table
over batches and processes, so memory does not grow with the number of samples and the sum over
processes is exact. :func:`variance_shares` needs no tokens: it tells what the columns of a dataset
depend on.

Scores of operators that have several probes need samples instead of counts:
:func:`group_permutation_null`, :func:`same_token_rate`, :func:`retrieval` and
:func:`predict_from_tokens`.
"""

from spinlock.metrics.chance import (
    expected_mutual_information,
    permutation_null,
    permutation_p_value,
    permuted_tables,
)
from spinlock.metrics.contingency_information import (
    adjusted_mutual_information,
    codebook_perplexity,
    codebook_usage,
    conditional_entropy,
    conditional_mutual_information,
    dead_codes,
    jensen_shannon_divergence,
    mutual_information,
    normalized_mutual_information,
)
from spinlock.metrics.group_null import group_permutation_null, group_permutations
from spinlock.metrics.joint_labels import joint_tokens
from spinlock.metrics.latent_retrieval import Retrieval, retrieval
from spinlock.metrics.same_token import SameTokenRate, same_token_rate
from spinlock.metrics.token_contingency import TokenContingency
from spinlock.metrics.token_dynamics import TokenDynamics
from spinlock.metrics.token_prediction import column_r_squared, predict_from_tokens
from spinlock.metrics.variance_shares import VarianceShares, rank_normalized, variance_shares

__all__ = [
    "Retrieval",
    "SameTokenRate",
    "TokenContingency",
    "TokenDynamics",
    "VarianceShares",
    "adjusted_mutual_information",
    "codebook_perplexity",
    "codebook_usage",
    "column_r_squared",
    "conditional_entropy",
    "conditional_mutual_information",
    "dead_codes",
    "expected_mutual_information",
    "group_permutation_null",
    "group_permutations",
    "jensen_shannon_divergence",
    "joint_tokens",
    "mutual_information",
    "normalized_mutual_information",
    "permutation_null",
    "permutation_p_value",
    "permuted_tables",
    "predict_from_tokens",
    "rank_normalized",
    "retrieval",
    "same_token_rate",
    "variance_shares",
]
