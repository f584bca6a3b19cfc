"""The Kobuki's byte stream: right frames are found whatever surrounds them."""

import contextlib
import itertools
import struct

import pytest
from base_drivers.kobuki import commands, feedback
from base_drivers.kobuki.feedback import FeedbackError, decode
from base_drivers.kobuki.framing import FrameParser, SubPayload, checksum, frame
from base_drivers.kobuki_emulator.emulated_base import EmulatedKobuki
from base_drivers.velocity import Velocity
from hypothesis import example, given, settings
from hypothesis import strategies as st

parts = st.lists(
    st.builds(SubPayload, st.integers(100, 255), st.binary(min_size=1, max_size=60)),
    min_size=1,
    max_size=4,
)


def feed_in_pieces(parser, data, cuts):
    found = []
    for begin, end in itertools.pairwise(
        [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    ):
        found += parser.feed(data[begin:end])
    return found


def test_a_documented_frame():
    """Base control 100 mm/s straight on, bytes by hand."""
    assert frame(commands.base_control(Velocity(0.1))) == bytes.fromhex("aa550601046400000067")
    assert checksum(bytes.fromhex("0601046400000067")) == 0


@settings(deadline=None)
@given(st.lists(parts, min_size=1, max_size=5), st.lists(st.integers(0, 2000)))
def test_frames_are_found_however_the_bytes_arrive(payloads, cuts):
    parser = FrameParser({})
    data = b"".join(frame(*payload) for payload in payloads)
    assert feed_in_pieces(parser, data, cuts) == payloads
    assert parser.skipped_bytes == 0


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 2000)))
@example(b"\xaa\x55", [])
@example(b"\xaa\x55\xff\x01\x0f", [])
@example(b"\xaa\xaa\x55\x06\x01\x04", [3])
def test_garbage_never_hides_what_follows(garbage, cuts):
    base = EmulatedKobuki()
    parser = FrameParser(feedback.LENGTHS)
    good = [base.feedback() for _ in range(4)]
    found = feed_in_pieces(parser, garbage + b"".join(good), cuts)
    # A false frame of garbage may swallow what it claims as its own: at most 255 bytes.
    decoded = [payload for payload in found if payload[0].identifier == feedback.BASIC_SENSOR]
    assert len(decoded) >= 1
    assert all(decode(payload).basic is not None for payload in decoded[-1:])


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_can_break_parser_or_decoder(data):
    body = bytes((len(data),)) + data
    framed = b"\xaa\x55" + body + bytes((checksum(body),))
    for payload in FrameParser(feedback.LENGTHS).feed(framed + data):
        with contextlib.suppress(FeedbackError):
            decode(payload)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_damaged_byte_is_always_noticed(position, difference):
    good = EmulatedKobuki().feedback()
    damaged = bytearray(good)
    damaged[position % len(good)] ^= difference
    found = FrameParser(feedback.LENGTHS).feed(bytes(damaged))
    assert all(payload[0].identifier != feedback.BASIC_SENSOR for payload in found)


@settings(deadline=None)
@given(st.floats(-0.7, 0.7), st.floats(-3.0, 3.0))
def test_the_base_understands_the_velocity_that_was_meant(x, yaw):
    part = commands.base_control(Velocity(x, 0.0, yaw))
    got = commands.velocity_from_base_control(part.data)
    # Resolution: 1 mm/s at the outer wheel, 1 mm of radius.
    radius_mm = abs(1e3 * x / yaw) if abs(yaw) > 1e-4 else float("inf")
    coarse = 0.5 / max(radius_mm, 0.5) if radius_mm < 200.0 else 0.0
    assert got.x == pytest.approx(x, abs=0.0012 + coarse * abs(x) + 0.0015 * abs(yaw))
    assert got.yaw == pytest.approx(yaw, abs=0.012 + 2.0 * coarse * abs(yaw))


def test_everything_documented_is_decoded():
    base = EmulatedKobuki(firmware=(1, 1, 4))
    base.sensors.bumper, base.sensors.cliff, base.sensors.wheel_drop = 0b101, 0b010, 0b10
    base.sensors.charger, base.sensors.battery_v = 22, 15.5
    base.receive(frame(commands.request_extra(), SubPayload(commands.GET_CONTROLLER_GAIN, b"\0")))
    (payload,) = FrameParser(feedback.LENGTHS).feed(base.feedback())
    said = decode(payload)
    assert said.basic.contacts.bumper_left and said.basic.contacts.bumper_right
    assert not said.basic.contacts.bumper_center
    assert said.basic.contacts.cliff_center and said.basic.contacts.wheel_drop_left
    assert (said.basic.charger, said.basic.battery_v) == ("adapter_charging", 15.5)
    assert said.firmware_version == (1, 1, 4) and said.hardware_version == (1, 0, 4)
    assert said.unique_id == "1000001-1000002-1000003"
    assert said.controller_gains == (100.0, 0.1, 2.0)
    assert len(said.gyro_rad_s) == 2 and said.analog_inputs == (0, 0, 0, 0)
    # What was asked for comes once.
    (payload,) = FrameParser(feedback.LENGTHS).feed(base.feedback())
    assert decode(payload).firmware_version is None


@pytest.mark.parametrize(
    "part",
    [
        SubPayload(feedback.BASIC_SENSOR, bytes((0, 0, 8)) + bytes(12)),
        SubPayload(feedback.BASIC_SENSOR, bytes(12) + bytes((3, 0, 0))),
        SubPayload(feedback.INERTIAL, struct.pack("<hh3x", 18001, 0)),
        SubPayload(feedback.CLIFF, struct.pack("<3H", 0, 4096, 0)),
        SubPayload(feedback.GYRO, bytes((0, 3)) + bytes(12)),
        SubPayload(feedback.FIRMWARE_VERSION, struct.pack("<H", 77)),
    ],
)
def test_what_a_base_cannot_say_is_refused(part):
    with pytest.raises(FeedbackError):
        decode([part])
    with pytest.raises(FeedbackError):
        decode([SubPayload(feedback.DOCKING_IR, bytes(3))] * 2)


def test_versions_of_old_firmware():
    old = SubPayload(feedback.FIRMWARE_VERSION, struct.pack("<H", 10101))
    assert decode([old]).firmware_version == (1, 1, 1)
