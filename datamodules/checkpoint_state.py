"""What a checkpoint stores of a data module: its state and its arguments."""

import inspect
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spinlock.configuration.config_difference import explain_difference
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.plain_data import plain
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.validation import check_arguments
from spinlock.errors import DatasetError

_REMEDY = (
    "Use the data that the model was trained on, or set allow_transfer=True: the checkpoint's "
    "scaling is then applied to these data, and samples that the model was trained on may occur in "
    "the validation and test splits"
)


@dataclass(frozen=True)
class CheckpointState:
    """State of a data module in a checkpoint."""

    fingerprint: str
    configuration: str
    settings: dict[str, Any]
    scalers: dict[str, Any]
    invariant: dict[str, Any] | None = None

    def check(self, config: GenerationConfig, settings: Mapping[str, object]) -> None:
        """Check that the checkpoint belongs to a dataset and to settings.

        Args:
            config: Configuration of the dataset.
            settings: Settings of the data module.

        Raises:
            DatasetError: If the dataset or a setting differs. Names the difference.
        """
        found = self.fingerprint
        if found != config.fingerprint:
            difference = explain_difference(StoredConfig.from_json(self.configuration), config)
            raise DatasetError(
                f"the checkpoint was trained on another dataset (fingerprint {found[:12]}, these "
                f"data have {config.fingerprint[:12]}): {difference}. {_REMEDY}"
            )
        differing = "; ".join(
            f"{name}: {reprlib.repr(self.settings.get(name))} there, {settings.get(name)!r} here"
            for name in {**settings, **self.settings}
            if self.settings.get(name) != settings.get(name)
        )
        if differing:
            raise DatasetError(
                f"the checkpoint was trained with other data settings: {differing}. {_REMEDY}"
            )


def stored_arguments(kind: type[object], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a data module as plain data, which checkpoints store.

    Args:
        kind: Class whose constructor takes the arguments.
        values: Arguments by name, such as the local variables of the constructor; other names are
            ignored.

    Returns:
        All arguments except ``executor``, so that checkpoints load with ``weights_only=True``.

    Raises:
        ConfigurationError: If the arguments come from a checkpoint, and one has another type than
            its annotation. Names the argument.
    """
    given = {name: values[name] for name in inspect.signature(kind).parameters}
    if not isinstance(given["generation"], GenerationConfig):
        # The arguments come from a checkpoint, whose author is not trusted.
        check_arguments(kind.__init__, given)
    return {name: plain(value) for name, value in given.items() if name != "executor"}
