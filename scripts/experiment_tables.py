"""Tables of the scores of experiments, as in docs/vqvae.md."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FAMILIES = ("gaussian_noise", "band_limited", "sinusoids", "gaussian_blobs")
POLICIES = ("autoregressive", "residual", "convex")
NAMED = ("increment", "evenness", "heterogeneity", "spread", "noise", "noise_length", "lyapunov")
TRANSPORT = ("diffusion", "shift_x", "shift_y", "growth", "heterogeneity", "lyapunov", "noise")
UNSEEN = ("num_layers", "base_channels", "kernel_size", "activation", "normalization")
LEAVE_OUT = tuple(f"leave_out_{family}" for family in FAMILIES)


@dataclass(frozen=True)
class Table:
    """A table with a row for each experiment.

    Args:
        title: Title.
        columns: Title of each column, and name of the score; a score whose name ends with
            ``p_value`` is listed run by run.
        left_out: Experiments without a row; default: none.
        rows: Experiments with a row; default: all that have the score of the first column.
    """

    title: str
    columns: Mapping[str, str]
    left_out: Sequence[str] = ()
    rows: Sequence[str] = ()

    def markdown(self, results: Sequence[Mapping[str, Any]]) -> str:
        """Format the scores of the runs: mean ± half the range.

        Args:
            results: One mapping for each run: ``name`` and ``metrics``.
        """
        lines = [["experiment", "runs", *map(str.strip, self.columns)]]
        lines += [["---"] * len(lines[0])]
        first = next(iter(self.columns.values()))
        for name in dict.fromkeys(result["name"] for result in results):
            runs = [result["metrics"] for result in results if result["name"] == name]
            wanted = name in self.rows if self.rows else name not in self.left_out
            if wanted and all(first in run for run in runs):
                cells = [
                    _cell(score, [run[score] for run in runs if score in run])
                    for score in self.columns.values()
                ]
                lines.append([name, str(len(runs)), *cells])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_name(score: str, names: Iterable[str]) -> dict[str, str]:
    return {name: f"test/consistency/{score}/{name}" for name in names}


_HELD_OUT_OR_TRANSPORT = (
    *LEAVE_OUT,
    *(f"unseen_{axis}" for axis in UNSEEN),
    "transport",
    "transport_single",
)
_ABOUT_DYNAMICS = (
    *("responses", "without_noise", "grouped", "residual", "one_probe"),
    *("horizon_1", "horizon_3", "horizon_3_grouped"),
)

TABLES = (
    Table(
        "Tokens, operators and initial conditions",
        {
            "same token": "test/consistency/same_token",
            "pooled": "test/consistency/set_same_token",
            "retrieval": "test/consistency/retrieval",
            "pooled ": "test/consistency/set_retrieval",
            "family information": "test/ic/family_mi_excess",
            "p of each run": "test/ic/family_p_value",
            "usage": "test/codebook/usage",
            "perplexity": "test/codebook/perplexity",
            "R²": "test/r2",
            "R² of the other probe": "test/consistency/cross_probe_r2",
        },
        left_out=_HELD_OUT_OR_TRANSPORT,
    ),
    Table(
        "R² of dynamics decoded from the token",
        _by_name("decoded_dynamics_r2", NAMED),
        rows=_ABOUT_DYNAMICS,
    ),
    Table(
        "The same within update policies",
        _by_name("decoded_dynamics_r2_within_policy", NAMED),
        rows=_ABOUT_DYNAMICS,
    ),
    Table(
        "R² of dynamics by the mean of the token over other test operators",
        _by_name("dynamics_r2", NAMED)
        | {"shuffled operators": "test/consistency/dynamics_r2_shuffled"},
        rows=(*_ABOUT_DYNAMICS, "paired", "plain"),
    ),
    Table(
        "Families that were left out",
        {
            "R² held in": "test/transfer/held_in_r2",
            "held out": "test/transfer/held_out_r2",
            "dynamics held in": "test/transfer/held_in_dynamics_r2",
            "held out ": "test/transfer/held_out_dynamics_r2",
            "same token": "test/transfer/same_token",
            "JS": "test/transfer/js_divergence",
            "null, 95 %": "test/transfer/js_divergence_null_95",
            "p of each run": "test/transfer/js_divergence_p_value",
        },
    ),
    Table(
        "Architectures that were left out",
        {
            "same token held in": "held_in/test/consistency/same_token",
            "held out": "test/consistency/same_token",
            "R² held in": "held_in/test/r2",
            "held out ": "test/r2",
            "dynamics held in": "held_in/test/consistency/decoded_dynamics_r2",
            "held out  ": "test/consistency/decoded_dynamics_r2",
        },
        rows=tuple(f"unseen_{axis}" for axis in UNSEEN),
    ),
    Table(
        "R² of the 46 features of each family, by prototypes",
        {family: f"prototypes/r2/{family}" for family in FAMILIES},
    ),
    Table(
        "Transport operators: R² of dynamics decoded from the tokens",
        {"same token": "test/consistency/same_token"} | _by_name("decoded_dynamics_r2", TRANSPORT),
        rows=("transport", "transport_single"),
    ),
    Table(
        "Sequences",
        {
            "stay": "test/sequence/stay_probability",
            **{f"dwell, {policy}": f"test/sequence/dwell_time/{policy}" for policy in POLICIES},
            "kept tokens and lyapunov": "test/sequence/stay_correlation/lyapunov",
            "within policies": "test/sequence/stay_correlation_within_policy/lyapunov",
            "kept tokens and memory": "test/sequence/stay_correlation/memory",
            "within policies ": "test/sequence/stay_correlation_within_policy/memory",
        },
    ),
)
"""The tables, in order."""


def _cell(score: str, values: Sequence[float]) -> str:
    if not values:
        return "—"
    if score.endswith("p_value"):
        return ", ".join(f"{value:.3f}" for value in values)
    mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
    digits = 0 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"
