"""How much of the codebook is in use."""

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
    """Logs the use of the codebook over each validation epoch, all samples and processes together.

    - ``codebook/usage``: fraction of the codes that occur; of Q > 1 levels, of all their codes;
    - ``codebook/perplexity``: exp H(token), the effective number of codes; of Q > 1 levels, of
      combinations;
    - ``codebook/dead_codes``: number of codes that do not occur, over all levels;
    - ``codebook/usage/level_<q>``, ``codebook/perplexity/level_<q>``,
      ``codebook/dead_codes/level_<q>``: those of each level, where Q > 1;
    - ``codebook/self_transition``: fraction of timesteps that keep the token of the one before,
      where the model gives ``token_sequence`` of T > 1.

    Testing logs the same with ``test/`` in front. Figures: ``codebook/usage_bars``, the histogram
    of the codes (with levels, ``codebook/usage_bars_level_<q>``), and ``codebook/transitions`` with
    ``token_sequence``. Needs ``tokens`` in the step's output; uses the model's ``codebook_size``,
    without which codes are those up to the largest met.

    Args:
        every_n_epochs: As in :class:`EvaluationCallback`.
        figures_every_n_epochs: As in :class:`EvaluationCallback`.

    Raises:
        ContractError: The step's output has no tokens; already while sanity checking.
        ValueError: A token is outside the codebook.
    """

    def __init__(self, *, every_n_epochs: int = 1, figures_every_n_epochs: int = 10) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs, figures_every_n_epochs=figures_every_n_epochs
        )
        self._table: TokenTable | None = None
        self._transitions: TokenTable | None = None
        self._counts: dict[str, Tensor] = {}
        self._transition_counts: Tensor | None = None

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._table = TokenTable(pl_module, {"all": 1})
        self._transitions = None
        self._counts, self._transition_counts = {}, None

    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        dataloader_idx: int,
    ) -> None:
        me, model = type(self).__name__, type(pl_module).__name__
        tokens = contract.tokens_of(outputs, needed_by=me, given_by=model)
        if self._table is not None:
            self._table.add(tokens, tokens.new_zeros(len(tokens)))
        if isinstance(outputs, dict) and "token_sequence" in outputs:
            key = "token_sequence"
            sequence = contract.from_outputs(outputs, key, needed_by=me, given_by=model)
            self._follow(pl_module, sequence)

    def _follow(self, pl_module: LightningModule, sequence: Tensor) -> None:
        if sequence.shape[1] < 2:
            return
        if self._transitions is None:
            num_codes = getattr(pl_module, "codebook_size", None)
            self._transitions = TokenTable(pl_module, {"next token": num_codes})
        earlier, later = sequence[:, :-1].flatten(), sequence[:, 1:].flatten()
        self._transitions.add(earlier[:, None], later)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        if self._table is None:
            return {}
        tables = self._table.tables()
        self._counts = {name: table.sum(1) for name, table in tables.items()}
        if not tables:
            return {}
        levels = {name: table for name, table in tables.items() if name != "joint"}
        codes = torch.cat(list((levels or tables).values()))
        values = {
            "codebook/usage": metrics.codebook_usage(codes),
            "codebook/perplexity": metrics.codebook_perplexity(tables["joint"]),
            "codebook/dead_codes": metrics.dead_codes(codes),
        }
        for name, table in levels.items():
            values[f"codebook/usage/{name}"] = metrics.codebook_usage(table)
            values[f"codebook/perplexity/{name}"] = metrics.codebook_perplexity(table)
            values[f"codebook/dead_codes/{name}"] = metrics.dead_codes(table)
        found = self._transitions.tables() if self._transitions is not None else {}
        if found:
            self._transition_counts = _square(found["joint"])
            kept = self._transition_counts.diagonal().sum()
            values["codebook/self_transition"] = kept / self._transition_counts.sum()
        return {key: value.item() for key, value in values.items()}

    def _draw(self, trainer: Trainer) -> dict[str, "Figure"]:
        from spinlock.plots.token_plots import transition_matrix, usage_bars

        levels = {name: counts for name, counts in self._counts.items() if name != "joint"}
        figures = {
            f"codebook/usage_bars_{name}": usage_bars(counts, title=f"Codebook usage, {name}")
            for name, counts in levels.items()
        }
        if self._counts and not levels:
            figures["codebook/usage_bars"] = usage_bars(self._counts["joint"])
        if self._transition_counts is not None:
            figures["codebook/transitions"] = transition_matrix(self._transition_counts)
        return figures


def _square(table: Tensor) -> Tensor:
    """The table with as many rows as columns: without a codebook's size each grew by itself."""
    rows, columns = table.shape
    size = max(rows, columns)
    return torch.nn.functional.pad(table, (0, size - columns, 0, size - rows))
