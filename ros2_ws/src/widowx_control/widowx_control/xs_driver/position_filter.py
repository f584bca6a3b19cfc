"""Keeps damaged positions out: a packet in 65 536 damaged ones has a right CRC all the same."""

from __future__ import annotations

from typing import Final

from widowx_control.xs_driver.control_table import RAD_PER_TICK

MAX_TICKS_PER_S: Final = 6.5 * 1.5 / RAD_PER_TICK
"""No-load speed of the fastest servo at 12 V, with a margin for 14.8 V and for being dragged."""
PLAUSIBLE_TICKS: Final = 8


class PositionFilter:
    """Says whether a position of a servo can follow the one before it.

    One that cannot, and the very first one, need a second reading that agrees.
    """

    def __init__(self) -> None:
        """Know no positions."""
        self.rejected = 0
        self._accepted: dict[int, tuple[float, int]] = {}
        self._suspect: dict[int, tuple[float, int]] = {}

    def accept(self, servo_id: int, position_ticks: int, now_s: float) -> bool:
        """Return whether a reading may be believed."""
        last = self._accepted.get(servo_id)
        suspect = self._suspect.pop(servo_id, None)
        for reference in (last, suspect):
            if reference is None:
                continue
            then, before = reference
            reach = MAX_TICKS_PER_S * (now_s - then) + PLAUSIBLE_TICKS
            if abs(position_ticks - before) <= reach:
                self._accepted[servo_id] = (now_s, position_ticks)
                return True
        self.rejected += last is not None
        self._suspect[servo_id] = (now_s, position_ticks)
        return False

    def forget(self, servo_id: int) -> None:
        """Forget a servo that was gone."""
        self._accepted.pop(servo_id, None)
        self._suspect.pop(servo_id, None)

    def clear(self) -> None:
        """Forget every servo."""
        self._accepted.clear()
        self._suspect.clear()
