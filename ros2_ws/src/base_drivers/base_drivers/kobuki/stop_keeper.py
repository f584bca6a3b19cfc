"""Stops a Kobuki whose driver was killed or hangs. Runs as a process beside the driver.

The firmware documents no time limit for velocity commands: without this, a base whose driver dies
at full speed would go on. The driver writes a byte into a pipe at every cycle. When the bytes stop,
or the pipe ends, this process writes zero velocity to the same serial line.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from typing import Final

from node_common.realtime import request_realtime

from base_drivers.kobuki.commands import base_control
from base_drivers.kobuki.framing import frame
from base_drivers.velocity import REST

ALIVE: Final = b"."
FAREWELL: Final = b"q"
REALTIME_PRIORITY: Final = 10
"""Of the keeper and of the driver's thread on the line, where the system allows it."""
_PERIOD_S: Final = 0.02
_AFTER_DEATH_S: Final = 1.0


def keep(port: int, heartbeat: int, timeout_s: float) -> None:
    """Watch until the driver says farewell, or until some time after it has died.

    Args:
        port: descriptor of the open serial line.
        heartbeat: descriptor of the pipe's reading end.
        timeout_s: silence after which the base is stopped.
    """
    rest = frame(base_control(REST))
    heard_s = time.monotonic()
    died_s: float | None = None
    while died_s is None or time.monotonic() - died_s < _AFTER_DEATH_S:
        silence_s = time.monotonic() - heard_s
        stopping = died_s is not None or silence_s >= timeout_s
        wait_s = _PERIOD_S if stopping else timeout_s - silence_s
        ready, _, _ = select.select([] if died_s is not None else [heartbeat], [], [], wait_s)
        if ready:
            said = os.read(heartbeat, 4096)
            if FAREWELL in said:
                return
            if said:
                heard_s = time.monotonic()
                continue
            died_s = time.monotonic()
        if died_s is not None or time.monotonic() - heard_s >= timeout_s:
            os.write(port, rest)


def main() -> int:
    """Run beside a driver; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--heartbeat", type=int, required=True)
    parser.add_argument("--timeout-s", type=float, required=True)
    options = parser.parse_args()
    # The terminal interrupts the whole group; the driver decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request_realtime(REALTIME_PRIORITY)
    # Without a port there is nothing left to stop.
    try:
        keep(options.port, options.heartbeat, options.timeout_s)
    except OSError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
