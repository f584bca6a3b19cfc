"""Where the shipped configuration files are."""

from __future__ import annotations

from pathlib import Path

from node_common.package_share import share_file


def default_motors() -> Path:
    """Return the path of the shipped motor configuration, wx250s.yaml."""
    return share_file(__file__, "widowx_control", "config/wx250s.yaml")


def default_modes() -> Path:
    """Return the path of the shipped mode configuration, modes.yaml."""
    return share_file(__file__, "widowx_control", "config/modes.yaml")
