"""Scheduling of the bus thread and its process, where the system allows it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_NICENESS: Final = -11
"""As sound servers take it: before ordinary work, behind real-time threads."""
_HINT: Final = "under load, cycles may be late; allow it with 'rtprio' in /etc/security/limits.d"


def request_realtime(priority: int) -> str | None:
    """Give the calling thread first-in-first-out scheduling.

    Args:
        priority: 1..99; 0 changes nothing.

    Returns:
        Why it was not possible, or None.
    """
    if priority == 0:
        return None
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (AttributeError, OSError) as error:
        return f"no real-time priority ({error}); {_HINT}"
    return None


def prefer_process() -> None:
    """Put every thread of the process before ordinary work, if that is allowed.

    The bus thread waits for whichever thread holds the interpreter, so that one must not starve. It
    stays an ordinary thread: an executor at real-time priority can starve the rest of the machine.
    """
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(entry.name), _NICENESS)
