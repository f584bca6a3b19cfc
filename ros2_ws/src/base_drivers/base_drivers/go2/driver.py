"""Decides what the Go2's sport service is asked for. Without ROS; time comes from outside."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from base_drivers.go2.sport_service import (
    STOP_MOVE,
    WALKING_MODES,
    Api,
    Mode,
    SportRequest,
    SportState,
    mode_name,
    move,
)
from base_drivers.velocity import REST, Velocity, strength

# A request may be lost on the way; the robot takes a repeated stop without harm.
_STOP_REPEATS: Final = 5
_RESTING_M_S: Final = 0.05
_ASK_AGAIN_S: Final = 1.0
_PROBE_PERIOD_S: Final = 0.1


class Posture(enum.Enum):
    """What a person can ask the robot for."""

    STANDING = "stand up"
    LYING = "lie down"


@dataclass(frozen=True)
class Outcome:
    """How a change of posture ended."""

    success: bool
    message: str


class Go2Core:
    """Commands in, requests out.

    The robot never changes its posture unless it is asked to; velocity commands are refused while
    it does not stand.

    Attributes:
        refused: code → how many commands were refused.
        watchdog_stops: how often commands stopped while it walked.

    Args:
        command_timeout_s: a command is in force for this long, from the half on less and less.
        state_timeout_s: without a state for this long the robot is stopped.
        posture_timeout_s: time for a change of posture.
        keeper_timeout_s: the stop keeper must hear a request within this time, or the robot is not
            driven; 0: there is no keeper.
    """

    def __init__(
        self,
        command_timeout_s: float,
        state_timeout_s: float,
        posture_timeout_s: float,
        keeper_timeout_s: float,
    ) -> None:
        self.refused: dict[str, int] = {}
        self.watchdog_stops = 0
        self._command_timeout_s = command_timeout_s
        self._state_timeout_s = state_timeout_s
        self._posture_timeout_s = posture_timeout_s
        self._keeper_timeout_s = keeper_timeout_s
        self._keeper_hears = keeper_timeout_s == 0.0
        self._unheard_since_s = math.inf
        self._probed_s = -math.inf
        self._command = REST
        self._command_s = -math.inf
        self._state: SportState | None = None
        self._state_s = -math.inf
        self._walking = False
        self._stops_left = 0
        self._posture: Posture | None = None
        self._posture_since_s = 0.0
        self._asked: Api | None = None
        self._asked_s = -math.inf
        self.outcome: Outcome | None = None
        """Of the last change of posture; None while one goes on."""

    def on_state(self, state: SportState, now_s: float) -> None:
        """Take a sound state."""
        self._state, self._state_s = state, now_s

    def on_heard(self) -> None:
        """The stop keeper has heard a request of this driver."""
        self._keeper_hears = True
        self._unheard_since_s = math.inf

    def on_command(self, velocity: Velocity, now_s: float) -> None:
        """Take a velocity, or refuse it."""
        if not velocity.is_finite():
            self.refuse("command_not_finite")
            self._command = REST
            return
        reason = self.not_ready(now_s)
        if reason is not None:
            self.refuse(reason[0])
            return
        self._command, self._command_s = velocity, now_s

    def refuse(self, code: str) -> None:
        """Count a refused command."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def not_ready(self, now_s: float) -> tuple[str, str] | None:
        """Code and text of why the robot is not driven now; None: it is."""
        if self._state is None or now_s - self._state_s > self._state_timeout_s:
            return "state_silent", "the robot tells no state; is it on, and the network right?"
        if self._posture is not None:
            return "posture_changing", f"the robot is asked to {self._posture.value}"
        if self._state.mode not in WALKING_MODES:
            return "not_standing", f"the robot does not stand: {mode_name(self._state.mode)}"
        if not self._keeper_hears:
            return "keeper_silent", "the stop keeper does not hear the driver; does it run?"
        return None

    def change_posture(self, posture: Posture, now_s: float) -> str:
        """Begin to stand up or to lie down; returns why not, empty: it began."""
        if self._posture is not None:
            return f"the robot is asked to {self._posture.value} already"
        if self._state is None or now_s - self._state_s > self._state_timeout_s:
            return "the robot tells no state"
        self._posture, self._posture_since_s = posture, now_s
        self._asked = self.outcome = None
        self._command = REST
        return ""

    def tick(self, now_s: float) -> list[SportRequest]:
        """Say what is asked for now; call at a steady rate."""
        share = strength(now_s - self._command_s, self._command_timeout_s)
        if share == 0.0 and not self._command.is_rest():
            self._command = REST
            self.watchdog_stops += 1
        requests = []
        if now_s - self._unheard_since_s > self._keeper_timeout_s > 0.0:
            self._keeper_hears = False
        reason = self.not_ready(now_s)
        ready = reason is None
        if ready and not self._command.is_rest():
            self._walking, self._stops_left = True, 0
            requests.append(move(self._command.scaled(share)))
        elif self._walking:
            self._walking, self._stops_left = False, _STOP_REPEATS
        if not ready:
            self._command = REST
        if self._stops_left > 0:
            self._stops_left -= 1
            requests.append(STOP_MOVE)
        if reason is not None and reason[0] == "keeper_silent":
            if not requests and now_s - self._probed_s >= _PROBE_PERIOD_S:
                # What does a robot no harm that stands.
                self._probed_s = now_s
                requests.append(STOP_MOVE)
        elif requests:
            self._unheard_since_s = min(self._unheard_since_s, now_s)
        if self._posture is not None:
            requests += self._advance_posture(now_s)
        return requests

    def halt(self) -> list[SportRequest]:
        """Say farewell: a stop if the robot walks or has not been told for sure to stop."""
        stop = self._walking or self._stops_left > 0
        self._command, self._walking, self._stops_left = REST, False, 0
        return [STOP_MOVE] * 3 if stop else []

    def _advance_posture(self, now_s: float) -> list[SportRequest]:
        posture, state = self._posture, self._state
        assert posture is not None and state is not None
        if now_s - self._posture_since_s > self._posture_timeout_s:
            self._end_posture(False, f"{mode_name(state.mode)} after {self._posture_timeout_s:g} s")
            return []
        if posture is Posture.STANDING:
            if state.mode in WALKING_MODES:
                self._end_posture(True, "the robot stands")
                return []
            api = Api.BALANCE_STAND if state.mode == Mode.JOINT_LOCK else Api.STAND_UP
        else:
            if state.mode == Mode.LIE_DOWN:
                self._end_posture(True, "the robot lies")
                return []
            api = Api.STAND_DOWN
            if state.speed_m_s > _RESTING_M_S:
                return [STOP_MOVE]
        if api == self._asked and now_s - self._asked_s < _ASK_AGAIN_S:
            return []
        self._asked, self._asked_s = api, now_s
        return [SportRequest(api)]

    def _end_posture(self, success: bool, message: str) -> None:
        self._posture = None
        self.outcome = Outcome(success, message)
