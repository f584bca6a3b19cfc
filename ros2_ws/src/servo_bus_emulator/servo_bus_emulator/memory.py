"""The control table of one servo as bytes: what may be read and written, and which error it gives.

Source: ROBOTIS e-manual, "Control Table" of XM430-W350 and XL430-W250, and "Error" of Protocol 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from widowx_control.xs_driver.control_table import (
    EEPROM_END,
    MODE_POSITION,
    WATCHDOG_TRIPPED,
    Register,
    ServoModel,
)

from servo_bus_emulator.protocol import (
    ACCESS_ERROR,
    DATA_LENGTH_ERROR,
    DATA_LIMIT_ERROR,
    DATA_RANGE_ERROR,
)

_SIZE: Final = 662
_GOALS: Final = frozenset({"Goal_PWM", "Goal_Current", "Goal_Velocity", "Goal_Position"})
_INDIRECT: Final = ((168, 224, 28), (578, 634, 28))
"""(first indirect address, first indirect data, count) of both blocks."""


class ControlTable:
    """Bytes of one servo, with the access rules of the real one.

    Args:
        model: the servo model.
        eeprom: EEPROM values that differ from the factory's, by register name, raw units.
    """

    def __init__(self, model: ServoModel, eeprom: Mapping[str, int]) -> None:
        """Fill the table with initial values, then with `eeprom`.

        Raises:
            KeyError: `eeprom` names a register that the model lacks.
        """
        self.model = model
        self._bytes = bytearray(_SIZE)
        # Decoded values: the servo's controller reads a dozen registers in every step.
        self._decoded: dict[str, int] = {}
        self._by_address = {r.address: r for r in model.registers.values()}
        self._covered = bytearray(_SIZE)
        for register in model.registers.values():
            self._covered[register.address : register.address + register.size] = (
                b"\x01" * register.size
            )
            self.set(register.name, register.initial)
        for first, data, count in _INDIRECT:
            for index in range(count):
                self._store(first + 2 * index, 2, data + index)
        for name, value in eeprom.items():
            self.set(name, value)

    def get(self, name: str) -> int:
        """Return a register's value, sign included."""
        value = self._decoded.get(name)
        if value is None:
            register = self.model.registers[name]
            raw = self._bytes[register.address : register.address + register.size]
            value = int.from_bytes(raw, "little", signed=register.signed)
            self._decoded[name] = value
        return value

    def set(self, name: str, value: int) -> None:
        """Set a register as the servo itself does, without the access rules."""
        register = self.model.registers[name]
        self._store(register.address, register.size, value)
        self._decoded.pop(name, None)

    def reset_ram(self) -> None:
        """Give every RAM register its initial value, as power-up and reboot do."""
        for register in self.model.registers.values():
            if not register.eeprom:
                self.set(register.name, register.initial)
        for name, limit in (("Goal_PWM", "PWM_Limit"), ("Goal_Current", "Current_Limit")):
            if name in self.model.registers:
                self.set(name, self.get(limit))

    def read(self, address: int, length: int) -> tuple[int, bytes]:
        """Return (error number, bytes) of a read instruction."""
        if length < 1 or address + length > _SIZE:
            return DATA_RANGE_ERROR, b""
        raw = bytearray(self._bytes[address : address + length])
        for first, data, count in _INDIRECT:
            for position in range(max(address, data), min(address + length, data + count)):
                raw[position - address] = self._bytes[self._target(first, data, position)]
        return 0, bytes(raw)

    def check_write(self, address: int, data: bytes) -> int:
        """Return the error number that a write would give, 0 when it is allowed."""
        if not data or address + len(data) > _SIZE:
            return DATA_RANGE_ERROR
        for start, chunk in self._split(address, data):
            error = self._check_chunk(start, chunk)
            if error:
                return error
        return 0

    def write(self, address: int, data: bytes) -> list[Register]:
        """Store bytes that `check_write` allowed and return the registers written."""
        written = []
        for start, chunk in self._split(address, data):
            self._bytes[start : start + len(chunk)] = chunk
            position = start
            while position < start + len(chunk):
                register = self._by_address.get(position)
                if register is None:
                    position += 1
                    continue
                written.append(register)
                self._decoded.pop(register.name, None)
                position += register.size
        return written

    def _store(self, address: int, size: int, value: int) -> None:
        self._bytes[address : address + size] = value.to_bytes(
            size, "little", signed=size > 1 and value < 0
        )

    def _target(self, first: int, data: int, position: int) -> int:
        entry = first + 2 * (position - data)
        target = int.from_bytes(self._bytes[entry : entry + 2], "little")
        return target if target < _SIZE else position

    def _split(self, address: int, data: bytes) -> list[tuple[int, bytes]]:
        """Return direct (address, bytes) pieces: indirect data goes to the addresses it names."""
        for first, start, count in _INDIRECT:
            if start <= address and address + len(data) <= start + count:
                pieces: list[tuple[int, bytearray]] = []
                for offset, byte in enumerate(data):
                    target = self._target(first, start, address + offset)
                    if pieces and pieces[-1][0] + len(pieces[-1][1]) == target:
                        pieces[-1][1].append(byte)
                    else:
                        pieces.append((target, bytearray((byte,))))
                return [(target, bytes(piece)) for target, piece in pieces]
        return [(address, data)]

    def _check_chunk(self, address: int, data: bytes) -> int:
        torque = bool(self._bytes[self.model.registers["Torque_Enable"].address])
        position, end = address, address + len(data)
        while position < end:
            register = self._by_address.get(position)
            if register is None:
                if self._covered[position]:
                    return DATA_LENGTH_ERROR
                if self._is_indirect(position):
                    if torque:
                        return ACCESS_ERROR
                elif position == address or not self._gap(position):
                    return ACCESS_ERROR
                position += 1
                continue
            if position + register.size > end:
                return DATA_LENGTH_ERROR
            if not register.writable or (torque and position < EEPROM_END):
                return ACCESS_ERROR
            raw = data[position - address : position - address + register.size]
            error = self._check_value(
                register, int.from_bytes(raw, "little", signed=register.signed)
            )
            if error:
                return error
            position += register.size
        return 0

    def _is_indirect(self, position: int) -> bool:
        return any(f <= position < f + 2 * n or d <= position < d + n for f, d, n in _INDIRECT)

    def _gap(self, position: int) -> bool:
        return not self._covered[position]

    def _check_value(self, register: Register, value: int) -> int:
        if not register.minimum <= value <= register.maximum:
            return DATA_RANGE_ERROR
        if register.name in _GOALS and self.get("Bus_Watchdog") == WATCHDOG_TRIPPED:
            return DATA_RANGE_ERROR
        if register.name == "Operating_Mode" and value not in self.model.operating_modes:
            return DATA_RANGE_ERROR
        limits = {
            "Goal_PWM": "PWM_Limit",
            "Goal_Current": "Current_Limit",
            "Goal_Velocity": "Velocity_Limit",
        }
        if register.name in limits and abs(value) > self.get(limits[register.name]):
            return DATA_LIMIT_ERROR
        if (
            register.name == "Goal_Position"
            and self.get("Operating_Mode") == MODE_POSITION
            and not self.get("Min_Position_Limit") <= value <= self.get("Max_Position_Limit")
        ):
            return DATA_LIMIT_ERROR
        return 0
