"""Errors, settings and status of the driver."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from widowx_control.xs_driver.arm_servos import ServoState
from widowx_control.xs_driver.bus import BusCounters
from widowx_control.xs_driver.control_table import WATCHDOG_MS_PER_UNIT

SHOWN_CHARACTERS: Final = 300
"""Of a refusal in the log; it may repeat a name that is as long as its sender liked."""


class CommandRefused(ValueError):
    """A command was not carried out. `code` is a short key for counting."""

    def __init__(self, code: str, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.code = code


class ServiceFailed(RuntimeError):
    """A service could not be carried out (fully); the text says why."""


class DriverState(enum.Enum):
    """What the driver does with commands."""

    DISCONNECTED = "disconnected"
    """No bus, or no servo on it; it is looked for."""
    STOPPED = "stopped"
    """The bus works, motion is refused until re-armed."""
    RUNNING = "running"
    """Commands are carried out."""


@dataclass(frozen=True)
class DriverSettings:
    """What may be chosen. Times in s unless the name says otherwise."""

    port: str
    baud_rate: int = 1_000_000
    load_configs: bool = True
    cycle_rate_hz: float = 125.0
    """Of writing and reading; joint states are published at their own rate, which also is the
    least for the cycle."""
    bus_watchdog_ms: int = 160
    """0..2540 in steps of 20; 0 switches the servos' bus watchdog off."""
    reply_margin_s: float = 0.005
    open_loop_timeout_s: float = 1.0
    """Velocity, current and PWM goals of joints other than grippers fall to 0 when not repeated
    for this long; 0 keeps them for ever, as Interbotix does."""
    preempt_trajectories: bool = False
    missing_after_s: float = 0.1
    """A servo that does not answer for this long is missing."""
    reconnect_period_s: float = 0.25
    realtime_priority: int = 20
    """Of the bus thread, where the system allows it; 0 leaves it as it is."""
    limit_tolerance_rad: float = 0.02
    """Goals beyond a servo's limit by less than this are clipped; beyond that, refused."""

    def __post_init__(self) -> None:
        ms = self.bus_watchdog_ms
        if ms % WATCHDOG_MS_PER_UNIT or not 0 <= ms <= 127 * WATCHDOG_MS_PER_UNIT:
            raise ValueError(f"bus_watchdog_ms is {ms}; expected a multiple of 20 in 0..2540")


@dataclass(frozen=True)
class JointReading:
    """One complete reading of all joints in joint_order, raw, from one cycle."""

    states: tuple[ServoState, ...]


@dataclass
class LoopCounters:
    """What the cycle did since the start."""

    cycles: int = 0
    lost_cycles: int = 0
    """Cycles without a complete reading; nothing was published for them."""
    late_cycles: int = 0
    """Cycles that began more than one period late."""
    goals_resent: int = 0
    implausible_readings: int = 0
    settings_restored: int = 0
    reconnections: int = 0
    eeprom_writes: int = 0


@dataclass(frozen=True)
class DriverStatus:
    """A consistent copy of what a person should know."""

    state: DriverState
    faults: Mapping[str, str]
    """Why the driver is stopped, by code; cleared by the re-arm."""
    problem: str
    """Why there is no connection, or empty."""
    cycle_rate_hz: float
    loop: LoopCounters
    bus: BusCounters
    refused: Mapping[str, int]
    servos: Mapping[str, Mapping[str, int]]
    """Registers last read, by motor; empty for a servo that was never read."""
    missing: tuple[str, ...]
    trajectory_running: bool
    latency_timer_ms: int | None
