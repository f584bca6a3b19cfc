"""Looks after one servo at a time: health, lost settings, servos that come back.

Used by the bus thread only.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from widowx_control.xs_driver.arm_servos import ArmServos, Servo, finish
from widowx_control.xs_driver.bus import NoReply, Refused, ServoBus
from widowx_control.xs_driver.control_table import WATCHDOG_TRIPPED, hardware_error_text
from widowx_control.xs_driver.driver_types import LoopCounters
from widowx_control.xs_driver.goal_sender import GoalSender
from widowx_control.xs_driver.run_state import RunState

_PROFILE_REGISTERS: Final = frozenset({"Profile_Velocity", "Profile_Acceleration"})


class ServoCare:
    """Takes the servos in turn; those that something points at come first.

    Args:
        servos: what is known of the servos.
        bus: the bus.
        sender: what is commanded.
        run: whether the driver runs; profiles are left alone while it is stopped.
        counters: `settings_restored` is counted here.
        probe_period_s: how often a missing servo is looked for.
        urgent: IDs of servos to look at first; whoever suspects something appends one.
        fault: latches a stop, given code and text.
        event: reports, given level and text.
        answered: told of a servo that is there again.
    """

    def __init__(
        self,
        servos: ArmServos,
        bus: ServoBus,
        sender: GoalSender,
        run: RunState,
        counters: LoopCounters,
        probe_period_s: float,
        *,
        urgent: deque[int],
        fault: Callable[[str, str], None],
        event: Callable[[str, str], None],
        answered: Callable[[Servo], None],
    ) -> None:
        """Start with the first servo."""
        self._servos = servos
        self._bus = bus
        self._sender = sender
        self._run = run
        self._counters = counters
        self._probe_period_s = probe_period_s
        self._urgent = urgent
        self._fault = fault
        self._event = event
        self._answered = answered
        self._order: deque[int] = deque(servos.by_id)
        self._known_errors: dict[int, int] = {}
        self._last_probe_s = 0.0

    def look_after_one(self) -> None:
        """Read one servo's health and act on it, or look for it if it is missing."""
        if self._urgent:
            servo = self._servos.by_id[self._urgent.popleft()]
        else:
            self._order.rotate(-1)
            servo = self._servos.by_id[self._order[0]]
        if servo.rebooting:
            return
        if servo.missing:
            self._probe(servo)
            return
        try:
            self._servos.read_health(self._bus, servo, attempts=1)
        except (NoReply, Refused):
            return
        error = servo.known("Hardware_Error_Status")
        if error & ~self._known_errors.get(servo.servo_id, 0):
            self._event("error", f"{servo.name}: hardware error: {hardware_error_text(error)}")
        self._known_errors[servo.servo_id] = error
        problem = self._servos.health_problem(servo)
        if problem:
            self._fault(*problem)
        elif servo.known("Bus_Watchdog") != WATCHDOG_TRIPPED:
            self._repair(servo)

    def _probe(self, servo: Servo) -> None:
        """Look for a missing servo now and then; found, it waits for the re-arm."""
        now = time.monotonic()
        if now - self._last_probe_s < self._probe_period_s:
            return
        self._last_probe_s = now
        try:
            self._bus.ping(servo.servo_id, attempts=1)
            problem = finish(self._servos.find(self._bus, servo))
        except (NoReply, Refused):
            return
        if problem is None:
            self._answered(servo)
            self._event("info", f"{servo.name} answers again; re-arm to go on")

    def _repair(self, servo: Servo) -> None:
        """Put settings back that a servo lost, as after a brown-out, and goals a shadow missed."""
        for name, value in servo.wanted_ram().items():
            if not self._run.running and name in _PROFILE_REGISTERS:
                continue
            if servo.known(name) != value:
                # Counted first: an answer that is lost does not say that nothing was done.
                self._counters.settings_restored += 1
                with contextlib.suppress(NoReply, Refused):
                    self._servos.write(self._bus, servo, name, value)
                return
        self._sender.check_goal(servo)
