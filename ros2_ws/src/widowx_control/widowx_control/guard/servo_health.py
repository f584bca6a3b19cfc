"""Health of the servos from the driver's register service: what to ask next, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from widowx_control.guard.checks import Code, Finding, GuardConfig
from widowx_control.kinematics import JOINT_NAMES
from widowx_control.xs_driver.control_table import hardware_error_text

GROUP: Final = "all"
GRIPPER: Final = "gripper"
SHADOWS: Final = ("shoulder_shadow", "elbow_shadow")
"""Second servos of a joint: in no group of the driver, so they are asked for one by one."""
ERROR_REGISTER: Final = "Hardware_Error_Status"
TEMPERATURE_REGISTER: Final = "Present_Temperature"
VOLTAGE_REGISTER: Final = "Present_Input_Voltage"
_REGISTERS: Final = (ERROR_REGISTER, TEMPERATURE_REGISTER, VOLTAGE_REGISTER)
_V_PER_UNIT: Final = 0.1


@dataclass(frozen=True)
class Question:
    """One call of get_motor_registers."""

    cmd_type: str
    name: str
    register: str

    @property
    def servos(self) -> tuple[str, ...]:
        """Servos whose values a full answer has, in its order."""
        return (*JOINT_NAMES, GRIPPER) if self.cmd_type == "group" else (self.name,)


def _round() -> tuple[Question, ...]:
    """Every servo and register once; the error status of the group before each other question."""
    errors = Question("group", GROUP, ERROR_REGISTER)
    rest = [Question("group", GROUP, r) for r in _REGISTERS if r != ERROR_REGISTER]
    rest += [Question("single", servo, r) for servo in SHADOWS for r in _REGISTERS]
    return tuple(q for other in rest for q in (errors, other))


class ServoHealth:
    """Collects answers and judges them."""

    def __init__(self, config: GuardConfig) -> None:
        """Know nothing yet."""
        self._config = config
        self._round = _round()
        self._next = 0
        self._answered_s: dict[Question, float] = {}
        self._problem: dict[Question, str] = {}
        self._values: dict[str, dict[str, int]] = {r: {} for r in _REGISTERS}

    def next_question(self) -> Question:
        """Return what to ask the driver now."""
        question = self._round[self._next]
        self._next = (self._next + 1) % len(self._round)
        return question

    def answer(self, question: Question, values: Sequence[int] | None, now_s: float) -> None:
        """Take an answer; None when none came.

        Args:
            question: from `next_question`.
            values: one value per servo. Fewer mean that a servo did not answer the driver.
            now_s: steady clock.
        """
        servos = question.servos
        if values is None or len(values) != len(servos):
            found = "no answer" if values is None else f"{len(values)} of {len(servos)} values"
            self._problem[question] = f"{found} for {question.register} of '{question.name}'"
            return
        self._problem.pop(question, None)
        self._answered_s[question] = now_s
        self._values[question.register].update(zip(servos, values, strict=True))

    def lost(self, since_s: float, now_s: float) -> Finding | None:
        """Return a finding when an answer is overdue.

        Args:
            since_s: steady time from which answers could be expected.
            now_s: steady time.
        """
        ages = {q: now_s - self._answered_s.get(q, since_s) for q in self._round}
        oldest = max(ages, key=lambda q: ages[q])
        limit_s = self._config.servo_status_timeout_s
        if ages[oldest] <= limit_s:
            return None
        problem = self._problem.get(
            oldest, f"nothing asked for {oldest.register} of '{oldest.name}'"
        )
        return Finding(
            Code.SERVO_STATUS_LOST,
            f"get_motor_registers: {problem} for {ages[oldest]:.1f} s",
            ages[oldest],
            limit_s,
        )

    def findings(self) -> dict[Code, Finding]:
        """Return what is wrong by the newest answers; one finding per code, the worst servo's."""
        found = (self._temperature(), *self._voltages(), self._hardware_error())
        return {f.code: f for f in found if f is not None}

    def _temperature(self) -> Finding | None:
        values = self._values[TEMPERATURE_REGISTER]
        if not values:
            return None
        servo = max(values, key=lambda name: values[name])
        value, limit = float(values[servo]), self._config.max_temperature_c
        if value <= limit:
            return None
        text = f"{servo} has {value:.0f} °C, limit {limit:g} °C: let it cool down"
        return Finding(Code.SERVO_TEMPERATURE, text, value, limit)

    def _voltages(self) -> tuple[Finding | None, Finding | None]:
        values = self._values[VOLTAGE_REGISTER]
        if not values:
            return None, None
        low = min(values, key=lambda name: values[name])
        high = max(values, key=lambda name: values[name])
        low_v, high_v = values[low] * _V_PER_UNIT, values[high] * _V_PER_UNIT
        c = self._config
        too_low = too_high = None
        if not low_v >= c.min_voltage_v:
            text = f"{low} has {low_v:.1f} V, at least {c.min_voltage_v:g} V is needed"
            too_low = Finding(Code.SERVO_VOLTAGE_LOW, text, low_v, c.min_voltage_v)
        if not high_v <= c.max_voltage_v:
            text = f"{high} has {high_v:.1f} V, limit {c.max_voltage_v:g} V"
            too_high = Finding(Code.SERVO_VOLTAGE_HIGH, text, high_v, c.max_voltage_v)
        return too_low, too_high

    def _hardware_error(self) -> Finding | None:
        mask = self._config.hardware_error_mask
        for servo, value in self._values[ERROR_REGISTER].items():
            if value & mask:
                text = f"{servo}: {hardware_error_text(value & mask)}; reboot it with reboot_motors"
                return Finding(Code.SERVO_HARDWARE_ERROR, text, float(value), float(mask))
        return None
