"""Decides what a base is told: the last check between a controller and the hardware."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from node_common.pacing import stalled_clock_message
from numpy.typing import NDArray

from base_drivers.contact_rules import Contacts, allowed_motion
from base_drivers.scan_watch import Footprint, free_distance
from base_drivers.velocity import (
    REST,
    Limited,
    Velocity,
    VelocityLimits,
    limit_acceleration,
    limit_speed,
    strength,
)

COMMAND_SILENT = "command_silent"
COMMAND_LATE = "command_late"
COMMAND_NOT_FINITE = "command_not_finite"
COMMAND_FRAME = "command_frame"
COMMAND_STALE = "command_stale"
COMMAND_FUTURE = "command_future"
COMMAND_OUT_OF_ORDER = "command_out_of_order"
CONTACTS_SILENT = "contacts_silent"
SCAN_SILENT = "scan_silent"
SCAN_STALE = "scan_stale"
SCAN_FUTURE = "scan_future"
SCAN_MALFORMED = "scan_malformed"
SCAN_BLIND = "scan_blind"
SCAN_FRAME = "scan_frame"
CLOCK_STANDS = "clock_stands"
BUMPER = "bumper"
CLIFF = "cliff"
WHEEL_DROP = "wheel_drop"
SCAN_SLOW = "scan_slow"
SCAN_STOP = "scan_stop"
VELOCITY_LIMIT = "velocity_limit"
ACCELERATION_LIMIT = "acceleration_limit"
EMERGENCY_STOP = "emergency_stop"
EMERGENCY_STOP_SILENT = "emergency_stop_silent"

# A guard that was held up must not answer with a jump in speed.
_MAX_RAMP_S = 0.1
# Nearer than this the base would creep towards the stop distance for ever.
_MIN_SLOW_FACTOR = 0.2
# A clock that creeps is as bad as one that stands: by it nothing grows old, and no ramp rises.
_CLOCK_STEP_S = 0.02
_CLOCK_STALL_S = 0.5


class State(enum.IntEnum):
    """States of policy_interfaces/GuardStatus."""

    WAITING = 0
    PASSING = 1
    SLOWING = 2
    HOLDING = 3
    STOPPED = 4


@dataclass(frozen=True)
class Finding:
    """Why a command was changed.

    Attributes:
        code: of the check that failed; empty: nothing did.
        message: for people.
        value, threshold: what was found, and what it was compared with.
        unit: of both.
    """

    code: str = ""
    message: str = ""
    value: float = math.nan
    threshold: float = math.nan
    unit: str = ""


@dataclass(frozen=True)
class Decision:
    """What is done now.

    Attributes:
        state: of the guard.
        finding: why.
        output: velocity to send; None: send nothing.
    """

    state: State
    finding: Finding
    output: Velocity | None


@dataclass(frozen=True)
class GuardConfig:
    """Settings of the guard.

    Attributes:
        limits: what the base may do.
        command_timeout_s: a command is in force for this long, from the half on less and less.
        zero_hold_s: zeros are sent for this long after the last command, then nothing.
        command_max_age_s: oldest stamp of a command.
        future_tolerance_s: how far a stamp may be ahead of the clock.
        base_frame: the only frame of stamped commands; empty `frame_id` is taken as this.
        contacts_required: nothing moves before contacts were heard of.
        contacts_timeout_s: time without contacts before a hold, once they were heard.
        scan_required: nothing moves before the first scan.
        scan_timeout_s: oldest scan, by arrival and by stamp, once there was one.
        stop_distance_m, slow_distance_m: free way below which the base stops, or slows down.
        side_margin_m: kept clear of what is passed by.
        footprint: outline of the base.
        emergency_stop_timeout_s: silence of the emergency stop topic that counts as pressed, once
            it was heard; 0: it may be silent.
    """

    limits: VelocityLimits
    command_timeout_s: float
    zero_hold_s: float
    command_max_age_s: float
    future_tolerance_s: float
    base_frame: str
    contacts_required: bool
    contacts_timeout_s: float
    scan_required: bool
    scan_timeout_s: float
    stop_distance_m: float
    slow_distance_m: float
    side_margin_m: float
    footprint: Footprint
    emergency_stop_timeout_s: float

    def __post_init__(self) -> None:
        if self.slow_distance_m <= self.stop_distance_m:
            raise ValueError(
                f"slow_distance_m is {self.slow_distance_m:g}; expected more than "
                f"stop_distance_m, {self.stop_distance_m:g}"
            )


@dataclass(frozen=True)
class Command:
    """A command as it arrived.

    Attributes:
        velocity: not checked yet.
        is_finite: of all six components, also those that a base on the ground ignores.
        stamp_s: of the header on the node's clock; None: the command has no header.
        frame: of the header; empty: none.
    """

    velocity: Velocity
    is_finite: bool = True
    stamp_s: float | None = None
    frame: str = ""


def stamp_finding(
    stamp_s: float, node_s: float, max_age_s: float, future_tolerance_s: float
) -> Finding | None:
    """What is wrong with the stamp of a command, None: nothing.

    Args:
        stamp_s: of the command.
        node_s: the node's clock; 0: simulated time that nobody tells.
        max_age_s: oldest stamp.
        future_tolerance_s: how far it may be ahead.
    """
    age_s = node_s - stamp_s
    # Written so that NaN is refused.
    if not age_s <= max_age_s:
        message = "a late command was refused"
        if stamp_s == 0.0:
            message = "a command was refused: it has no stamp (0); its sender must stamp it"
        return Finding(COMMAND_STALE, message, age_s, max_age_s, "s")
    if -age_s > future_tolerance_s:
        message = "a command from the future was refused; are the clocks synchronised?"
        if node_s == 0.0:
            return Finding(CLOCK_STANDS, stalled_clock_message(node_s))
        return Finding(COMMAND_FUTURE, message, -age_s, future_tolerance_s, "s")
    return None


@dataclass(frozen=True)
class _Scan:
    points_m: NDArray[np.float64]
    stamp_s: float
    arrival_s: float


class CommandGuard:
    """Takes commands and measurements, and says at each moment what the base is told.

    Times are in seconds: `steady_s` on the machine's steady clock, which measures silence, and
    `node_s` on the node's clock, which measures the age of stamps.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.counts: dict[str, int] = {}
        self._latched: dict[str, str] = {}
        self._pressed = False
        self._pressed_heard_s: float | None = None
        self._contacts: Contacts | None = None
        self.reset()

    def reset(self) -> None:
        """Forget commands and measurements; what is latched stays."""
        self._command: Velocity | None = None
        self._command_s = -math.inf
        self._command_stamp_s = -math.inf
        self._refusal: Finding | None = None
        self._contacts = None
        self._contacts_s = -math.inf
        self._scan: _Scan | None = None
        self._scan_refusal: Finding | None = None
        self._clock_s = (-math.inf, -math.inf)
        self._output = REST
        self._output_node_s = -math.inf

    # --- inputs -----------------------------------------------------------------------------------

    def on_command(self, command: Command, steady_s: float, node_s: float) -> None:
        """Take a command, or refuse it.

        NaN, infinity and a wrong frame come from a broken sender: the base stops at once. A command
        that is late, early or out of order is left out, and the one before stays in force until it
        times out.
        """
        refusal = self._refuse(command, node_s)
        if refusal is None:
            self._command = command.velocity
            self._command_s = steady_s
            self._refusal = None
            return
        self.counts[refusal.code] = self.counts.get(refusal.code, 0) + 1
        if refusal.code != COMMAND_OUT_OF_ORDER:
            self._refusal = refusal
        if refusal.code in (COMMAND_NOT_FINITE, COMMAND_FRAME):
            self._command = None

    def _refuse(self, command: Command, node_s: float) -> Finding | None:
        config = self.config
        if not command.is_finite or not command.velocity.is_finite():
            return Finding(COMMAND_NOT_FINITE, "a command with NaN or infinity was refused")
        if command.stamp_s is None:
            return None
        if command.frame not in ("", config.base_frame):
            return Finding(
                COMMAND_FRAME,
                f"a command in frame '{command.frame}' was refused; expected '{config.base_frame}'",
            )
        finding = stamp_finding(
            command.stamp_s, node_s, config.command_max_age_s, config.future_tolerance_s
        )
        if finding is not None:
            return finding
        if self._command_stamp_s > node_s + config.future_tolerance_s:
            # The clock was set back, as by a simulation that starts again.
            self._command_stamp_s = -math.inf
        if command.stamp_s < self._command_stamp_s:
            return Finding(COMMAND_OUT_OF_ORDER, "a command older than the one before was refused")
        self._command_stamp_s = command.stamp_s
        return None

    def on_contacts(self, contacts: Contacts, steady_s: float) -> None:
        """Take what the base feels. A hanging wheel is latched."""
        self._contacts = contacts
        self._contacts_s = steady_s
        if contacts.wheel_drop:
            self._latch(WHEEL_DROP, "a wheel hangs: the base was lifted or stands over an edge")

    def on_scan(self, points_m: NDArray[np.float64], stamp_s: float, steady_s: float) -> None:
        """Take a scan as (M, 2) points in `base_link` [m]."""
        self._scan = _Scan(points_m, stamp_s, steady_s)
        self._scan_refusal = None

    def refuse_scan(self, code: str, message: str) -> None:
        """Leave out a scan that says nothing; while no other comes, the base is blind."""
        self.counts[code] = self.counts.get(code, 0) + 1
        self._scan_refusal = Finding(code, message)

    @property
    def scan_refusal(self) -> str:
        """Why the newest scan was refused; empty: it was not."""
        return self._scan_refusal.message if self._scan_refusal is not None else ""

    def on_emergency_stop(self, pressed: bool, steady_s: float) -> None:
        """Take the state of an emergency stop; pressed is latched."""
        self._pressed = pressed
        self._pressed_heard_s = steady_s
        if pressed:
            self._latch(EMERGENCY_STOP, "the emergency stop is pressed")

    def stop(self) -> None:
        """Latch an emergency stop that has no state of its own."""
        self._latch(EMERGENCY_STOP, "an emergency stop was asked for")

    def _latch(self, code: str, message: str) -> None:
        if code not in self._latched:
            self.counts[code] = self.counts.get(code, 0) + 1
        self._latched[code] = message
        self._output = REST

    def rearm(self, steady_s: float) -> tuple[bool, str]:
        """End the latched stop if no cause of it is left.

        Commands from before are forgotten: the base moves with the first that comes after.

        Returns:
            Whether nothing is latched now, and why.
        """
        causes = []
        if self._pressed:
            causes.append("the emergency stop is still pressed")
        if self._emergency_stop_silent(steady_s):
            causes.append("the emergency stop topic is silent")
        if self._contacts is not None and self._contacts.wheel_drop:
            causes.append("a wheel still hangs")
        elif WHEEL_DROP in self._latched and self._contacts_silent(steady_s):
            causes.append("no contacts tell whether a wheel still hangs")
        if causes:
            return False, "; ".join(causes)
        if not self._latched:
            return True, "nothing was latched"
        ended = ", ".join(self._latched)
        self._latched.clear()
        self._command = self._refusal = None
        return True, f"armed again after {ended}"

    # --- decision ---------------------------------------------------------------------------------

    def decide(self, steady_s: float, node_s: float) -> Decision:
        """Say what the base is told now. Call at each command and at a steady rate."""
        decision = self._decide(steady_s, node_s)
        self._output = decision.output or REST
        self._output_node_s = node_s
        return decision

    def _decide(self, steady_s: float, node_s: float) -> Decision:
        config = self.config
        if self._emergency_stop_silent(steady_s):
            self._latch(EMERGENCY_STOP_SILENT, "the emergency stop topic fell silent")
        if self._latched:
            code, message = next(iter(self._latched.items()))
            return Decision(State.STOPPED, Finding(code, f"{message}; re-arm to go on"), REST)
        silence_s = steady_s - self._command_s
        if self._clock_stands(steady_s, node_s):
            quiet = silence_s > config.command_timeout_s + config.zero_hold_s
            finding = Finding(CLOCK_STANDS, stalled_clock_message(node_s))
            return Decision(State.HOLDING, finding, None if quiet else REST)
        if self._command is None or silence_s > config.command_timeout_s:
            quiet = silence_s > config.command_timeout_s + config.zero_hold_s
            output = None if quiet else REST
            if self._refusal is not None:
                return Decision(State.HOLDING, self._refusal, output)
            if self._command is None:
                return Decision(State.WAITING, Finding(message="no command yet"), output)
            finding = Finding(
                COMMAND_SILENT, "commands stopped", silence_s, config.command_timeout_s, "s"
            )
            return Decision(State.HOLDING, finding, output)
        blind = self._blind(steady_s, node_s)
        if blind is not None:
            return Decision(State.HOLDING, blind, REST)
        share = strength(silence_s, config.command_timeout_s)
        decision = self._restrict(self._command.scaled(share), node_s)
        if share == 1.0 or decision.state is not State.PASSING:
            return decision
        finding = Finding(
            COMMAND_LATE, "the next command is late", silence_s, 0.5 * config.command_timeout_s, "s"
        )
        return Decision(State.SLOWING, finding, decision.output)

    def _emergency_stop_silent(self, steady_s: float) -> bool:
        timeout_s, heard_s = self.config.emergency_stop_timeout_s, self._pressed_heard_s
        return timeout_s > 0.0 and heard_s is not None and steady_s - heard_s > timeout_s

    def _clock_stands(self, steady_s: float, node_s: float) -> bool:
        seen_node_s, seen_steady_s = self._clock_s
        if not 0.0 <= node_s - seen_node_s < _CLOCK_STEP_S:
            self._clock_s = (node_s, steady_s)
            return False
        return steady_s - seen_steady_s > _CLOCK_STALL_S

    def _contacts_silent(self, steady_s: float) -> bool:
        return steady_s - self._contacts_s > self.config.contacts_timeout_s

    def _blind(self, steady_s: float, node_s: float) -> Finding | None:
        """Measurements that are needed and are not there. What was heard once is needed."""
        config = self.config
        if (config.contacts_required or self._contacts is not None) and self._contacts_silent(
            steady_s
        ):
            heard = self._contacts is not None
            return Finding(
                CONTACTS_SILENT,
                "contacts stopped" if heard else "no contacts yet",
                steady_s - self._contacts_s if heard else math.nan,
                config.contacts_timeout_s,
                "s",
            )
        scan = self._scan
        if scan is None:
            # A scanner that is there, but says nothing that can be used, is not free space.
            nothing = Finding(SCAN_SILENT, "no scan yet") if config.scan_required else None
            return self._scan_refusal or nothing
        silence_s, age_s = steady_s - scan.arrival_s, node_s - scan.stamp_s
        if not silence_s <= config.scan_timeout_s:
            if self._scan_refusal is not None:
                return self._scan_refusal
            return Finding(SCAN_SILENT, "scans stopped", silence_s, config.scan_timeout_s, "s")
        if not age_s <= config.scan_timeout_s:
            message = "the newest scan is old"
            if scan.stamp_s == 0.0:
                message = "the scans have no stamp (0); their sender must stamp them"
            return Finding(SCAN_STALE, message, age_s, config.scan_timeout_s, "s")
        if -age_s > config.future_tolerance_s:
            message = "the newest scan is from the future; are the clocks synchronised?"
            return Finding(SCAN_FUTURE, message, -age_s, config.future_tolerance_s, "s")
        return None

    def _restrict(self, wanted: Velocity, node_s: float) -> Decision:
        config = self.config
        state, finding = State.PASSING, Finding()
        velocity = wanted
        if wanted.is_rest():
            return Decision(state, finding, REST)
        contacts = self._contacts
        if contacts is not None and (contacts.bumper or contacts.cliff):
            velocity = allowed_motion(wanted, contacts)
            code = BUMPER if contacts.bumper else CLIFF
            found = "a bumper is pressed" if contacts.bumper else "there is no floor ahead"
            if velocity.is_rest():
                return Decision(State.HOLDING, Finding(code, found, 1.0, 0.0), REST)
            state = State.SLOWING
            finding = Finding(code, f"{found}; moving away from it", 1.0, 0.0)
        if self._scan is not None:
            velocity, scan_state, scan_finding = self._restrict_by_scan(velocity)
            if scan_state is State.HOLDING and velocity.is_rest():
                return Decision(scan_state, scan_finding, REST)
            if scan_state is not State.PASSING:
                state, finding = scan_state, scan_finding
        slower = limit_speed(velocity, config.limits)
        duration_s = min(_MAX_RAMP_S, max(0.0, node_s - self._output_node_s))
        softer = limit_acceleration(slower.velocity, self._output, config.limits, duration_s)
        if state is State.PASSING:
            for code, limited in ((VELOCITY_LIMIT, slower), (ACCELERATION_LIMIT, softer)):
                if limited.changed:
                    state, finding = State.SLOWING, _limit_finding(code, limited)
                    break
        return Decision(state, finding, softer.velocity)

    def _restrict_by_scan(self, wanted: Velocity) -> tuple[Velocity, State, Finding]:
        config = self.config
        assert self._scan is not None
        way_m = free_distance(
            self._scan.points_m,
            wanted,
            config.footprint,
            config.side_margin_m,
            config.slow_distance_m,
        )
        if way_m >= config.slow_distance_m:
            return wanted, State.PASSING, Finding()
        if way_m > config.stop_distance_m:
            span_m = config.slow_distance_m - config.stop_distance_m
            factor = max(_MIN_SLOW_FACTOR, (way_m - config.stop_distance_m) / span_m)
            finding = Finding(
                SCAN_SLOW, "something is near ahead", way_m, config.slow_distance_m, "m"
            )
            return wanted.scaled(factor), State.SLOWING, finding
        finding = Finding(SCAN_STOP, "something is in the way", way_m, config.stop_distance_m, "m")
        turn = Velocity(yaw=wanted.yaw)
        if not turn.is_rest() and turn != wanted:
            turn_way_m = free_distance(
                self._scan.points_m, turn, config.footprint, 0.0, config.stop_distance_m
            )
            if math.isinf(turn_way_m):
                return turn, State.SLOWING, finding
        return REST, State.HOLDING, finding


def _limit_finding(code: str, limited: Limited) -> Finding:
    what = "speed" if code == VELOCITY_LIMIT else "acceleration"
    return Finding(
        code, f"the {what} asked for is above the limit", limited.found, limited.limit, limited.unit
    )
