"""Whether the driver obeys commands, and why not."""

from __future__ import annotations

import threading

from widowx_control.xs_driver.driver_types import CommandRefused, DriverState


class RunState:
    """State and standing faults. Read and change them, and anything commanded, under `lock`."""

    def __init__(self) -> None:
        """Start without a bus."""
        self.lock = threading.RLock()
        self.state = DriverState.DISCONNECTED
        self.faults: dict[str, str] = {}
        """Why the driver is stopped, by code; they stand until the re-arm."""
        self.stops = 0
        """How often a new cause came up, or a stop was requested."""
        self.problem = ""
        """Why there is no connection, or empty."""

    @property
    def running(self) -> bool:
        """Whether commands are obeyed."""
        return self.state is DriverState.RUNNING

    def latch(
        self, code: str, text: str, *, request: bool = False, mended_by_rearm: bool = False
    ) -> bool:
        """Note a cause to stop. Returns whether it is a new one. The caller holds the lock.

        Args:
            code: short key.
            text: what a person should know.
            request: it counts as new although it stands already.
            mended_by_rearm: it does not keep a re-arm that is under way from succeeding.
        """
        new = request or code not in self.faults
        self.stops += new and not mended_by_rearm
        self.faults[code] = text
        return new

    def require_running(self) -> None:
        """Pass while commands are obeyed.

        Raises:
            CommandRefused: they are not; the text says why.
        """
        if not self.running:
            reasons = "; ".join(self.faults.values()) or "the bus is not connected"
            raise CommandRefused(self.state.value, f"the driver is {self.state.value}: {reasons}")
