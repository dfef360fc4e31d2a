"""Scores of a codebook's tokens against a label, computed from tables of counts.

Every score of tokens is a pure function of an integer table ``contingency [codes, classes]``: the
number of samples with each token and each class. :class:`TokenContingency` accumulates such a table
over batches and processes, so memory does not grow with the number of samples and the sum over
processes is exact. :func:`variance_shares` needs no tokens: it tells what the columns of a dataset
depend on.
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
from spinlock.metrics.token_contingency import TokenContingency
from spinlock.metrics.token_dynamics import TokenDynamics
from spinlock.metrics.variance_shares import VarianceShares, rank_normalized, variance_shares

__all__ = [
    "TokenContingency",
    "TokenDynamics",
    "VarianceShares",
    "adjusted_mutual_information",
    "codebook_perplexity",
    "codebook_usage",
    "conditional_entropy",
    "conditional_mutual_information",
    "dead_codes",
    "expected_mutual_information",
    "jensen_shannon_divergence",
    "mutual_information",
    "normalized_mutual_information",
    "permutation_null",
    "permutation_p_value",
    "permuted_tables",
    "rank_normalized",
    "variance_shares",
]
