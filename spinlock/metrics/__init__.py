"""What a codebook's tokens say about a label, measured on a table of counts.

Every figure is a function of one integer table ``contingency [codes, classes]``: how many samples
with that token carry that label. Each is there as a pure function of the table and as a
torchmetrics class that accumulates the table, so memory does not grow with the number of samples
and the sum over processes is exact. Classes in one ``MetricCollection`` share one table.
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
from spinlock.metrics.token_information import (
    AdjustedMutualInformation,
    CodebookPerplexity,
    CodebookUsage,
    ConditionalEntropy,
    ConditionalMutualInformation,
    DeadCodes,
    JensenShannonDivergence,
    MutualInformation,
    NormalizedMutualInformation,
    PermutationTest,
)

__all__ = [
    "AdjustedMutualInformation",
    "CodebookPerplexity",
    "CodebookUsage",
    "ConditionalEntropy",
    "ConditionalMutualInformation",
    "DeadCodes",
    "JensenShannonDivergence",
    "MutualInformation",
    "NormalizedMutualInformation",
    "PermutationTest",
    "TokenContingency",
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
]
