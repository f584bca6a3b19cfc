"""Frames of the Kobuki's byte stream, in both directions.

Source: Kobuki documentation, "Serial Protocol". Frame: AA 55, length of the payload, payload, XOR
of the length and all payload bytes. Payload: sub-payloads of identifier, length, data. Numbers are
little-endian. Nothing is stuffed, so that AA 55 may occur inside a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

HEADER: Final = b"\xaa\x55"
MAX_PAYLOAD: Final = 255
_MIN_PAYLOAD: Final = 3

LengthRule = Callable[[int], bool]


@dataclass(frozen=True)
class SubPayload:
    """One part of a payload."""

    identifier: int
    data: bytes


def checksum(data: bytes | bytearray) -> int:
    """Return the XOR of all bytes."""
    value = 0
    for byte in data:
        value ^= byte
    return value


def frame(*parts: SubPayload) -> bytes:
    """Return a whole frame.

    Raises:
        ValueError: the payload is longer than a frame can hold.
    """
    payload = b"".join(bytes((part.identifier, len(part.data))) + part.data for part in parts)
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes; expected at most {MAX_PAYLOAD}")
    body = bytes((len(payload),)) + payload
    return HEADER + body + bytes((checksum(body),))


class FrameParser:
    """Finds frames in a stream of bytes that may be damaged.

    A checksum of one byte lets one damaged frame of 256 pass, so the structure is checked as well:
    sub-payloads must fill the payload exactly, and known ones must have a length that they can
    have. That also tells a false header at once, instead of waiting for 255 bytes after it.

    Attributes:
        frames: good frames so far.
        skipped_bytes: bytes that belonged to no good frame.

    Args:
        rules: identifier → which lengths of data it can have; identifiers not listed may have any.
    """

    def __init__(self, rules: Mapping[int, LengthRule]) -> None:
        self._rules = rules
        self._buffer = bytearray()
        self.frames = 0
        self.skipped_bytes = 0

    def clear(self) -> None:
        """Forget an unfinished frame."""
        self._buffer.clear()

    def feed(self, data: bytes) -> list[list[SubPayload]]:
        """Add received bytes and return the payloads of the frames that are complete now."""
        self._buffer += data
        found: list[list[SubPayload]] = []
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                # The first byte of a header may be the last of these.
                keep = 1 if self._buffer.endswith(HEADER[:1]) else 0
                self._skip(len(self._buffer) - keep)
                return found
            self._skip(start)
            if len(self._buffer) < 3:
                return found
            parts = self._parse()
            if parts is None:
                return found
            if parts:
                self.frames += 1
                del self._buffer[: 4 + self._buffer[2]]
                found.append(parts)
            else:
                # Only the header is known to be false: a good frame may begin right behind it.
                self._skip(1)

    def _skip(self, count: int) -> None:
        self.skipped_bytes += count
        del self._buffer[:count]

    def _parse(self) -> list[SubPayload] | None:
        """The parts of the frame at the start; empty: it is none; None: more bytes are needed."""
        length = self._buffer[2]
        if length < _MIN_PAYLOAD:
            return []
        end = 3 + length
        parts = []
        at = 3
        while at < end:
            if len(self._buffer) < at + 2:
                return None if at + 2 <= end else []
            identifier, size = self._buffer[at], self._buffer[at + 1]
            rule = self._rules.get(identifier)
            if at + 2 + size > end or (rule is not None and not rule(size)):
                return []
            parts.append(SubPayload(identifier, bytes(self._buffer[at + 2 : at + 2 + size])))
            at += 2 + size
        if len(self._buffer) <= end:
            return None
        return parts if checksum(self._buffer[2:end]) == self._buffer[end] else []
