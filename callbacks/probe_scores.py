"""Scores of how tokens and latents of several probes identify their operator."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from spinlock import metrics
from spinlock.callbacks.probe_pairs import probe_table
from spinlock.metrics.joint_labels import first_rows

_FEWEST_FOR_SETS = 4
_OF_EACH_COLUMN = ("dynamics_r2", "dynamics_r2_within_policy")


def set_scores(
    columns: Mapping[str, Tensor],
    quantize: Callable[[Tensor], Tensor] | None,
    *,
    num_candidates: int,
    seed: int,
) -> dict[str, float]:
    """Return scores of latents of single probes, and of sets of probes.

    Of an operator with P probes, the first P // 2 in the order of the index are one set, and the
    next P // 2 another. The latent of a set is the mean of its probes' latents. Given the families
    of two sets, chance is that of sets with the same families in any order.

    Args:
        columns: Columns of each sample, in the order of the index: ``latent`` ``[N, D]``,
            ``operator`` and ``family`` ``[N]``.
        quantize: Function of latents that returns tokens, or None to leave out tokens of sets.
        num_candidates: Number of operators to find the right one among.
        seed: Seed of the draw of these operators.

    Returns:
        ``retrieval`` and ``retrieval_candidates``; with four or more probes also ``set_retrieval``
        and ``set_same_token``.
    """
    rows = probe_table(columns["operator"])
    settings = {"num_candidates": num_candidates, "seed": seed}
    latent = columns["latent"].double()[rows]
    rate, candidates = metrics.retrieval(latent, **settings)
    scores = {"retrieval": rate.item(), "retrieval_candidates": float(candidates)}
    size = rows.shape[1] // 2
    if rows.shape[1] < _FEWEST_FOR_SETS:
        return scores
    latent = latent[:, : 2 * size].reshape(len(rows), 2, size, -1).mean(2)
    scores["set_retrieval"] = metrics.retrieval(latent, **settings).rate.item()
    if quantize is not None:
        families = columns["family"][rows][:, : 2 * size].reshape(-1, size).sort(1).values
        operators = torch.arange(len(rows)).repeat_interleave(2)
        tokens = quantize(latent.flatten(0, 1).to(columns["latent"])).cpu()
        same = metrics.same_token_rate(tokens, metrics.joint_tokens(families), operators)
        scores["set_same_token"] = same.above_chance.item()
    return scores


def dynamics_scores(
    columns: Mapping[str, Tensor], names: Sequence[str], *, seed: int, detailed: bool
) -> dict[str, float]:
    """Return R2 of the dynamics that tokens predict; see `predict_from_tokens`.

    Args:
        columns: Columns of each sample, in the order of the index: ``dynamics`` ``[N, D]``,
            ``tokens`` ``[N, Q]``, ``operator`` and ``update_policy`` ``[N]``, and if there are any,
            ``decoded_dynamics`` ``[N, D]``.
        names: Names of the D columns of the dynamics.
        seed: Seed of the permutation of operators.
        detailed: Whether to return the baseline of each column too.

    Returns:
        - ``dynamics_r2`` and ``dynamics_r2/<name>``: mean over columns, and of each column;
        - ``dynamics_r2_within_policy`` and ``dynamics_r2_within_policy/<name>``: the same with
          predictions among operators of the same update policy, and R2 about the mean of each
          policy, so that what the update policy explains counts for nothing;
        - ``dynamics_r2_shuffled`` and, if detailed, ``dynamics_r2_shuffled/<name>``: baseline of
          ``dynamics_r2`` with the dynamics permuted among operators;
        - ``decoded_dynamics_r2``, ``decoded_dynamics_r2_within_policy`` and, if detailed, those of
          each column: R2 of the decoded dynamics, about the mean of all and of each policy.
    """
    values, policy = columns["dynamics"].double(), columns["update_policy"]
    tokens, operator = columns["tokens"], columns["operator"]
    shuffled = shuffled_among_operators(values, operator, seed=seed)
    both = torch.cat([values, shuffled], 1)
    of_both = metrics.column_r_squared(metrics.predict_from_tokens(both, tokens, operator), both)
    within = torch.full_like(values, torch.nan)
    for number in torch.unique(policy):
        own = policy == number
        within[own] = metrics.predict_from_tokens(values[own], tokens[own], operator[own])
    # An update policy of one operator has nothing to predict it from.
    known = ~within.isnan().all(1)
    results = {
        "dynamics_r2": of_both[: len(names)],
        "dynamics_r2_within_policy": metrics.column_r_squared(
            within[known], values[known], policy[known]
        ),
        "dynamics_r2_shuffled": of_both[len(names) :],
    }
    if "decoded_dynamics" in columns:
        decoded = columns["decoded_dynamics"]
        results |= {
            "decoded_dynamics_r2": metrics.column_r_squared(decoded, values),
            "decoded_dynamics_r2_within_policy": metrics.column_r_squared(decoded, values, policy),
        }
    scores = {name: result.mean().item() for name, result in results.items()}
    for score, result in results.items():
        if detailed or score in _OF_EACH_COLUMN:
            of_column = zip(names, result.tolist(), strict=True)
            scores |= {f"{score}/{name}": value for name, value in of_column}
    return scores


def shuffled_among_operators(values: Tensor, operator: Tensor, *, seed: int) -> Tensor:
    """Permute values at random among operators.

    Args:
        values: Values ``[N, D]`` that the samples of an operator have in common.
        operator: Operator of each sample, ``[N]`` int64.
        seed: Seed of the permutation.

    Returns:
        Values ``[N, D]``: the samples of an operator have those of one operator, which may be the
        same one.
    """
    first = first_rows(operator)
    permutation = torch.from_numpy(np.random.default_rng(seed).permutation(len(first)))
    return values[first[permutation[metrics.joint_tokens(operator)]]]
