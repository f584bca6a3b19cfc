"""DYNAMIXEL Protocol 2.0 from the servo's side: takes instruction packets, makes status packets.

Source: ROBOTIS e-manual, "DYNAMIXEL Protocol 2.0". Packet: FF FF FD 00, ID, length (2 bytes, of all
that follows it), instruction, parameters, CRC-16 (2 bytes). FF FF FD inside the instruction and the
parameters is stuffed with one more FD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEADER: Final = b"\xff\xff\xfd\x00"
BROADCAST_ID: Final = 254

PING: Final = 0x01
READ: Final = 0x02
WRITE: Final = 0x03
REG_WRITE: Final = 0x04
ACTION: Final = 0x05
FACTORY_RESET: Final = 0x06
REBOOT: Final = 0x08
CLEAR: Final = 0x10
STATUS: Final = 0x55
SYNC_READ: Final = 0x82
SYNC_WRITE: Final = 0x83
FAST_SYNC_READ: Final = 0x8A
BULK_READ: Final = 0x92
BULK_WRITE: Final = 0x93
FAST_BULK_READ: Final = 0x9A

RESULT_FAIL: Final = 1
INSTRUCTION_ERROR: Final = 2
CRC_ERROR: Final = 3
DATA_RANGE_ERROR: Final = 4
DATA_LENGTH_ERROR: Final = 5
DATA_LIMIT_ERROR: Final = 6
ACCESS_ERROR: Final = 7
ALERT: Final = 0x80

_POLYNOMIAL: Final = 0x8005
_MAX_LENGTH: Final = 1024
_STUFFED: Final = b"\xff\xff\xfd"


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1) ^ _POLYNOMIAL if value & 0x8000 else value << 1
        table.append(value & 0xFFFF)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc16(data: bytes, start: int = 0) -> int:
    """Return the CRC-16 (polynomial 0x8005, not reflected) of the bytes, from a start value."""
    value = start
    for byte in data:
        value = ((value << 8) & 0xFFFF) ^ _CRC_TABLE[(value >> 8) ^ byte]
    return value


def stuff(body: bytes) -> bytes:
    """Return instruction and parameters with FF FF FD turned into FF FF FD FD."""
    return body.replace(_STUFFED, _STUFFED + b"\xfd")


def unstuff(body: bytes) -> bytes:
    """Undo `stuff`."""
    return body.replace(_STUFFED + b"\xfd", _STUFFED)


def packet(servo_id: int, instruction: int, parameters: bytes = b"") -> bytes:
    """Return a whole packet with header, length, stuffing and CRC."""
    body = stuff(bytes((instruction,)) + parameters)
    head = HEADER + bytes((servo_id,)) + (len(body) + 2).to_bytes(2, "little")
    return head + body + crc16(head + body).to_bytes(2, "little")


def status_packet(servo_id: int, error: int, parameters: bytes = b"") -> bytes:
    """Return a status packet; `error` is the error number with the alert bit."""
    return packet(servo_id, STATUS, bytes((error,)) + parameters)


@dataclass(frozen=True)
class Instruction:
    """One packet that arrived. With `crc_ok` false its content is not to be acted on."""

    servo_id: int
    code: int
    parameters: bytes
    crc_ok: bool
    wire_length: int
    """Bytes on the wire, stuffing included."""


class PacketParser:
    """Finds instruction packets in a stream of bytes that may be damaged.

    A header inside a packet starts a new one: stuffing makes sure that no undamaged packet contains
    a header, so the first packet has lost bytes.
    """

    def __init__(self) -> None:
        """Start with an empty buffer."""
        self._buffer = bytearray()

    def clear(self) -> None:
        """Forget an unfinished packet, as a servo does after a pause on the line."""
        self._buffer.clear()

    def feed(self, data: bytes) -> list[Instruction]:
        """Add received bytes and return the packets that are complete now."""
        self._buffer += data
        found: list[Instruction] = []
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                del self._buffer[: max(0, len(self._buffer) - len(HEADER) + 1)]
                return found
            del self._buffer[:start]
            if len(self._buffer) < 7:
                return found
            length = int.from_bytes(self._buffer[5:7], "little")
            if not 3 <= length <= _MAX_LENGTH:
                del self._buffer[:1]
                continue
            end = 7 + length
            raw = bytes(self._buffer[:end])
            complete = len(raw) == end
            crc_ok = complete and crc16(raw[:-2]) == int.from_bytes(raw[-2:], "little")
            restart = -1 if crc_ok else raw.find(HEADER, 1)
            if restart > 0:
                del self._buffer[:restart]
                continue
            if not complete:
                return found
            del self._buffer[:end]
            body = unstuff(raw[7:-2])
            found.append(Instruction(raw[4], body[0], body[1:], crc_ok, len(raw)))
