"""Real-time scheduling of the calling thread, where the system allows it."""

from __future__ import annotations

import os


def request_realtime(priority: int) -> str | None:
    """Give the calling thread first-in-first-out scheduling.

    Args:
        priority: 1..99; 0 leaves the thread as it is.

    Returns:
        Why it was not possible, or None.
    """
    if priority == 0:
        return None
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (AttributeError, OSError) as error:
        return (
            f"no real-time priority ({error}); under load, cycles may be late. Allow it with "
            "'rtprio' in /etc/security/limits.d"
        )
    return None
