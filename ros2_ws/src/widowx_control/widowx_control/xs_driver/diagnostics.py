"""What the driver says on /diagnostics, as plain data: one entry for the bus, one per servo."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from widowx_control.xs_driver.control_table import hardware_error_text
from widowx_control.xs_driver.driver_types import DriverState, DriverStatus
from widowx_control.xs_driver.units import rad_from_ticks


class Level(enum.IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Entry:
    """One DiagnosticStatus."""

    level: Level
    name: str
    message: str
    values: Mapping[str, str]


def entries(status: DriverStatus, ids: Mapping[str, int]) -> list[Entry]:
    """Return the entries for a status.

    Args:
        status: from `XsDriver.status`.
        ids: servo id by motor.
    """
    servos = [_servo(status, name, servo_id) for name, servo_id in ids.items()]
    return [_bus(status), *servos]


def _bus(status: DriverStatus) -> Entry:
    level = {
        DriverState.RUNNING: Level.OK,
        DriverState.STOPPED: Level.ERROR,
        DriverState.DISCONNECTED: Level.ERROR,
    }[status.state]
    message = status.state.value
    reasons = [*status.faults.values(), *([status.problem] if status.problem else [])]
    if reasons:
        message += ": " + "; ".join(reasons)
    elif status.latency_timer_ms is not None and status.latency_timer_ms > 1:
        level, message = Level.WARN, f"latency timer is {status.latency_timer_ms} ms; set it to 1"
    values = {"state": status.state.value, "faults": ", ".join(sorted(status.faults))}
    values["cycle_rate_hz"] = f"{status.cycle_rate_hz:.1f}"
    values["trajectory_running"] = str(status.trajectory_running).lower()
    values |= {name: str(value) for name, value in asdict(status.loop).items()}
    values |= {f"bus_{name}": str(value) for name, value in asdict(status.bus).items()}
    values |= {f"refused_{code}": str(count) for code, count in sorted(status.refused.items())}
    return Entry(level, "xs_driver: bus", message, values)


def _servo(status: DriverStatus, name: str, servo_id: int) -> Entry:
    registers = status.servos[name]
    title = f"xs_driver: {name}"
    if name in status.missing:
        return Entry(Level.ERROR, title, "does not answer", {"id": str(servo_id)})
    error = registers.get("Hardware_Error_Status", 0)
    if error:
        level, message = Level.ERROR, f"hardware error: {hardware_error_text(error)}"
    elif not registers.get("Torque_Enable"):
        level, message = Level.WARN, "torque is off"
    else:
        level, message = Level.OK, "ok"
    values = {
        "id": str(servo_id),
        "model": str(registers.get("Model_Number", "")),
        "firmware": str(registers.get("Firmware_Version", "")),
        "temperature_c": str(registers.get("Present_Temperature", "")),
        "voltage_v": f"{registers.get('Present_Input_Voltage', 0) / 10:.1f}",
        "hardware_error_status": str(error),
        "torque_enable": str(registers.get("Torque_Enable", "")),
        "position_rad": f"{rad_from_ticks(registers.get('Present_Position', 2048)):.4f}",
        "effort_raw": str(registers.get("Present_Current", registers.get("Present_Load", ""))),
    }
    return Entry(level, title, message, values)
