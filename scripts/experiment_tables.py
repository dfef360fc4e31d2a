"""Tables of the scores of experiments: mean ± half the range over runs."""

from collections.abc import Mapping, Sequence
from typing import Any

FAMILIES = ("gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs")
POLICIES = ("autoregressive", "residual", "convex")
NAMED_DYNAMICS = ("increment", "evenness", "heterogeneity", "noise", "noise_length", "lyapunov")
TRANSPORT = ("diffusion", "shift_x", "shift_y", "heterogeneity", "lyapunov", "growth")


def _dynamics(score: str, names: Sequence[str]) -> dict[str, str]:
    return {name: f"test/consistency/{score}/{name}" for name in names}


TABLES: dict[str, dict[str, str]] = {
    "Tokens and operators": {
        "same token": "test/consistency/same_token",
        "of two pooled probes": "test/consistency/set_same_token",
        "retrieval": "test/consistency/retrieval",
        "of two pooled probes ": "test/consistency/set_retrieval",
        "usage": "test/codebook/usage",
        "perplexity": "test/codebook/perplexity",
        "R2": "test/r2",
        "R2 of the other probe": "test/consistency/cross_probe_r2",
        "with shuffled tokens": "test/consistency/shuffled_tokens_r2",
    },
    "Tokens and initial conditions": {
        "family information, nats": "test/ic/family_mi_excess",
        "p": "test/ic/family_p_value",
        "family AMI": "test/ic/family_ami",
        "variant information, nats": "test/ic/variant_mi_excess",
    },
    "R2 of dynamics from tokens": _dynamics("dynamics_r2", NAMED_DYNAMICS)
    | {"shuffled operators": "test/consistency/dynamics_r2_shuffled"},
    "R2 of dynamics from tokens, within update policies": _dynamics(
        "dynamics_r2_within_policy", NAMED_DYNAMICS
    ),
    "R2 of decoded dynamics": _dynamics("decoded_dynamics_r2", NAMED_DYNAMICS),
    "R2 of decoded dynamics, within update policies": _dynamics(
        "decoded_dynamics_r2_within_policy", NAMED_DYNAMICS
    ),
    "R2 of decoded dynamics of transport operators": _dynamics("decoded_dynamics_r2", TRANSPORT),
    "Held-out families": {
        "R2 held in": "test/transfer/held_in_r2",
        "held out": "test/transfer/held_out_r2",
        "dynamics held in": "test/transfer/held_in_dynamics_r2",
        "held out ": "test/transfer/held_out_dynamics_r2",
        "same token": "test/transfer/same_token",
        "JS divergence": "test/transfer/js_divergence",
        "its null, 95 %": "test/transfer/js_divergence_null_95",
    },
    "R2 of the 46 features of each family by prototypes": {
        family: f"prototypes/r2/{family}" for family in FAMILIES
    },
    "Sequences": {
        "stay": "test/sequence/stay_probability",
        **{f"dwell, {policy}": f"test/sequence/dwell_time/{policy}" for policy in POLICIES},
        "kept tokens and lyapunov": "test/sequence/stay_correlation/lyapunov",
        "within policies": "test/sequence/stay_correlation_within_policy/lyapunov",
        "kept tokens and memory": "test/sequence/stay_correlation/memory",
        "within policies ": "test/sequence/stay_correlation_within_policy/memory",
    },
}
"""Title -> column -> name of the score."""


def table(results: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a Markdown table of the experiments that have the score of the first column.

    Args:
        results: One mapping for each run: ``name`` and ``metrics``.
        columns: Title -> name of the score.
    """
    rows = [["experiment", "runs", *map(str.strip, columns)], ["---"] * (2 + len(columns))]
    for name in dict.fromkeys(result["name"] for result in results):
        runs = [result["metrics"] for result in results if result["name"] == name]
        if all(next(iter(columns.values())) in run for run in runs):
            cells = [_cell([run[m] for run in runs if m in run]) for m in columns.values()]
            rows.append([name, str(len(runs)), *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "—"
    mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
    digits = 1 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"
