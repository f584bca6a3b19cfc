"""The serial port as the DYNAMIXEL SDK wants it, with waits that sleep, and that end in time.

The SDK's own port handler polls the port in a busy loop, measures time by the wall clock and waits
34 ms for a lost packet. This one sleeps in select(), uses the steady clock, and tells an unplugged
port from a silent one.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path
from typing import Final

import serial
from dynamixel_sdk import PortHandler

_BITS_PER_BYTE: Final = 10
_BABBLE_S: Final = 0.01
"""Bytes that arrived in time are read although this thread woke late; a line that never falls
silent is given up."""


class PortLost(OSError):
    """The serial port is not there (any more), or another program has it."""


class SerialPort(PortHandler):
    """A serial port for `dynamixel_sdk`'s packet handler.

    Args:
        path: device file, such as /dev/ttyDXL.
        baud_rate: in bits per second.
        reply_margin_s: how long a reply may be late beyond its time on the wire; covers the
            adapter's latency timer and scheduling.
    """

    def __init__(self, path: str, baud_rate: int, reply_margin_s: float) -> None:
        """Prepare; nothing is opened yet."""
        super().__init__(path)
        self.baudrate = baud_rate
        self.tx_time_per_byte = 1e3 * _BITS_PER_BYTE / baud_rate
        self._reply_margin_s = reply_margin_s
        self._deadline_s = 0.0
        self._received = bytearray()

    # The SDK's names and signatures from here on.

    def openPort(self) -> bool:
        """Open the port exclusively.

        Raises:
            PortLost: it does not exist, is not accessible, or another program uses it.
        """
        self.closePort()
        try:
            self.ser = serial.Serial(self.port_name, self.baudrate, timeout=0, exclusive=True)
        except (OSError, ValueError) as error:
            raise PortLost(f"cannot open {self.port_name}: {error}") from error
        # Only real adapters have a latency timer; elsewhere the request is refused.
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            self.ser.set_low_latency_mode(True)
        self.is_open = True
        self.is_using = False
        self._received.clear()
        return True

    def closePort(self) -> None:
        """Close the port; harmless when it is closed or gone."""
        if self.ser is not None:
            with contextlib.suppress(OSError):
                self.ser.close()
        self.ser = None
        self.is_open = False

    def clearPort(self) -> None:
        """Forget what was received and not read."""
        self._received.clear()
        while self._wait(0.0):
            self._fetch()
            self._received.clear()

    def readPort(self, length: int) -> bytes:
        """Return at least one and at most `length` bytes, or none after the packet's deadline."""
        if length <= 0:
            return b""
        if not self._received:
            left_s = self._deadline_s - time.monotonic()
            if left_s > -_BABBLE_S and self._wait(max(0.0, left_s)):
                self._fetch()
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken

    def writePort(self, packet: bytes | list[int]) -> int:
        """Send the bytes and return how many were sent.

        Raises:
            PortLost: the port is gone.
        """
        try:
            return os.write(self._descriptor(), bytes(packet))
        except OSError as error:
            raise PortLost(f"{self.port_name} is gone: {error}") from error

    def setPacketTimeout(self, packet_length: int) -> None:
        """Start the time for a reply of that many bytes."""
        wire_s = packet_length * self.tx_time_per_byte * 1e-3
        self._deadline_s = time.monotonic() + wire_s + self._reply_margin_s

    def setPacketTimeoutMillis(self, msec: float) -> None:
        """Start the time for a reply."""
        self._deadline_s = time.monotonic() + msec * 1e-3

    def isPacketTimeout(self) -> bool:
        """Whether the time for the reply is over."""
        return not self._received and time.monotonic() > self._deadline_s

    # Beyond the SDK.

    def put_back(self, data: bytes) -> None:
        """Return bytes that the SDK took although they may belong to the next packet."""
        self._received[:0] = data

    def drain(self) -> None:
        """Wait as long as a reply may be late, and forget what came."""
        time.sleep(self._reply_margin_s)
        self.clearPort()

    def latency_timer_ms(self) -> int | None:
        """Return the USB adapter's latency timer, or None where there is none."""
        device = Path(self.port_name).resolve().name
        path = Path("/sys/bus/usb-serial/devices") / device / "latency_timer"
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            return None

    def _descriptor(self) -> int:
        if self.ser is None:
            raise PortLost(f"{self.port_name} is not open")
        return int(self.ser.fileno())

    def _wait(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._descriptor()], [], [], timeout_s)
        return bool(ready)

    def _fetch(self) -> None:
        try:
            data = os.read(self._descriptor(), 4096)
        except BlockingIOError:
            return
        except OSError as error:
            raise PortLost(f"{self.port_name} is gone: {error}") from error
        if not data:
            raise PortLost(f"{self.port_name} is gone: end of file")
        self._received += data
