"""Reads where the joints are, believes only what is plausible, and notices servos that are gone.

Used by the bus thread only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from widowx_control.xs_driver.arm_servos import (
    STATE_ADDRESS,
    STATE_LENGTH,
    ArmServos,
    Servo,
    parse_state,
)
from widowx_control.xs_driver.bus import NoReply, ServoBus
from widowx_control.xs_driver.configuration import ArmConfiguration
from widowx_control.xs_driver.driver_types import JointReading
from widowx_control.xs_driver.position_filter import PositionFilter

_MISSES: Final = 8
"""Reads in a row without an answer before a servo counts as missing."""
_LAST_PINGS: Final = 3
_SHADOW_PATIENCE_S: Final = 0.06


class BusSilent(Exception):
    """No servo answers any more although the port is there."""


class StateReader:
    """Reads joints and shadows.

    Args:
        configuration: of the arm.
        servos: what is known of the servos; readings are kept there.
        bus: the bus.
        missing_after_s: a servo that does not answer for this long is missing.
        attend: called between two reads, since a command waits for the one on the wire.
        look_at: told the ID of a servo that flags a hardware error.
        lost: told of a servo that does not answer any more.
    """

    def __init__(
        self,
        configuration: ArmConfiguration,
        servos: ArmServos,
        bus: ServoBus,
        missing_after_s: float,
        *,
        attend: Callable[[], None],
        look_at: Callable[[int], None],
        lost: Callable[[Servo], None],
    ) -> None:
        """Nothing is read yet."""
        self._port_name = bus.port.port_name
        self._servos = servos
        self._bus = bus
        self._missing_after_s = missing_after_s
        self._attend = attend
        self._look_at = look_at
        self._lost = lost
        self._joints = servos.named(configuration.joint_order)
        self._shadows = servos.named(sorted(servos.master_of))
        self._last_answer_s: dict[int, float] = {}
        self._misses: Counter[int] = Counter()
        self._filter = PositionFilter()

    @property
    def implausible_readings(self) -> int:
        """Positions that were not believed, since the start."""
        return self._filter.rejected

    def start_over(self, present: Iterable[Servo]) -> None:
        """Forget earlier readings; these servos have just answered."""
        now = time.monotonic()
        self._last_answer_s = {s.servo_id: now for s in present}
        self._misses.clear()
        self._filter.clear()

    def answered(self, servo: Servo) -> None:
        """Note that a servo is there, wherever it may be by now."""
        self._last_answer_s[servo.servo_id] = time.monotonic()
        self._misses.pop(servo.servo_id, None)
        self._filter.forget(servo.servo_id)

    def read_joints(self, start: float, budget_s: float) -> JointReading | None:
        """Read every joint, those that failed again. Returns None unless all were read.

        Args:
            start: when the cycle began, on the steady clock.
            budget_s: from then on, no third attempt begins after this time.

        Raises:
            BusSilent: no servo answers any more.
        """
        wanted = [s for s in self._joints if not s.missing and not s.rebooting]
        joints = [s.servo_id for s in wanted]
        left = joints + self._shadows_due(start)
        attempt = 0
        while any(servo_id in joints for servo_id in left):
            if attempt >= 2 and time.monotonic() > start + budget_s:
                break
            if attempt:
                # A servo that does not answer silences those after it, so it goes last.
                left = left[1:] + left[:1]
                self._attend()
            self._sync_read(left)
            attempt += 1
        self._misses.update(left)
        self._find_missing(time.monotonic())
        if any(servo_id in joints for servo_id in left) or len(wanted) < len(self._joints):
            return None
        return JointReading(tuple(s.state for s in self._joints if s.state is not None))

    def read_shadows(self) -> None:
        """Read the shadows by themselves, also for their bus watchdogs' sake.

        A packet for the master may or may not feed them.
        """
        left = [s.servo_id for s in self._shadows if not (s.missing or s.rebooting)]
        if left:
            self._sync_read(left)
            self._misses.update(left)

    def _sync_read(self, left: list[int]) -> None:
        """Read servos once and take those that answered off the list."""
        answers = self._bus.sync_read(left, STATE_ADDRESS, STATE_LENGTH)
        now = time.monotonic()
        for servo_id, data in answers.data.items():
            state = parse_state(data)
            if self._filter.accept(servo_id, state.position, now):
                self._servos.by_id[servo_id].state = state
                self._last_answer_s[servo_id] = now
                self._misses.pop(servo_id, None)
                left.remove(servo_id)
        for servo_id in answers.alerts:
            if not self._servos.by_id[servo_id].registers.get("Hardware_Error_Status"):
                self._look_at(servo_id)

    def _shadows_due(self, now: float) -> list[int]:
        """Return shadows that were not heard for long: they are read with the joints."""
        return [
            s.servo_id
            for s in self._shadows
            if not (s.missing or s.rebooting)
            and now - self._last_answer_s.get(s.servo_id, now) > _SHADOW_PATIENCE_S
        ]

    def _find_missing(self, now: float) -> None:
        servos = (*self._joints, *self._shadows)
        present = [s for s in servos if not s.missing and not s.rebooting]
        # Both a time and a count: a thread that was not scheduled for long proves nothing.
        silent = [
            s
            for s in present
            if now - self._last_answer_s.get(s.servo_id, now) > self._missing_after_s
            and self._misses[s.servo_id] >= _MISSES
        ]
        # On a noisy line, bad luck alone can look the same; a ping is short.
        if silent and len(silent) == len(present):
            if not any(self._answers_ping(s, attempts=1) for s in silent):
                raise BusSilent(f"no servo on {self._port_name} answers any more")
            return
        for servo in silent:
            if not self._answers_ping(servo, _LAST_PINGS):
                self._lost(servo)

    def _answers_ping(self, servo: Servo, attempts: int) -> bool:
        try:
            self._bus.ping(servo.servo_id, attempts)
        except NoReply:
            return False
        self._last_answer_s[servo.servo_id] = time.monotonic()
        self._misses.pop(servo.servo_id, None)
        return True
