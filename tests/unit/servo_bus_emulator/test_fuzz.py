"""Random and mutated packets: no crash, no motion outside the limits, no servo lost."""

import random

import pytest
from servo_bus_emulator.protocol import (
    BROADCAST_ID,
    BULK_WRITE,
    READ,
    REG_WRITE,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    PacketParser,
    packet,
)
from servo_bus_emulator.widowx import RIGID_JOINTS, widowx_bus
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.control_table import XM430_W350
from widowx_control.xs_driver.package_files import default_modes, default_motors

IDS = range(1, 10)
# Everything but what takes a servo away: its ID, a second ID, its silence.
KEPT = {"ID", "Secondary_ID", "Status_Return_Level", "Baud_Rate"}
FREE = [r for r in XM430_W350.registers.values() if r.name not in KEPT]


def well_formed(rng):
    """Return a packet of the protocol with random content."""
    servo_id = rng.choice([*IDS, *IDS, BROADCAST_ID, 77])
    register = rng.choice(FREE)
    address = register.address.to_bytes(2, "little")
    size = register.size.to_bytes(2, "little")
    value = rng.randbytes(register.size)
    kind = rng.randrange(6)
    if kind == 0:
        return packet(servo_id, rng.randrange(256), b"")
    if kind == 1:
        return packet(servo_id, READ, address + rng.choice([size, rng.randbytes(2)]))
    if kind == 2:
        return packet(servo_id, rng.choice([WRITE, REG_WRITE]), address + value)
    if kind == 3:
        chosen = rng.sample(IDS, rng.randrange(1, 9))
        return packet(BROADCAST_ID, SYNC_READ, address + size + bytes(chosen))
    if kind == 4:
        data = b"".join(bytes((i,)) + value for i in rng.sample(IDS, 4))
        return packet(BROADCAST_ID, SYNC_WRITE, address + size + data)
    data = b"".join(bytes((i,)) + address + size + value for i in rng.sample(IDS, 3))
    return packet(BROADCAST_ID, BULK_WRITE, data)


def mutated(rng):
    raw = bytearray(well_formed(rng))
    for _ in range(rng.randrange(1, 4)):
        action = rng.randrange(3)
        place = rng.randrange(len(raw))
        if action == 0:
            raw[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            del raw[place]
        else:
            raw.insert(place, rng.randrange(256))
        if not raw:
            break
    return bytes(raw)


@pytest.mark.parametrize("seed", [3, 4])
def test_fifty_thousand_packets_leave_a_bus_that_works_within_its_limits(seed):
    rng = random.Random(seed)
    configuration = load_configuration(default_motors(), default_modes())
    bus = widowx_bus(configuration, seed=seed)
    now = 0.0
    for count in range(50_000):
        kind = rng.randrange(10)
        if kind < 5:
            raw = well_formed(rng)
        elif kind < 9:
            raw = mutated(rng)
        else:
            raw = rng.randbytes(rng.randrange(1, 40))
        now += 1e-4
        bus.receive(raw, now)
        if count % 1000 == 0:
            now += 0.05
            bus.advance(now)
            for name, motion in bus.joint_motion().items():
                joint = RIGID_JOINTS[name]
                assert joint.lower_rad <= motion.position_rad <= joint.upper_rad
    # Whoever was rebooted comes back; every servo answers, with the right ID and an intact table.
    now += 1.0
    bus.advance(now)
    for servo in bus.servos:
        servo.table.set("Status_Return_Level", 2)
        for register in servo.model.registers.values():
            if register.writable and register.name != "Bus_Watchdog":
                value = servo.table.get(register.name)
                assert register.minimum <= value <= register.maximum, register.name
        replies = bus.receive(packet(servo.servo_id, READ, b"\x84\x00\x04\x00"), now)
        (answer,) = PacketParser().feed(b"".join(reply.data for reply in replies))
        assert answer.servo_id == servo.servo_id
        now += 0.01
