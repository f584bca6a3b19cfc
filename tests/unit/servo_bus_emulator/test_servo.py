"""The servo's rules and motion, on the bus in virtual time, without a serial port."""

import math

import pytest
from servo_bus_emulator.bus import EmulatedBus
from servo_bus_emulator.plant import RigidJoint, RigidPlant
from servo_bus_emulator.protocol import (
    ACCESS_ERROR,
    ALERT,
    BROADCAST_ID,
    DATA_LIMIT_ERROR,
    DATA_RANGE_ERROR,
    INSTRUCTION_ERROR,
    READ,
    REBOOT,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    PacketParser,
    packet,
)
from servo_bus_emulator.servo import Servo
from widowx_control.xs_driver.control_table import (
    CENTRE_TICKS,
    ERROR_OVERLOAD,
    RAD_PER_TICK,
    XL430_W250,
    XM430_W350,
)


class Host:
    """A computer on the bus, in virtual time, that knows nothing of the emulator's insides."""

    def __init__(self, servos, joints=None, **settings):
        plant = RigidPlant(joints or {s.joint: RigidJoint() for s in servos})
        self.bus = EmulatedBus(servos, plant, **settings)
        self.now = 0.0

    def send(self, *parts):
        """Return [(id, error, data)] of the answers."""
        parser = PacketParser()
        replies = self.bus.receive(packet(*parts), self.now)
        return [
            (p.servo_id, p.parameters[0], p.parameters[1:])
            for reply in replies
            for p in parser.feed(reply.data)
        ]

    def write(self, servo_id, name, value, model=XM430_W350):
        register = model.registers[name]
        raw = value.to_bytes(register.size, "little", signed=value < 0)
        ((_, error, _),) = self.send(servo_id, WRITE, register.address.to_bytes(2, "little") + raw)
        return error

    def read(self, servo_id, name, model=XM430_W350):
        register = model.registers[name]
        where = register.address.to_bytes(2, "little") + register.size.to_bytes(2, "little")
        ((_, error, data),) = self.send(servo_id, READ, where)
        assert not error & ~ALERT
        return int.from_bytes(data, "little", signed=register.signed)

    def wait(self, seconds):
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = min(end, self.now + 0.01)
            self.bus.advance(self.now)


@pytest.fixture
def host():
    return Host([Servo(XM430_W350, "a", {"ID": 1}), Servo(XL430_W250, "b", {"ID": 2})])


def test_eeprom_is_locked_under_torque(host):
    assert host.write(1, "Max_Position_Limit", 3000) == 0
    assert host.write(1, "Torque_Enable", 1) == 0
    assert host.write(1, "Max_Position_Limit", 4000) == ACCESS_ERROR
    assert host.read(1, "Max_Position_Limit") == 3000


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("Goal_Position", 4096, DATA_LIMIT_ERROR),
        ("Goal_PWM", 886, DATA_RANGE_ERROR),
        ("Goal_Velocity", 201, DATA_LIMIT_ERROR),
        ("Profile_Velocity", 32768, DATA_RANGE_ERROR),
        ("Present_Position", 0, ACCESS_ERROR),
        ("Operating_Mode", 2, DATA_RANGE_ERROR),
    ],
)
def test_bad_writes_are_refused_and_change_nothing(host, name, value, error):
    before = host.read(1, name)
    assert host.write(1, name, value) == error
    assert host.read(1, name) == before


def test_a_servo_without_a_current_sensor_has_no_current_modes(host):
    assert host.write(2, "Operating_Mode", 0) == DATA_RANGE_ERROR
    assert host.write(1, "Operating_Mode", 0) == 0


def test_unknown_instructions_and_factory_reset_are_refused(host):
    assert host.send(1, 0x77)[0][1] == INSTRUCTION_ERROR
    assert host.send(1, 0x06, b"\xff")[0][1] != 0
    assert host.read(1, "ID") == 1


def test_time_profile_takes_the_time_that_it_says(host):
    host.write(1, "Drive_Mode", 4)
    host.write(1, "Torque_Enable", 1)
    host.write(1, "Profile_Acceleration", 300)
    host.write(1, "Profile_Velocity", 2000)
    host.write(1, "Goal_Position", CENTRE_TICKS + 1000)
    peak = 0
    for _ in range(20):
        host.wait(0.1)
        peak = max(peak, host.read(1, "Velocity_Trajectory"))
    # Peak speed of the trapezoid is distance / (total - ramp).
    assert peak * 0.229 * 4096 / 60 == pytest.approx(1000 / 1.7, abs=10)
    assert host.read(1, "Position_Trajectory") == CENTRE_TICKS + 1000
    host.wait(0.5)
    assert host.read(1, "Present_Position") == pytest.approx(CENTRE_TICKS + 1000, abs=15)


def test_a_new_goal_on_the_way_does_not_jump(host):
    host.write(1, "Drive_Mode", 4)
    host.write(1, "Torque_Enable", 1)
    host.write(1, "Profile_Acceleration", 100)
    host.write(1, "Profile_Velocity", 250)
    previous = host.read(1, "Position_Trajectory")
    steps = []
    for k in range(1, 11):
        host.write(1, "Goal_Position", CENTRE_TICKS + 60 * k)
        for _ in range(20):
            host.wait(0.01)
            now = host.read(1, "Position_Trajectory")
            steps.append(now - previous)
            previous = now
    # 60 ticks per 0.2 s is 3 ticks per 10 ms; the override overshoots in speed, never jumps.
    assert max(steps) <= 8
    assert min(steps) >= -1


def test_reverse_mode_and_homing_offset_follow_the_e_manual():
    offset = 37
    mirrored = Servo(
        XM430_W350,
        "a",
        {"ID": 1, "Drive_Mode": 1},
        mounting_sign=-1,
        assembly_offset_ticks=offset,
    )
    host = Host([mirrored], {"a": RigidJoint(start_rad=0.5)})
    true_ticks = CENTRE_TICKS + round(0.5 / RAD_PER_TICK)
    assert host.read(1, "Present_Position") == pytest.approx(true_ticks - offset, abs=1)
    # Reversed, a positive homing offset lowers the present position.
    host.write(1, "Homing_Offset", -offset)
    assert host.read(1, "Present_Position") == pytest.approx(true_ticks, abs=1)


def test_bus_watchdog_stops_motion_and_locks_goals_until_cleared(host):
    host.write(1, "Torque_Enable", 1)
    host.write(1, "Profile_Velocity", 50)
    host.write(1, "Bus_Watchdog", 8)
    host.write(1, "Goal_Position", 4000)
    host.wait(0.5)
    assert host.read(1, "Bus_Watchdog") == 255
    stopped_at = host.read(1, "Present_Position")
    host.wait(0.3)
    assert host.read(1, "Present_Position") == pytest.approx(stopped_at, abs=3)
    assert host.read(1, "Torque_Enable") == 1
    assert host.write(1, "Goal_Position", 3000) == DATA_RANGE_ERROR
    assert host.write(1, "Bus_Watchdog", 0) == 0
    assert host.write(1, "Goal_Position", 3000) == 0


def test_packets_keep_the_watchdog_quiet(host):
    host.write(1, "Torque_Enable", 1)
    host.write(1, "Bus_Watchdog", 5)
    for _ in range(30):
        host.wait(0.05)
        host.send(BROADCAST_ID, SYNC_READ, b"\x84\x00\x04\x00\x01")
    assert host.read(1, "Bus_Watchdog") == 5


def test_overload_shuts_down_until_reboot_and_raises_the_alert():
    stuck = RigidJoint(start_rad=0.0, lower_rad=-0.01, upper_rad=0.01)
    host = Host([Servo(XM430_W350, "a", {"ID": 1})], {"a": stuck})
    host.write(1, "Torque_Enable", 1)
    host.write(1, "Goal_Position", 4000)
    host.wait(2.0)
    assert host.read(1, "Hardware_Error_Status") == ERROR_OVERLOAD
    assert host.read(1, "Torque_Enable") == 0
    assert host.write(1, "Torque_Enable", 1) == ACCESS_ERROR | ALERT
    host.send(1, REBOOT)
    host.wait(1.0)
    assert host.read(1, "Hardware_Error_Status") == 0
    assert host.read(1, "Profile_Velocity") == 0
    assert host.write(1, "Torque_Enable", 1) == 0


def test_a_shadow_obeys_its_secondary_id_silently_and_in_ram_only():
    servos = [
        Servo(XM430_W350, "a", {"ID": 2}),
        Servo(XM430_W350, "a", {"ID": 3, "Secondary_ID": 2, "Drive_Mode": 1}, mounting_sign=-1),
    ]
    host = Host(servos)
    assert host.write(2, "Max_Position_Limit", 3000) == 0
    assert host.read(3, "Max_Position_Limit") == 4095
    assert host.write(2, "Torque_Enable", 1) == 0
    assert host.read(3, "Torque_Enable") == 1
    goal = (CENTRE_TICKS + 300).to_bytes(4, "little")
    assert host.send(BROADCAST_ID, SYNC_WRITE, b"\x74\x00\x04\x00\x02" + goal) == []
    assert host.read(3, "Goal_Position") == CENTRE_TICKS + 300
    host.wait(1.0)
    # They pull together: both at the goal and no fight between them.
    assert host.read(2, "Present_Position") == pytest.approx(CENTRE_TICKS + 300, abs=20)
    assert abs(host.read(2, "Present_Current") + -host.read(3, "Present_Current")) < 30


def test_a_missing_servo_silences_those_after_it_in_a_sync_read(host):
    request = b"\x84\x00\x04\x00\x01\x09\x02"
    assert [i for i, _, _ in host.send(BROADCAST_ID, SYNC_READ, request)] == [1]


def test_indirect_data_reads_and_writes_where_it_points(host):
    address = XM430_W350.registers["Goal_Position"].address
    for k in range(4):
        host.send(
            1,
            WRITE,
            (168 + 2 * k).to_bytes(2, "little") + (address + k).to_bytes(2, "little"),
        )
    host.send(1, WRITE, (224).to_bytes(2, "little") + (1234).to_bytes(4, "little"))
    assert host.read(1, "Goal_Position") == 1234
    ((_, error, data),) = host.send(1, READ, b"\xe0\x00\x04\x00")
    assert (error, int.from_bytes(data, "little")) == (0, 1234)


def test_pwm_mode_turns_at_the_speed_of_the_back_emf():
    host = Host(
        [Servo(XL430_W250, "g", {"ID": 9, "Operating_Mode": 16})],
        {
            "g": RigidJoint(
                inertia_kg_m2=0.002,
                damping_nm_s_per_rad=0.0,
                friction_nm=0.0,
                lower_rad=-math.inf,
                upper_rad=math.inf,
            )
        },
    )
    host.write(9, "Goal_PWM", 0, XL430_W250)
    host.write(9, "Torque_Enable", 1, XL430_W250)
    host.write(9, "Goal_PWM", 443, XL430_W250)
    host.wait(1.0)
    half_of_no_load = XL430_W250.no_load_speed_rad_s / 2
    assert host.bus.joint_motion()["g"].velocity_rad_s == pytest.approx(half_of_no_load, rel=0.02)
