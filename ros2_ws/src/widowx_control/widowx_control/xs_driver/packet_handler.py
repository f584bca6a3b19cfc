"""The SDK's packet handler with its byte stuffing repaired."""

from __future__ import annotations

from typing import Final

from dynamixel_sdk.protocol2_packet_handler import (
    PKT_INSTRUCTION,
    PKT_LENGTH_H,
    PKT_LENGTH_L,
    Protocol2PacketHandler,
)

_CRC_BYTES: Final = 2
_HEADER: Final = [0xFF, 0xFF, 0xFD]


class PacketHandler(Protocol2PacketHandler):
    """`dynamixel_sdk` 4.1.0 stuffs a copy of the packet and sends the original.

    A servo then takes FF FF FD in the data for the head of a packet, or drops a byte.
    """

    def addStuffing(self, packet: list[int]) -> list[int]:
        """Insert FD after each FF FF FD in instruction and parameters, in place."""
        length = packet[PKT_LENGTH_L] | packet[PKT_LENGTH_H] << 8
        end = PKT_INSTRUCTION + length - _CRC_BYTES
        stuffed: list[int] = []
        for byte in packet[PKT_INSTRUCTION:end]:
            stuffed.append(byte)
            if stuffed[-3:] == _HEADER:
                stuffed.append(0xFD)
        packet[PKT_INSTRUCTION:end] = stuffed
        length = len(stuffed) + _CRC_BYTES
        packet[PKT_LENGTH_L], packet[PKT_LENGTH_H] = length & 0xFF, length >> 8
        return packet
