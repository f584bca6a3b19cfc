"""Error for launch files that cannot be loaded."""

from __future__ import annotations


class InvalidLaunchFileError(Exception):
    """A launch file cannot be read."""

    def __init__(self, extension: str = "", *, likely_errors: list[Exception] | None = None):
        super().__init__(extension, likely_errors)
        self.extension = extension
        self.likely_errors = likely_errors or []

    def __str__(self) -> str:
        if not self.extension:
            return "The launch file may have a syntax error, or its format is unknown"
        causes = "".join(f"\n - {type(e).__name__}: {e}" for e in self.likely_errors)
        return f"Caught exception when trying to load file of format [{self.extension}]:{causes}"
