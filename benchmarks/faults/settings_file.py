"""Writes settings of a dataset to a yaml file."""

import json
from pathlib import Path
from typing import Any

import yaml

from spinlock.configuration.generation_config import GenerationConfig


def settings(path: str, config: GenerationConfig) -> dict[str, Any]:
    """Return the settings of a run that generates a dataset, for a yaml file."""
    values = json.loads(config.to_json())
    return {"data": {"path": path, "generation": values, "progress": False}}


def settings_file(file: Path, path: str, config: GenerationConfig) -> Path:
    """Write the settings of a run that generates a dataset, and return the file."""
    file.write_text(yaml.safe_dump(settings(path, config), sort_keys=False))
    return file
