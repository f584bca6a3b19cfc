"""Decides which joint states are published, by their stamps."""

from collections.abc import Sequence
from typing import Final

_FUTURE_TOLERANCE_NS: Final = 100_000_000
_CONFIRMATIONS: Final = 3
_CONFIRMATION_NS: Final = 5_000_000_000
"""Stamps in a row that confirm a jump are not further apart than this."""


class PublishSchedule:
    """Limits the rate of each joint separately, so that several sources may share the topic.

    Args:
        frequency_hz: highest rate at which a joint is published.
        ignore_timestamp: publish everything, whatever its stamp.
    """

    def __init__(self, frequency_hz: float, ignore_timestamp: bool) -> None:
        self.frequency_hz = frequency_hz
        self.ignore_timestamp = ignore_timestamp
        self._last_ns: dict[str, int] = {}
        self._last_call_ns = 0
        self._suspects: dict[tuple[str, ...], list[int]] = {}
        self.notice = ""

    def clock_went_back(self, now_ns: int) -> bool:
        """Notes the node's time; forgets all stamps when it went back, as when a bag loops."""
        went_back = now_ns < self._last_call_ns
        self._last_call_ns = now_ns
        if went_back:
            self._last_ns.clear()
            self._suspects.clear()
        return went_back

    def is_due(self, names: Sequence[str], stamp_ns: int, now_ns: int) -> bool:
        """Whether a message is to be published: one of its joints has not been for a period.

        One stamp before those already published, or ahead of them and of the clock, is wrong:
        published, it would mute all right ones for as long as it is off, here and in whoever
        listens. Several in a row are a clock that was set; it is followed, and `notice` says so.
        """
        if self.ignore_timestamp:
            return True
        known_ns = [self._last_ns[name] for name in names if name in self._last_ns]
        jumps = bool(known_ns) and stamp_ns < min(known_ns)
        jumps |= stamp_ns > max(now_ns, *known_ns, 0) + _FUTURE_TOLERANCE_NS
        if jumps and not self._is_confirmed(names, stamp_ns):
            return False
        if jumps and known_ns:
            self.notice = "stamps of joint states jumped; publishing all joints anew"
            self._last_ns.clear()
        self._suspects.clear()
        period_ns = int(1e9 / self.frequency_hz)
        if all(stamp_ns < self._last_ns.get(name, -period_ns) + period_ns for name in names):
            return False
        self._last_ns.update(dict.fromkeys(names, stamp_ns))
        return True

    def _is_confirmed(self, names: Sequence[str], stamp_ns: int) -> bool:
        """Whether as many messages in a row as it takes had such stamps, in their order."""
        before = self._suspects.setdefault(tuple(names), [])
        if before and not 0 <= stamp_ns - before[-1] < _CONFIRMATION_NS:
            before.clear()
        before.append(stamp_ns)
        return len(before) >= _CONFIRMATIONS
