"""What the guard checks, as data: code, reaction, thresholds with unit and range.

The README's table, the node's parameters and the decisions of `core.Guard` all come from here.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import numpy as np


class Reaction(StrEnum):
    """What the guard does about a finding; one per code."""

    SLOW = "slow"
    """The step toward the goal is scaled down; the rest of it comes with the next commands."""
    HOLD = "hold"
    """The last safe pose is commanded until the finding is gone."""
    STOP = "latched stop"
    """The last safe pose is commanded and everything is refused until an explicit re-arm."""


class Code(StrEnum):
    """Names of the checks."""

    JOINT_SPEED = "joint_speed"
    JOINT_ACCELERATION = "joint_acceleration"
    RESUME_SPEED = "resume_speed"
    GRIPPER_PWM = "gripper_pwm"
    GRIPPER_STALL = "gripper_stall"
    COMMAND_MALFORMED = "command_malformed"
    COMMAND_STALE = "command_stale"
    COMMAND_FUTURE = "command_future"
    COMMAND_LATE = "command_late"
    JOINT_LIMIT = "joint_limit"
    WORKSPACE = "workspace"
    TABLE = "table"
    SELF_COLLISION = "self_collision"
    TRACKING_ERROR = "tracking_error"
    OTHER_PUBLISHER = "other_publisher"
    SERVO_STATUS_LOST = "servo_status_lost"
    JOINT_STATES_LATE = "joint_states_late"
    SERVO_CURRENT = "servo_current"
    COMMAND_NON_FINITE = "command_non_finite"
    JOINT_STATES_LOST = "joint_states_lost"
    SERVO_TEMPERATURE = "servo_temperature"
    SERVO_VOLTAGE_LOW = "servo_voltage_low"
    SERVO_VOLTAGE_HIGH = "servo_voltage_high"
    SERVO_HARDWARE_ERROR = "servo_hardware_error"
    EMERGENCY_STOP = "emergency_stop"


@dataclass(frozen=True)
class Threshold:
    """One parameter of the guard."""

    name: str
    default: Any
    """float, int, or a tuple of three floats."""
    unit: str
    low: float
    high: float
    description: str


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    code: Code
    reaction: Reaction
    thresholds: tuple[str, ...]
    """Fields of `GuardConfig`; the first is the one that findings are compared with."""
    meaning: str


@dataclass(frozen=True)
class Finding:
    """A check that failed now."""

    code: Code
    message: str
    value: float
    threshold: float

    @property
    def reaction(self) -> Reaction:
        """What is done about it."""
        return CHECKS[self.code].reaction

    @property
    def unit(self) -> str:
        """Unit of value and threshold."""
        return THRESHOLDS[CHECKS[self.code].thresholds[0]].unit


def _threshold(default: Any, unit: str, low: float, high: float, description: str) -> Any:
    metadata = {"unit": unit, "low": low, "high": high, "description": description}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class GuardConfig:
    """Thresholds of the guard. Defaults let the whole policy workspace and all named poses pass.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    max_joint_speed_rad_s: float = _threshold(
        3.1415926, "rad/s", 0.05, 6.3, "speed of any commanded joint, averaged over 0.1 s"
    )
    max_joint_acceleration_rad_s2: float = _threshold(
        250.0, "rad/s²", 5.0, 2000.0, "rise of any commanded joint's speed; braking is free"
    )
    resume_speed_rad_s: float = _threshold(
        0.5, "rad/s", 0.05, 3.2, "joint speed after a re-arm or a hold for the robot's health"
    )
    resume_s: float = _threshold(2.0, "s", 0.0, 30.0, "how long that lasts at most")
    max_gripper_pwm: float = _threshold(350.0, "of 885", 0.0, 885.0, "gripper PWM, either way")
    gripper_stall_s: float = _threshold(
        2.0, "s", 0.2, 60.0, "time for which the gripper may push harder than gripper_stall_pwm"
    )
    gripper_stall_pwm: float = _threshold(
        250.0, "of 885", 0.0, 885.0, "gripper PWM that may push against still fingers for ever"
    )
    max_malformed_commands: int = _threshold(
        0, "in a row", 0, 100, "commands with a wrong name or length; none is ever passed on"
    )
    max_non_finite_commands: int = _threshold(
        0, "in a row", 0, 100, "commands with NaN or infinity; none is ever passed on"
    )
    command_max_age_s: float = _threshold(
        0.2, "s", 0.005, 2.0, "time from sending to receiving a command"
    )
    command_future_s: float = _threshold(
        0.05, "s", 0.001, 0.5, "how far the sender's clock may be ahead"
    )
    command_timeout_s: float = _threshold(
        0.15, "s", 0.03, 0.2, "gap between commands while the arm is being moved"
    )
    joint_limit_tolerance_rad: float = _threshold(
        0.001, "rad", 0.0, 0.1, "excess over a joint limit of the URDF"
    )
    workspace_low_m: tuple[float, float, float] = _threshold(
        (-0.3, -0.6, -0.05), "m", -1.0, 1.0, "lower corner x y z for ee_gripper_link in base_link"
    )
    workspace_high_m: tuple[float, float, float] = _threshold(
        (0.72, 0.6, 0.85), "m", -1.0, 1.0, "upper corner x y z for ee_gripper_link in base_link"
    )
    max_table_depth_m: float = _threshold(
        0.03, "m", -0.1, 0.2, "depth of any moving part below the table plane; < 0: clearance"
    )
    table_height_m: float = _threshold(0.0, "m", -0.5, 0.5, "z of the table plane in base_link")
    self_collision_distance_m: float = _threshold(
        0.003, "m", 0.0, 0.05, "distance between parts of the arm that are not neighbours"
    )
    max_tracking_error_rad: float = _threshold(
        0.6, "rad", 0.05, 3.2, "commanded minus measured position of any joint"
    )
    max_other_publishers: int = _threshold(
        0, "nodes", 0, 10, "nodes that could command the driver past the guard"
    )
    servo_status_timeout_s: float = _threshold(
        6.0, "s", 1.0, 60.0, "age of the oldest temperature, voltage or error status of a servo"
    )
    servo_status_rate_hz: float = _threshold(
        5.0, "Hz", 0.5, 50.0, "calls of get_motor_registers; a round takes 16 of them"
    )
    joint_states_late_s: float = _threshold(
        0.25, "s", 0.03, 2.0, "time without a usable joint_states message"
    )
    max_current_ma: float = _threshold(
        2000.0, "mA", 100.0, 3210.0, "current of any XM430 servo for servo_current_s on end"
    )
    servo_current_s: float = _threshold(2.0, "s", 0.0, 30.0, "how long that may last")
    joint_states_timeout_s: float = _threshold(
        1.0, "s", 0.05, 5.0, "time without a usable joint_states message"
    )
    max_temperature_c: float = _threshold(68.0, "°C", 30.0, 80.0, "temperature of any servo")
    min_voltage_v: float = _threshold(10.0, "V", 6.0, 12.0, "supply voltage at any servo")
    max_voltage_v: float = _threshold(13.5, "V", 12.0, 16.0, "supply voltage at any servo")
    hardware_error_mask: int = _threshold(
        255, "bits", 0, 255, "bits of Hardware_Error_Status that stop the arm"
    )
    emergency_stop_timeout_s: float = _threshold(
        0.0, "s", 0.0, 10.0, "silence of emergency_stop that counts as pressed; 0: may be silent"
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, threshold in THRESHOLDS.items():
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != np.shape(threshold.default):
                raise ValueError(f"{name} is {getattr(self, name)}; it must have three numbers")
            if not bool(np.all((value >= threshold.low) & (value <= threshold.high))):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be within "
                    f"[{threshold.low:g}, {threshold.high:g}] {threshold.unit}"
                )
        for axis, low, high in zip("xyz", self.workspace_low_m, self.workspace_high_m, strict=True):
            if not low < high:
                raise ValueError(
                    f"workspace_low_m is not below workspace_high_m in {axis}: {low} and {high}"
                )


def _read(declared: Field[Any]) -> Threshold:
    return Threshold(declared.name, declared.default, **declared.metadata)


THRESHOLDS: Final = MappingProxyType({f.name: _read(f) for f in fields(GuardConfig)})
"""Every parameter of the guard by name."""

_SLOW, _HOLD, _STOP = Reaction.SLOW, Reaction.HOLD, Reaction.STOP
_TABLE: Final = (
    Check(
        Code.JOINT_SPEED,
        _SLOW,
        ("max_joint_speed_rad_s",),
        "a joint is commanded faster than this",
    ),
    Check(
        Code.JOINT_ACCELERATION,
        _SLOW,
        ("max_joint_acceleration_rad_s2",),
        "a joint is commanded to speed up faster than this, for example by a jump",
    ),
    Check(
        Code.RESUME_SPEED,
        _SLOW,
        ("resume_speed_rad_s", "resume_s"),
        "the commands went on while the arm was stopped, and it catches up slowly",
    ),
    Check(
        Code.GRIPPER_PWM,
        _SLOW,
        ("max_gripper_pwm",),
        "the gripper is commanded with more PWM than this",
    ),
    Check(
        Code.GRIPPER_STALL,
        _SLOW,
        ("gripper_stall_s", "gripper_stall_pwm"),
        "the gripper has pushed hard for this long and the fingers do not move",
    ),
    Check(
        Code.COMMAND_MALFORMED,
        _HOLD,
        ("max_malformed_commands",),
        "a command is not for the group `arm` with six values, nor for `gripper`",
    ),
    Check(
        Code.COMMAND_STALE,
        _HOLD,
        ("command_max_age_s",),
        "a command took longer than this, by the sender's time in the message's metadata",
    ),
    Check(
        Code.COMMAND_FUTURE,
        _HOLD,
        ("command_future_s",),
        "a command was sent in the future: the clocks of two machines differ",
    ),
    Check(
        Code.COMMAND_LATE,
        _HOLD,
        ("command_timeout_s",),
        "commands stopped in mid-motion",
    ),
    Check(
        Code.JOINT_LIMIT,
        _HOLD,
        ("joint_limit_tolerance_rad",),
        "a joint is commanded beyond its range, and further out than it is",
    ),
    Check(
        Code.WORKSPACE,
        _HOLD,
        ("workspace_low_m", "workspace_high_m"),
        "the end effector would leave the box, or go further out",
    ),
    Check(
        Code.TABLE,
        _HOLD,
        ("max_table_depth_m", "table_height_m"),
        "a moving part would go this far below the table plane, and deeper than it is",
    ),
    Check(
        Code.SELF_COLLISION,
        _HOLD,
        ("self_collision_distance_m",),
        "two parts of the arm would come nearer than this, and nearer than they are",
    ),
    Check(
        Code.TRACKING_ERROR,
        _HOLD,
        ("max_tracking_error_rad",),
        "a joint is commanded this far from where it is: the arm is blocked, or the goal jumped",
    ),
    Check(
        Code.OTHER_PUBLISHER,
        _HOLD,
        ("max_other_publishers",),
        "another node publishes the driver's command topics, or sends to the guard as well",
    ),
    Check(
        Code.SERVO_STATUS_LOST,
        _HOLD,
        ("servo_status_timeout_s", "servo_status_rate_hz"),
        "the driver does not say how the servos are, or says it for fewer than there are",
    ),
    Check(
        Code.JOINT_STATES_LATE,
        _HOLD,
        ("joint_states_late_s",),
        "where the arm is has not been told for this long",
    ),
    Check(
        Code.SERVO_CURRENT,
        _HOLD,
        ("max_current_ma", "servo_current_s"),
        "a servo is overloaded; the measured pose is held, which takes the load off",
    ),
    Check(
        Code.COMMAND_NON_FINITE,
        _STOP,
        ("max_non_finite_commands",),
        "a command has NaN or infinity: its sender is broken",
    ),
    Check(
        Code.JOINT_STATES_LOST,
        _STOP,
        ("joint_states_timeout_s",),
        "the driver, its bus or its supply is gone, or joint_states is unusable, under command",
    ),
    Check(
        Code.SERVO_TEMPERATURE,
        _STOP,
        ("max_temperature_c",),
        "a servo is too hot; it switches itself off at 72 °C (XL430) or 80 °C (XM430)",
    ),
    Check(
        Code.SERVO_VOLTAGE_LOW,
        _STOP,
        ("min_voltage_v",),
        "the supply is too weak or is going down",
    ),
    Check(
        Code.SERVO_VOLTAGE_HIGH,
        _STOP,
        ("max_voltage_v",),
        "the supply is too high",
    ),
    Check(
        Code.SERVO_HARDWARE_ERROR,
        _STOP,
        ("hardware_error_mask",),
        "a servo has latched a hardware error and is limp; it needs reboot_motors",
    ),
    Check(
        Code.EMERGENCY_STOP,
        _STOP,
        ("emergency_stop_timeout_s",),
        "the topic or the service `emergency_stop` was used, or the button went silent",
    ),
)
CHECKS: Final = MappingProxyType({check.code: check for check in _TABLE})
"""Every check by its code, in the order of the documentation."""


def _number(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{v:g}" for v in value) + "]"
    return f"{value:g}"


def checks_markdown() -> str:
    """Return the table of codes for the README."""
    lines = [
        "| code | reaction | when | threshold | default | range |",
        "|---|---|---|---|---|---|",
    ]
    for check in CHECKS.values():
        parts = [THRESHOLDS[name] for name in check.thresholds]
        names = "<br>".join(f"`{t.name}`" for t in parts)
        defaults = "<br>".join(f"{_number(t.default)} {t.unit}" for t in parts)
        ranges = "<br>".join(f"{t.low:g} .. {t.high:g}" for t in parts)
        lines.append(
            f"| `{check.code}` | {check.reaction} | {check.meaning} "
            f"| {names} | {defaults} | {ranges} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(checks_markdown())
