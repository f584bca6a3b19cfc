"""Scheduling of the bus thread and of the process around it, where the system allows it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Final

_NICENESS: Final = -11
"""As sound servers take it: before ordinary work, behind real-time threads."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread may wait for one that computes."""
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


def settle_process() -> None:
    """Keep the interpreter from being held for long. Call this when start-up is over.

    A collection of all objects would stop every thread for tens of milliseconds: what exists by now
    is left out of it.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()


def prefer_process(realtime_priority: int = 0) -> None:
    """Put every thread of the process before ordinary work, if that is allowed.

    A real-time thread waits for whichever thread holds the interpreter, so none of them may starve.

    Args:
        realtime_priority: for threads that have none yet; 0 leaves them ordinary threads with
            precedence. Only for a process whose threads mostly wait: one that computes, or polls,
            starves the rest of the machine, the kernel's serial port workers included.
    """
    for entry in Path("/proc/self/task").iterdir():
        thread_id = int(entry.name)
        # Threads come and go meanwhile.
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(thread_id) != os.SCHED_OTHER:
                continue
            os.setpriority(os.PRIO_PROCESS, thread_id, _NICENESS)
            if realtime_priority:
                os.sched_setscheduler(thread_id, os.SCHED_FIFO, os.sched_param(realtime_priority))
