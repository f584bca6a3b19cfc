"""Decides which joint states are published, by their stamps."""

from collections.abc import Sequence


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

    def clock_went_back(self, now_ns: int) -> bool:
        """Notes the node's time; forgets all stamps when it went back, as when a bag loops."""
        went_back = now_ns < self._last_call_ns
        self._last_call_ns = now_ns
        if went_back:
            self._last_ns.clear()
        return went_back

    def is_due(self, names: Sequence[str], stamp_ns: int) -> bool:
        """Whether a message is to be published: one of its joints has not been for a period."""
        period_ns = int(1e9 / self.frequency_hz)
        oldest_ns = min((self._last_ns.get(name, 0) for name in names), default=0)
        if not self.ignore_timestamp and stamp_ns < oldest_ns + period_ns:
            return False
        self._last_ns.update(dict.fromkeys(names, stamp_ns))
        return True
