"""Logs how much of the codebook is in use."""

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from spinlock import contract, metrics
from spinlock.callbacks.epoch_tables import TokenTable
from spinlock.callbacks.evaluation_callback import EvaluationCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CodebookUsage(EvaluationCallback):
    """Logs the use of the codebook over each validation epoch, for all samples and processes.

    - ``codebook/usage``: fraction of the codes that occur, among the codes of all levels;
    - ``codebook/perplexity``: exp H(token), the effective number of codes; with several levels, of
      combinations of codes.

    With ``detailed=True`` also:

    - ``codebook/dead_codes``: number of codes that do not occur, over all levels;
    - ``codebook/usage/level_<q>``, ``codebook/perplexity/level_<q>``,
      ``codebook/dead_codes/level_<q>``: the same for each level, if there are several;
    - ``codebook/self_transition``: fraction of timesteps that keep the token of the one before, if
      the model returns ``token_sequence`` with T > 1.

    Testing logs the same with ``test/`` in front. Plots: ``codebook/usage_bars``, the samples of
    each code (with several levels ``codebook/usage_bars_level_<q>``), and ``codebook/transitions``
    if there is a ``token_sequence``. In the view ``probes``, the tokens are those of sets. Needs
    ``tokens`` in the step's output and the model's ``codebook_size``.

    Args:
        detailed: Whether to log the detailed scores too, default: False.
        every_n_epochs: Interval of observed epochs; see :class:`EvaluationCallback`.
        plots_every_n_epochs: Interval of plots; see :class:`EvaluationCallback`.

    Raises:
        ContractError: The step's output or the model lacks what is needed; already during sanity
            checking.
        ValueError: A token is outside the codebook.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import CodebookUsage
        >>> trainer = Trainer(callbacks=[CodebookUsage(every_n_epochs=5)], logger=False)
    """

    accepts_sets = True

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        size = self._codebook_size(pl_module)
        self._table = TokenTable(size, {"all": 1})
        self._transitions = TokenTable(size, {"next token": size})
        self._counts: dict[str, Tensor] = {}
        self._transition_counts: Tensor | None = None

    def _observe(self, step: contract.StepOutputs) -> None:
        tokens = step.tokens
        self._table.add(tokens, tokens.new_zeros(len(tokens)))
        if step.has_output("token_sequence"):
            sequence = step.output("token_sequence")
            earlier, later = sequence[:, :-1].flatten(), sequence[:, 1:].flatten()
            if len(later):
                self._transitions.add(earlier[:, None], later)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        tables = self._table.tables()
        if not tables:
            return {}
        self._counts = {name: table.sum(1) for name, table in tables.items()}
        self._transition_counts = self._transitions.tables().get("joint")
        levels = {name: table for name, table in tables.items() if name != "joint"}
        codes = torch.cat(list((levels or tables).values()))
        values = {
            "codebook/usage": metrics.codebook_usage(codes),
            "codebook/perplexity": metrics.codebook_perplexity(tables["joint"]),
        }
        if self.detailed:
            values["codebook/dead_codes"] = metrics.dead_codes(codes)
            for name, table in levels.items():
                values[f"codebook/usage/{name}"] = metrics.codebook_usage(table)
                values[f"codebook/perplexity/{name}"] = metrics.codebook_perplexity(table)
                values[f"codebook/dead_codes/{name}"] = metrics.dead_codes(table)
            if self._transition_counts is not None:
                kept = self._transition_counts.diagonal().sum()
                values["codebook/self_transition"] = kept / self._transition_counts.sum()
        return {key: value.item() for key, value in values.items()}

    def _draw(self) -> dict[str, "Figure"]:
        from spinlock.plots.token_plots import transition_matrix, usage_bars

        plots = {}
        for name, counts in self._counts.items():
            if name != "joint":
                title = f"Codebook usage, {name}"
                plots[f"codebook/usage_bars_{name}"] = usage_bars(counts, title=title)
            elif len(self._counts) == 1:
                plots["codebook/usage_bars"] = usage_bars(counts)
        if self._transition_counts is not None:
            plots["codebook/transitions"] = transition_matrix(self._transition_counts)
        return plots
