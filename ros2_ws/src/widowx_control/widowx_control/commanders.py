"""Keeps track of who sends commands, and of commands that were sent and never arrived."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from widowx_control.arm_control import STEP_RANGE_S

_SILENCE_S: Final = 1.0
_LONGEST_SILENCE_S: Final = 2 * STEP_RANGE_S[1]


def silence_s(step_s: float) -> float:
    """Return after which time without a command a stream with this period is over, s.

    Any number may be given, as it comes out of a message.
    """
    return min(max(_SILENCE_S, 2 * step_s), _LONGEST_SILENCE_S)


@dataclass
class _Commander:
    number: int
    heard_s: float
    silence_s: float


class Commanders:
    """The publishers that commands came from, by the identity that the middleware gives them."""

    def __init__(self) -> None:
        """Nobody was heard yet."""
        self._known: dict[bytes, _Commander] = {}

    def heard(self, gid: bytes, number: int | None, step_s: float, now_s: float) -> int:
        """Take note of a command and return how many of the same publisher were lost before it.

        Args:
            gid: identity of the publisher.
            number: of the command, counted by its publisher; None when the middleware does not say.
            step_s: period of the commands.
            now_s: present time on a steady clock.
        """
        before = self._known.get(gid)
        self._known[gid] = _Commander(number or 0, now_s, silence_s(step_s))
        # Numbers that begin anew are another publisher's.
        return 0 if before is None or number is None else max(0, number - before.number - 1)

    def active(self, now_s: float) -> list[bytes]:
        """Return the publishers that command now."""
        return [gid for gid, one in self._known.items() if not now_s - one.heard_s > one.silence_s]

    def keep(self, present: Collection[bytes]) -> None:
        """Forget the publishers that are gone."""
        self._known = {gid: one for gid, one in self._known.items() if gid in present}
