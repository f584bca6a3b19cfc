"""Where the shipped configuration files are."""

from __future__ import annotations

from pathlib import Path


def _config(name: str) -> Path:
    # A source tree has the files beside the package; an installed package finds them by the index.
    beside = Path(__file__).resolve().parents[2] / "config" / name
    if beside.is_file():
        return beside
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("widowx_control")) / "config" / name


def default_motors() -> Path:
    """Return the path of the shipped motor configuration, wx250s.yaml."""
    return _config("wx250s.yaml")


def default_modes() -> Path:
    """Return the path of the shipped mode configuration, modes.yaml."""
    return _config("modes.yaml")
