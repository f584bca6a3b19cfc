"""Parameters as YAML text for nodes' command lines and files."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import yaml


class _QuotingDumper(yaml.SafeDumper):
    """Quotes all text: rcl reads more words as bool than PyYAML does, such as `y` and `n`."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_QuotingDumper.add_representer(str, _represent_text)


def to_yaml(value: Any) -> str:
    """Return `value` as YAML on one line that a node reads with the same types."""
    text = yaml.dump(value, Dumper=_QuotingDumper, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def write_parameters_file(content: Any) -> Path:
    """Write `content` to a new file that exists until this process ends; return its path."""
    with tempfile.NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
        file.write(to_yaml(content) + "\n")
    path = Path(file.name)
    atexit.register(path.unlink, missing_ok=True)
    return path
