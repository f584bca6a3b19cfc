"""Waits between attempts that grow."""

from __future__ import annotations


class BackOff:
    """Waits that double from `initial_s` to `longest_s` until an attempt succeeds."""

    def __init__(self, initial_s: float, longest_s: float) -> None:
        self._initial_s = initial_s
        self._longest_s = longest_s
        self._next_s = initial_s

    def next_s(self) -> float:
        """Return the wait before the next attempt, which makes the one after it longer."""
        wait_s = self._next_s
        self._next_s = min(self._longest_s, 2.0 * wait_s)
        return wait_s

    def succeeded(self) -> None:
        """The next failure begins with the shortest wait again."""
        self._next_s = self._initial_s
