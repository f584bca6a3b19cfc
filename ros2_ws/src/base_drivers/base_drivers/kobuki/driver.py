"""Drives a Kobuki: connects, listens, commands, and keeps doing so. Without ROS."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from node_common.realtime import request_realtime

from base_drivers.back_off import BackOff
from base_drivers.kobuki import commands, feedback
from base_drivers.kobuki.feedback import BasicSensor, Feedback, FeedbackError
from base_drivers.kobuki.framing import FrameParser, frame
from base_drivers.kobuki.odometry import KobukiOdometry, Pose
from base_drivers.kobuki.serial_line import LineLost, SerialLine
from base_drivers.kobuki.stop_keeper import REALTIME_PRIORITY
from base_drivers.velocity import REST, Velocity, strength

COMPATIBLE_FIRMWARE: Final = 1
_CYCLE_S: Final = 0.02
_REQUEST_PERIOD_S: Final = 0.1
_BLIND_S: Final = 0.2
_KEEPER_TIMEOUT_S: Final = 0.06
"""Three cycles of this driver that did not come."""
_SILENCE_S: Final = 1.0
_STOP_S: Final = 5.0


class LinkState(enum.Enum):
    """Where the driver is with the base."""

    ABSENT = "absent"
    """There is no port; it is looked for."""
    SILENT = "silent"
    """The port is open and no feedback comes: switched off, or another device."""
    GREETING = "greeting"
    """Feedback comes; the base has not told its versions yet. It is not driven."""
    INCOMPATIBLE = "incompatible"
    """The firmware speaks another protocol. It is not driven."""
    DRIVING = "driving"
    """All is well."""


@dataclass(frozen=True)
class KobukiStatus:
    """A snapshot of the driver.

    Attributes:
        state: see `LinkState`.
        reason: why the base is not driven, for people; empty while driving.
        firmware, hardware: versions; None: not told yet.
        unique_id: of the base.
        latest: newest value of every part of the feedback.
        feedback_age_s: since the newest good feedback; infinite before the first.
        frames, skipped_bytes, refused_frames: of the line so far. Refused are frames whose checksum
            is right and whose content cannot be.
        rejected_readings, counter_restarts: of the odometry.
        connections: how often the base was connected.
        command: the velocity in force.
        watchdog_stops: how often commands stopped while the base moved.
        kept: whether the process that stops the base after this one is running.
    """

    state: LinkState = LinkState.ABSENT
    reason: str = "not started"
    firmware: tuple[int, int, int] | None = None
    hardware: tuple[int, int, int] | None = None
    unique_id: str = ""
    latest: Feedback = field(default_factory=Feedback)
    feedback_age_s: float = float("inf")
    frames: int = 0
    skipped_bytes: int = 0
    refused_frames: int = 0
    rejected_readings: int = 0
    counter_restarts: int = 0
    connections: int = 0
    command: Velocity = REST
    watchdog_stops: int = 0
    kept: bool = False


class KobukiDriver:
    """A thread that owns the serial line.

    Args:
        port: device file.
        command_timeout_s: a command is in force for this long, from the half on less and less.
        reconnect_initial_s, reconnect_longest_s: waits between attempts to open the port.
        on_motion: called from the thread with each used reading: pose and contacts.
        on_change: called from the thread when the state or its reason changed.
    """

    def __init__(
        self,
        port: str,
        command_timeout_s: float,
        reconnect_initial_s: float,
        reconnect_longest_s: float,
        on_motion: Callable[[Pose, BasicSensor], None],
        on_change: Callable[[KobukiStatus], None],
    ) -> None:
        self._port = port
        self._command_timeout_s = command_timeout_s
        self._back_off = BackOff(reconnect_initial_s, reconnect_longest_s)
        self._on_motion = on_motion
        self._on_change = on_change
        self._lock = threading.Lock()
        self._status = KobukiStatus()
        self._feedback_s = float("-inf")
        self._command = REST
        self._command_s = float("-inf")
        self._odometry = KobukiOdometry()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kobuki", daemon=True)
        self._parser = FrameParser(feedback.LENGTHS)

    # --- from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Look for the base."""
        self._thread.start()

    def stop(self) -> bool:
        """Bring the base to rest and let go of the port; False: the thread hangs."""
        self._stop.set()
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def command(self, velocity: Velocity) -> bool:
        """Take a finite velocity; False: the base is not driven now, the command is forgotten."""
        with self._lock:
            if self._status.state is not LinkState.DRIVING:
                return False
            self._command = velocity
            self._command_s = time.monotonic()
            return True

    def reset_odometry(self) -> None:
        """Make the present pose the origin."""
        with self._lock:
            self._odometry.reset()

    def status(self) -> KobukiStatus:
        """A snapshot."""
        with self._lock:
            return replace(
                self._status,
                feedback_age_s=time.monotonic() - self._feedback_s,
                frames=self._parser.frames,
                skipped_bytes=self._parser.skipped_bytes,
                rejected_readings=self._odometry.rejected,
                counter_restarts=self._odometry.restarts,
            )

    # --- thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        request_realtime(REALTIME_PRIORITY)
        while not self._stop.is_set():
            try:
                with SerialLine(self._port, _KEEPER_TIMEOUT_S) as line:
                    try:
                        self._serve(line)
                    finally:
                        line.write(frame(commands.base_control(REST)))
            except LineLost as error:
                reason = str(error)
            except Exception as error:
                # A fault in whoever listens must not leave the base without a driver.
                reason = f"{type(error).__name__}: {error}"
            else:
                continue
            self._disconnected(reason)
            self._stop.wait(self._back_off.next_s())
        self._disconnected("stopped")

    def _disconnected(self, reason: str) -> None:
        with self._lock:
            # Whatever was wanted before, a base that comes back stands still.
            self._command, self._command_s = REST, float("-inf")
            self._feedback_s = float("-inf")
            self._odometry.forget_counters()
        self._set(state=LinkState.ABSENT, reason=reason, command=REST, kept=False)

    def _serve(self, line: SerialLine) -> None:
        """Talk with the base until the line is lost, falls silent, or the driver is stopped."""
        self._parser.clear()
        with self._lock:
            self._status = replace(
                self._status, latest=Feedback(), firmware=None, hardware=None, unique_id=""
            )
        self._set(state=LinkState.SILENT, reason=f"{self._port} is open, no feedback yet")
        heard_s = requested_s = time.monotonic()
        sent_s = float("-inf")
        while not self._stop.is_set():
            data = line.read(_CYCLE_S)
            line.alive()
            now_s = time.monotonic()
            fresh = False
            for parts in self._parser.feed(data) if data else ():
                try:
                    said = feedback.decode(parts)
                except FeedbackError:
                    self._set(refused_frames=self._status.refused_frames + 1)
                    continue
                heard_s, fresh = now_s, True
                self._take(said, now_s)
            # One command follows each feedback, and none waits longer than two cycles.
            if fresh or now_s - sent_s >= 2.0 * _CYCLE_S:
                line.write(frame(commands.base_control(self._velocity(now_s, heard_s))))
                sent_s = now_s
            self._set(kept=line.kept)
            if self._status.state in (LinkState.SILENT, LinkState.GREETING) and (
                now_s - requested_s >= _REQUEST_PERIOD_S
            ):
                line.write(frame(commands.request_extra()))
                requested_s = now_s
            if now_s - heard_s > _SILENCE_S:
                raise LineLost(f"no feedback on {self._port} for {_SILENCE_S:g} s; is the base on?")

    def _velocity(self, now_s: float, heard_s: float) -> Velocity:
        """The velocity to send now: the watchdog is here, beside the line."""
        with self._lock:
            share = strength(now_s - self._command_s, self._command_timeout_s)
            if share == 0.0 and not self._command.is_rest():
                self._command = REST
                self._status = replace(self._status, watchdog_stops=self._status.watchdog_stops + 1)
            driving = self._status.state is LinkState.DRIVING and now_s - heard_s < _BLIND_S
            velocity = self._command.scaled(share) if driving else REST
            self._status = replace(self._status, command=velocity)
            return velocity

    def _take(self, said: Feedback, now_s: float) -> None:
        known = {
            name: value
            for name in said.__dataclass_fields__
            if (value := getattr(said, name)) is not None
        }
        used = False
        with self._lock:
            if said.basic is not None and said.inertial is not None:
                used = self._odometry.update(said.basic, said.inertial, now_s)
                if not used:
                    # Contacts of a reading that cannot be are not believed either.
                    return
            self._status = replace(self._status, latest=replace(self._status.latest, **known))
            self._feedback_s = now_s
            pose = self._odometry.pose
        self._greet(said)
        if used and said.basic is not None:
            self._on_motion(pose, said.basic)

    def _greet(self, said: Feedback) -> None:
        status = self._status
        changes = {
            name: value
            for name, value in (
                ("firmware", said.firmware_version),
                ("hardware", said.hardware_version),
                ("unique_id", said.unique_id),
            )
            if value is not None
        }
        if changes:
            self._set(**changes)
            status = self._status
        if status.state is LinkState.SILENT:
            self._back_off.succeeded()
            self._set(
                state=LinkState.GREETING,
                reason="the base has not told its versions yet",
                connections=status.connections + 1,
            )
        elif status.state is LinkState.GREETING and None not in (status.firmware, status.hardware):
            assert status.firmware is not None
            if status.firmware[0] != COMPATIBLE_FIRMWARE:
                version = ".".join(map(str, status.firmware))
                self._set(
                    state=LinkState.INCOMPATIBLE,
                    reason=f"firmware {version}; expected {COMPATIBLE_FIRMWARE}.x.y",
                )
            else:
                self._set(state=LinkState.DRIVING, reason="")

    def _set(self, **changes: object) -> None:
        with self._lock:
            before = self._status
            self._status = replace(before, **changes)  # type: ignore[arg-type]
            after = self._status
        if (before.state, before.reason) != (after.state, after.reason):
            self._on_change(after)
