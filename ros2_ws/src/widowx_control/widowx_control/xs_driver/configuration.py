"""Reads the two YAML files of an Interbotix arm, motor_configs and mode_configs, and checks them.

The format is that of interbotix_xs_driver. Everything is checked before the bus is opened; an error
names the file, the key, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from widowx_control.gripper import ARM_LENGTH_M, HORN_RADIUS_M
from widowx_control.xs_driver.control_table import (
    MODE_CURRENT,
    MODE_CURRENT_BASED_POSITION,
    MODE_EXTENDED_POSITION,
    MODE_POSITION,
    MODE_PWM,
    MODE_VELOCITY,
    XL430_W250,
    XM430_W350,
)

OPERATING_MODES: Final = MappingProxyType(
    {
        "position": MODE_POSITION,
        "linear_position": MODE_POSITION,
        "ext_position": MODE_EXTENDED_POSITION,
        "velocity": MODE_VELOCITY,
        "current": MODE_CURRENT,
        "current_based_position": MODE_CURRENT_BASED_POSITION,
        "pwm": MODE_PWM,
    }
)
"""Interbotix's names of operating modes and the servo's Operating_Mode."""
POSITION_MODES: Final = frozenset(
    {"position", "linear_position", "ext_position", "current_based_position"}
)
PROFILE_TYPES: Final = ("time", "velocity")
ALL_GROUP: Final = "all"
"""The group of every joint in joint_order, which exists without being listed."""


class ConfigurationError(ValueError):
    """A configuration file is wrong; the text says where and what was expected."""


@dataclass(frozen=True)
class Mode:
    """Operating mode and profile of a group or a motor.

    With profile type 'time' both profile values are in ms; with 'velocity' they are in
    0.229 rev/min and 214.577 rev/min^2. 0 means no limit.
    """

    operating_mode: str = "position"
    profile_type: str = "velocity"
    profile_velocity: int = 0
    profile_acceleration: int = 0
    torque_enable: bool = True


@dataclass(frozen=True)
class Motor:
    """One servo: its id on the bus and the EEPROM values that it should have (raw units)."""

    name: str
    servo_id: int
    eeprom: Mapping[str, int]


@dataclass(frozen=True)
class Gripper:
    """The fingers that one servo moves through the swing-arm linkage."""

    motor: str
    left_finger: str
    right_finger: str


@dataclass(frozen=True)
class ArmConfiguration:
    """Everything the driver knows about an arm before it opens the bus."""

    port: str
    joint_order: tuple[str, ...]
    sleep_positions_rad: Mapping[str, float]
    update_rate_hz: float
    publish_states: bool
    joint_states_topic: str
    groups: Mapping[str, tuple[str, ...]]
    grippers: Mapping[str, Gripper]
    shadows: Mapping[str, tuple[str, ...]]
    calibrated_shadows: frozenset[str]
    motors: Mapping[str, Motor]
    group_modes: Mapping[str, Mode] = field(default_factory=dict)
    motor_modes: Mapping[str, Mode] = field(default_factory=dict)

    def motors_of(self, cmd_type: str, name: str) -> tuple[str, ...]:
        """Return the motors that a command of Interbotix's (cmd_type, name) means, in order.

        Raises:
            KeyError: unknown cmd_type or name; the text lists the known ones.
        """
        if cmd_type == "group":
            if name not in self.groups:
                raise KeyError(f"group '{name}' is unknown; expected one of {sorted(self.groups)}")
            return self.groups[name]
        if cmd_type == "single":
            if name not in self.motors:
                raise KeyError(f"motor '{name}' is unknown; expected one of {sorted(self.motors)}")
            return (name,)
        raise KeyError(f"cmd_type is '{cmd_type}'; expected 'group' or 'single'")

    def with_shadows(self, motors: Iterable[str]) -> tuple[str, ...]:
        """Return the motors, each followed by its shadows."""
        return tuple(m for motor in motors for m in (motor, *self.shadows.get(motor, ())))

    def joint_names(self) -> tuple[str, ...]:
        """Return the names in joint_states: joint_order, then left and right fingers."""
        fingers = [n for g in self.grippers.values() for n in (g.left_finger, g.right_finger)]
        return (*self.joint_order, *fingers)


class _Section:
    """A mapping in a YAML file that knows its path and which keys were used."""

    def __init__(self, value: Any, path: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ConfigurationError(f"{path}: expected a mapping, found {value!r}")
        self._values: dict[str, Any] = value
        self._unused = set(value)
        self.path = path

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        self._unused.discard(key)
        if key not in self._values:
            if default is ...:
                raise ConfigurationError(f"{self.path}.{key}: missing")
            return default
        value = self._values[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(k.__name__ for k in kinds)
            raise ConfigurationError(f"{self.path}.{key}: expected {names}, found {value!r}")
        return value

    def section(self, key: str) -> _Section:
        self._unused.discard(key)
        return _Section(self._values.get(key), f"{self.path}.{key}")

    def names(self, key: str) -> tuple[str, ...]:
        value = self.get(key, list, [])
        if not all(isinstance(name, str) for name in value):
            raise ConfigurationError(f"{self.path}.{key}: expected a list of names, found {value}")
        if len(set(value)) != len(value):
            raise ConfigurationError(f"{self.path}.{key}: a name occurs twice in {value}")
        return tuple(value)

    def entries(self) -> tuple[str, ...]:
        return tuple(self._values)

    def done(self) -> None:
        if self._unused:
            raise ConfigurationError(
                f"{self.path}: unknown keys {sorted(self._unused)}; correct or remove them"
            )


def load_configuration(motor_configs: Path, mode_configs: Path) -> ArmConfiguration:
    """Read and check both files.

    Raises:
        ConfigurationError: a file is missing, is not YAML, or has a wrong or unknown entry.
    """
    motors_root = _read(motor_configs)
    modes_root = _read(mode_configs)
    motors = _motors(motors_root.section("motors"))
    joint_order = motors_root.names("joint_order")
    _expect_known(f"{motors_root.path}.joint_order", joint_order, motors)
    if not joint_order:
        raise ConfigurationError(f"{motors_root.path}.joint_order: expected at least one joint")
    sleep = motors_root.get("sleep_positions", list, [0.0] * len(joint_order))
    if len(sleep) != len(joint_order) or not all(isinstance(v, int | float) for v in sleep):
        raise ConfigurationError(
            f"{motors_root.path}.sleep_positions: expected {len(joint_order)} numbers, "
            f"found {sleep}"
        )

    publisher = motors_root.section("joint_state_publisher")
    rate = float(publisher.get("update_rate", (int, float), 100))
    if not 1.0 <= rate <= 500.0:
        raise ConfigurationError(f"{publisher.path}.update_rate: expected 1..500 Hz, found {rate}")
    publish = publisher.get("publish_states", bool, True)
    topic = publisher.get("topic_name", str, "joint_states")
    # A failed read is never published here, so there is no behaviour to choose.
    publisher.get("read_failure_behavior", int, 0)
    publisher.done()

    groups_section = motors_root.section("groups")
    groups = {name: groups_section.names(name) for name in groups_section.entries()}
    if groups.get(ALL_GROUP, joint_order) != joint_order:
        raise ConfigurationError(f"{groups_section.path}.all: 'all' means joint_order; remove it")
    for name, members in groups.items():
        _expect_known(f"{groups_section.path}.{name}", members, joint_order)
    groups[ALL_GROUP] = joint_order

    shadows, calibrated = _shadows(motors_root.section("shadows"), motors)
    grippers = _grippers(motors_root.section("grippers"), motors)
    sisters = motors_root.section("sisters")
    if sisters.entries():
        raise ConfigurationError(
            f"{sisters.path}: 2-in-1 servos are not supported; found {sisters.entries()}"
        )
    port = motors_root.get("port", str, "/dev/ttyDXL")
    motors_root.done()

    port = modes_root.get("port", str, port)
    group_modes = _modes(modes_root.section("groups"), groups)
    motor_modes = _modes(modes_root.section("singles"), motors)
    modes_root.done()
    return ArmConfiguration(
        port=port,
        joint_order=joint_order,
        sleep_positions_rad=dict(zip(joint_order, map(float, sleep), strict=True)),
        update_rate_hz=rate,
        publish_states=publish,
        joint_states_topic=topic,
        groups=groups,
        grippers=grippers,
        shadows=shadows,
        calibrated_shadows=calibrated,
        motors=motors,
        group_modes=group_modes,
        motor_modes=motor_modes,
    )


def _read(path: Path) -> _Section:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not YAML: {error}") from error
    return _Section(content, str(path))


def _expect_known(path: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigurationError(f"{path}: unknown names {unknown}; expected {sorted(known)}")


def _motors(section: _Section) -> dict[str, Motor]:
    registers = {**XL430_W250.registers, **XM430_W350.registers}
    motors: dict[str, Motor] = {}
    for name in section.entries():
        entry = section.section(name)
        servo_id = entry.get("ID", int)
        if not 0 <= servo_id <= 252:
            raise ConfigurationError(f"{entry.path}.ID: expected 0..252, found {servo_id}")
        # The driver itself talks at this speed, so it never changes it.
        entry.get("Baud_Rate", int, 3)
        eeprom: dict[str, int] = {}
        for key in entry.entries():
            if key in ("ID", "Baud_Rate"):
                continue
            register = registers.get(key)
            if register is None or not (register.eeprom and register.writable):
                raise ConfigurationError(f"{entry.path}.{key}: is not a writable EEPROM register")
            value = entry.get(key, int)
            if not register.minimum <= value <= register.maximum:
                raise ConfigurationError(
                    f"{entry.path}.{key}: expected {register.minimum}..{register.maximum}, "
                    f"found {value}"
                )
            eeprom[key] = value
        entry.done()
        low, high = eeprom.get("Min_Position_Limit"), eeprom.get("Max_Position_Limit")
        if low is not None and high is not None and low >= high:
            raise ConfigurationError(f"{entry.path}: Min_Position_Limit {low} >= maximum {high}")
        same = [m.name for m in motors.values() if m.servo_id == servo_id]
        if same:
            raise ConfigurationError(f"{entry.path}.ID: {servo_id} is also the ID of {same[0]}")
        motors[name] = Motor(name, servo_id, MappingProxyType(eeprom))
    if not motors:
        raise ConfigurationError(f"{section.path}: expected at least one motor")
    return motors


def _shadows(
    section: _Section, motors: Mapping[str, Motor]
) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    shadows: dict[str, tuple[str, ...]] = {}
    calibrated: set[str] = set()
    for master in section.entries():
        entry = section.section(master)
        names = entry.names("shadow_list")
        _expect_known(f"{entry.path}.shadow_list", (master, *names), motors)
        for name in names:
            listens_to = motors[name].eeprom.get("Secondary_ID")
            if listens_to != motors[master].servo_id:
                raise ConfigurationError(
                    f"{entry.path}: {name} must have Secondary_ID {motors[master].servo_id}, the "
                    f"ID of {master}, found {listens_to}"
                )
        if entry.get("calibrate", bool, False):
            calibrated.update(names)
        entry.done()
        shadows[master] = names
    return shadows, frozenset(calibrated)


def _grippers(section: _Section, motors: Mapping[str, Motor]) -> dict[str, Gripper]:
    grippers = {}
    for name in section.entries():
        entry = section.section(name)
        _expect_known(entry.path, (name,), motors)
        kind = entry.get("type", str, "swing_arm")
        horn = float(entry.get("horn_radius", (int, float), HORN_RADIUS_M))
        arm = float(entry.get("arm_length", (int, float), ARM_LENGTH_M))
        if kind != "swing_arm" or (horn, arm) != (HORN_RADIUS_M, ARM_LENGTH_M):
            raise ConfigurationError(
                f"{entry.path}: expected the wx250s gripper, a swing_arm with horn_radius "
                f"{HORN_RADIUS_M} and arm_length {ARM_LENGTH_M}; found {kind}, {horn}, {arm}"
            )
        entry.get("calibrate", bool, False)
        grippers[name] = Gripper(
            name, entry.get("left_finger", str), entry.get("right_finger", str)
        )
        entry.done()
    return grippers


def _modes(section: _Section, known: Iterable[str]) -> dict[str, Mode]:
    _expect_known(section.path, section.entries(), known)
    modes = {}
    for name in section.entries():
        entry = section.section(name)
        mode = Mode(
            operating_mode=entry.get("operating_mode", str, "position"),
            profile_type=entry.get("profile_type", str, "velocity"),
            profile_velocity=entry.get("profile_velocity", int, 0),
            profile_acceleration=entry.get("profile_acceleration", int, 0),
            torque_enable=entry.get("torque_enable", bool, True),
        )
        entry.done()
        problem = mode_problem(mode)
        if problem:
            raise ConfigurationError(f"{entry.path}: {problem}")
        modes[name] = mode
    return modes


def mode_problem(mode: Mode) -> str | None:
    """Return what is wrong with a mode, or None. Used for files and for requests alike."""
    if mode.operating_mode not in OPERATING_MODES:
        return f"operating_mode is '{mode.operating_mode}'; expected one of {list(OPERATING_MODES)}"
    if mode.profile_type not in PROFILE_TYPES:
        return f"profile_type is '{mode.profile_type}'; expected one of {list(PROFILE_TYPES)}"
    limit = XM430_W350.registers["Profile_Velocity"].maximum
    for name in ("profile_velocity", "profile_acceleration"):
        value = getattr(mode, name)
        if not 0 <= value <= limit:
            return f"{name} is {value}; expected 0..{limit}"
    return None
