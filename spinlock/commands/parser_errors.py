"""Rewrites errors of the argument parser: the setting, what is wrong, and the file that has it."""

import inspect
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from spinlock.commands.yaml_text import read_yaml

# Forms of messages of jsonargparse, whose line breaks are spaces.
_CONTEXT = re.compile(r"^Parser key \"[\w.]+\": Unable to load config .* - (?=Parser key )")
_CLASS = re.compile(
    r"^Parser key \"(?P<key>[\w.]+)\": .*?Problem with given class_path '(?P<name>[\w.]+)': "
    r"(?P<problem>.*?)(?: - Expected a <class 'NoneType'>.*)?$"
)
_REQUIRED = re.compile(r"^the following arguments are required: (?P<names>.+)$")
_UNKNOWN = re.compile(
    r"^(?:(?:Subcommand|Group) '(?P<group>\w+)' does not accept option|Option) "
    r"'(?P<key>[\w.]+)'(?: is not accepted)?$"
)
_VALUE = re.compile(r"^Parser key \"(?P<key>[\w.]+)\": (?P<expected>Expected .*?)\. Got value: ")
_PATH = re.compile(
    r"^Parser key \"(?P<key>[\w.]+)\": Does not validate .* - Not of type PathLike: .*? "
    r"Given value: (?P<value>.*?)(?: - Not a valid subclass .*)?$"
)
_COMMANDS = ("fit", "validate", "test", "predict")


def plain_error(message: str, known: Iterable[str] = (), files: Sequence[str] = ()) -> str:
    r"""Return what an error of jsonargparse says about one setting; others are unchanged.

    Args:
        message: Message of the parser.
        known: Settings that exist, such as ``trainer.max_epochs``, for suggestions.
        files: Yaml files of the command; the last one that has the setting is named.

    Example:
        >>> message = "Subcommand 'fit' does not accept option 'data.generation.num_sample'"
        >>> plain_error(message, ["data.generation.num_samples"])
        'there is no setting data.generation.num_sample; similar: data.generation.num_samples'
        >>> plain_error('Parser key "data.batch_size": Expected a <class \'int\'>. Got value: x')
        "data.batch_size: expected int; got 'x'"
    """
    message = _CONTEXT.sub("", " ".join(message.split()).rstrip("."))
    prefix, names = "", known
    if found := _CLASS.match(message):
        prefix, message = f"{found['key']}.init_args.", found["problem"].rstrip(".")
        names = [f"{prefix}{name}" for name in _arguments(found["name"])]
        if required := _REQUIRED.match(message):
            keys = [f"{prefix}{name.strip()}" for name in required["names"].split(",")]
            verb = "is" if len(keys) == 1 else "are"
            return f"{', '.join(keys)} {verb} required by {found['name']}" + _file(
                found["key"], files
            )
    if unknown := _UNKNOWN.match(message):
        group = unknown["group"]
        section = f"{group}." if group is not None and group not in _COMMANDS else prefix
        key = section + unknown["key"]
        return f"there is no setting {key}{_similar(key, names)}{_file(key, files)}"
    if wrong := _VALUE.match(message):
        expected = re.sub(r"^Expected (?:an? )?(?:<class '(\w+)'>)?", r"\1", wrong["expected"])
        key = prefix + wrong["key"]
        value = message[wrong.end() :]
        return f"{key}: expected {expected.strip()}; got {value!r}{_file(key, files)}"
    if wrong := _PATH.match(message):
        key = prefix + wrong["key"]
        return f"{key}: expected a path as text; got {wrong['value']}{_file(key, files)}"
    return message


def _arguments(name: str) -> Collection[str]:
    """Return the arguments of a class, which the parser has imported."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return () if found is None else inspect.signature(found).parameters


def _similar(key: str, known: Iterable[str]) -> str:
    found = get_close_matches(key, list(known), n=2, cutoff=0.8)
    return f"; similar: {', '.join(found)}" if found else ""


def _file(key: str, files: Sequence[str]) -> str:
    """Return the file that has a setting, as an addition to a message."""
    for file in reversed(files):
        content: Any = read_yaml(file) if os.path.isfile(file) else None
        for name in key.split("."):
            content = content.get(name, ...) if isinstance(content, dict) else ...
        if content is not ...:
            return f" (in {file})"
    return ""
