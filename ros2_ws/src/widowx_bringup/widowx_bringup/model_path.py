"""Where policy bundles are looked for by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

MODEL_PATH_VARIABLE = "COXSWAIN_MODEL_PATH"
"""Environment variable with directories of bundles, separated as in PATH; it replaces the rest."""


def model_search_path(environment: Mapping[str, str], start_points: Sequence[Path]) -> list[Path]:
    """Directories that may contain bundles, best first.

    Args:
        environment: environment variables.
        start_points: directories inside the workspace or the repository; `models/` of each of
            them and of the directories above is searched, when it exists.
    """
    if environment.get(MODEL_PATH_VARIABLE):
        return [Path(entry) for entry in environment[MODEL_PATH_VARIABLE].split(os.pathsep)]
    found: list[Path] = []
    for start in start_points:
        for directory in (start, *start.parents):
            models = directory / "models"
            if models.is_dir() and models not in found:
                found.append(models)
    return found
