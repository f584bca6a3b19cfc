"""Packets against the worked examples of the ROBOTIS e-manual and against what the driver sends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servo_bus_emulator.protocol import (
    PING,
    READ,
    REBOOT,
    SYNC_READ,
    WRITE,
    PacketParser,
    packet,
    status_packet,
)
from widowx_control.xs_driver.packet_handler import PacketHandler

E_MANUAL = [
    ((1, PING, b""), "FF FF FD 00 01 03 00 01 19 4E"),
    ((1, READ, b"\x84\x00\x04\x00"), "FF FF FD 00 01 07 00 02 84 00 04 00 1D 15"),
    ((1, WRITE, b"\x74\x00\x00\x02\x00\x00"), "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
    ((1, REBOOT, b""), "FF FF FD 00 01 03 00 08 2F 4E"),
    (
        (254, SYNC_READ, b"\x84\x00\x04\x00\x01\x02"),
        "FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA",
    ),
]


@pytest.mark.parametrize(("parts", "wire"), E_MANUAL)
def test_packets_are_those_of_the_e_manual(parts, wire):
    assert packet(*parts) == bytes.fromhex(wire)


def test_status_packet_is_that_of_the_e_manual():
    wire = "FF FF FD 00 01 07 00 55 00 06 04 26 65 5D"
    assert status_packet(1, 0, b"\x06\x04\x26") == bytes.fromhex(wire)


class _Wire:
    """A port for the SDK that keeps what it sends."""

    is_using = False

    def clearPort(self):
        pass

    def writePort(self, data):
        self.sent = bytes(data)
        return len(data)


likely_headers = st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x55]), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(st.binary(min_size=1, max_size=60), likely_headers.map(bytes)))
def test_what_the_driver_sends_is_understood_stuffing_included(data):
    wire = _Wire()
    PacketHandler().writeTxOnly(wire, 7, 0x1234, len(data), list(data))
    (instruction,) = PacketParser().feed(wire.sent)
    assert instruction.crc_ok
    assert (instruction.servo_id, instruction.code) == (7, WRITE)
    assert instruction.parameters == b"\x34\x12" + data


@settings(max_examples=200, deadline=None)
@given(
    rubbish=st.binary(max_size=30),
    cut=st.integers(0, 15),
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_a_whole_packet_is_found_behind_rubbish_and_a_torn_one(rubbish, cut, pieces):
    whole = packet(3, WRITE, b"\x74\x00\x01\x02\x03\x04")
    stream = rubbish + whole[:cut] + whole
    parser = PacketParser()
    found = []
    while stream:
        size = pieces[len(found) % len(pieces)]
        found += parser.feed(stream[:size])
        stream = stream[size:]
    # Rubbish may look like the head of a longer packet; the next packet then ends it.
    found += parser.feed(whole)
    good = [p for p in found if p.crc_ok]
    assert good
    assert all(p.parameters == b"\x74\x00\x01\x02\x03\x04" for p in good)
