"""Finds a policy bundle by path or by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MODELS_DIRECTORY = "models"


class BundleNotFoundError(FileNotFoundError):
    """No bundle of that name; the message says where it was looked for."""


def find_bundle(model: str, start_points: Sequence[Path]) -> Path:
    """Directory of a bundle.

    A text that contains a slash, or names an existing directory, is a path. Any other is the name
    of a directory in `models/`, looked for in each start point and the directories above it.

    Args:
        model: path or name.
        start_points: directories inside the workspace or the repository.

    Raises:
        BundleNotFoundError: nothing there.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if "/" in model:
        raise BundleNotFoundError(f"model is '{model}', but there is no such directory")
    searched = []
    for start in start_points:
        for directory in (start, *start.parents):
            candidate = directory / MODELS_DIRECTORY / model
            if candidate.is_dir():
                return candidate
            if candidate.parent.is_dir():
                searched.append(candidate.parent)
    names = sorted(
        {
            bundle.name
            for parent in searched
            for bundle in parent.iterdir()
            if bundle.is_dir() and any(bundle.glob("*.yaml"))
        }
    )
    known = f"known bundles: {', '.join(names)}" if names else "no models/ directory has any"
    raise BundleNotFoundError(f"there is no bundle '{model}'; {known}. A path works, too")
