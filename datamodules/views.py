"""Views: what the batches of a data module contain.

A view is a subclass of `FeatureView`. It checks that the dataset has what it needs, reads columns,
makes datasets and describes itself. To add a view, define its class here and list it in `VIEWS`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.validation import require_choice, structured
from spinlock.datamodules.column_groups import ViewOptions, missing_columns
from spinlock.datamodules.datasets import (
    Batch,
    FeatureDataset,
    FieldDataset,
    PairDataset,
    ProbeDataset,
    Realizations,
    group_probes,
    pair_probes,
)
from spinlock.datamodules.feature_view import FeatureView
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import ConfigurationError


class SequenceView(FeatureView):
    """Features of all timesteps, and those of the initial condition."""

    name = "sequence"
    one_timestep = False


class ResponseView(FeatureView):
    """Response features of one timestep, and features of the initial condition."""

    name = "responses"
    default_columns = ("responses", "noise")

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Require response features in the file."""
        return missing_columns(cls.default_columns, config)


class ProbeView(FeatureView):
    """Features of all probes of one operator."""

    name = "probes"

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Require two probes."""
        if config.probes_per_operator >= 2:
            return ""
        return "two or more probes of each operator (probes_per_operator is 1)"

    def arrange(self, samples: Tensor, operator: Tensor) -> Tensor:
        """Put the probes of an operator in one row."""
        return group_probes(samples, operator)

    def dataset(
        self, columns: Batch, rows: Tensor, open_fields: Callable[[], FieldReader], seed: int
    ) -> FeatureDataset:
        """Make a dataset of operators."""
        return ProbeDataset(columns, rows)


class PairView(ProbeView):
    """Features of two probes of one operator."""

    name = "pairs"

    def arrange(self, samples: Tensor, operator: Tensor) -> Tensor:
        """Pair each sample with the next probe of its operator."""
        return pair_probes(samples, operator)

    def dataset(
        self, columns: Batch, rows: Tensor, open_fields: Callable[[], FieldReader], seed: int
    ) -> FeatureDataset:
        """Make a dataset of pairs."""
        return PairDataset(columns, rows)


class BothView(FeatureView):
    """Features of one timestep, and fields read from disk for each batch."""

    name = "both"
    has_fields = True

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Require fields in the file."""
        return "" if config.stored_steps else "stored fields (storage.fields is none)"

    def dataset(
        self, columns: Batch, rows: Tensor, open_fields: Callable[[], FieldReader], seed: int
    ) -> FeatureDataset:
        """Make a dataset that reads fields."""
        return FieldDataset(
            columns,
            rows,
            open_fields(),
            num_realizations=self.config.num_realizations,
            realizations=self.realizations,
            seed=seed,
        )


class FieldView(BothView):
    """Fields without features."""

    name = "fields"
    one_timestep = False
    has_features = False

    def sources(self) -> dict[str, list[str]]:
        """Return no entries."""
        return {}


VIEWS: dict[str, type[FeatureView]] = {
    view.name: view
    for view in (
        FeatureView,
        SequenceView,
        ResponseView,
        PairView,
        ProbeView,
        FieldView,
        BothView,
    )
}
"""Name of each view, as in the argument ``view`` of `SpinlockDataModule`."""


def make_view(
    view: str | ViewOptions | Mapping[str, Any],
    config: GenerationConfig,
    *,
    timestep: int | None,
    realizations: Realizations,
) -> FeatureView:
    """Make a view.

    Args:
        view: Name in `VIEWS`, or options; a dictionary if they come from a checkpoint.
        config: Configuration of the dataset.
        timestep: Timestep of ``features``; default: the last.
        realizations: Realizations of ``output_fields``: ``mean``, ``one`` or ``all``.

    Raises:
        ConfigurationError: If there is no such view, or the dataset lacks it. Lists the views.

    Example:
        >>> from spinlock import GenerationConfig
        >>> print(make_view("both", GenerationConfig(1), timestep=1, realizations="one"))
        both, timestep 1 of 1, realizations: one; columns: outputs; selection: all
    """
    if isinstance(view, Mapping):
        view = structured(ViewOptions, view, "view")
    options = view if isinstance(view, ViewOptions) else ViewOptions(view)
    require_choice("view", options.name, tuple(VIEWS))
    require_choice("realizations", realizations, get_args(Realizations))
    kind = VIEWS[options.name]
    if missing := kind.missing(config):
        available = _names(view for view in VIEWS.values() if not view.missing(config))
        raise ConfigurationError(
            f"view: {kind.name} needs {missing}; the views of this dataset are {available}"
        )
    for setting, given, applies in (
        ("timestep", timestep is not None, "one_timestep"),
        ("realizations", realizations != "mean", "has_fields"),
        ("view.columns", options.columns is not None, "has_features"),
        ("view.selection", options.selection != "all", "has_features"),
    ):
        if given and not getattr(kind, applies):
            allowed = _names(view for view in VIEWS.values() if getattr(view, applies))
            raise ConfigurationError(
                f"{setting}: applies only to the views {allowed}; got view={kind.name}"
            )
    return kind(config, timestep, realizations, options)


def _names(views: Iterable[type[FeatureView]]) -> str:
    return ", ".join(view.name for view in views)
