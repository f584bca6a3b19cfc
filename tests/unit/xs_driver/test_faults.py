"""Every fault that the emulator can make, and what the driver does about it."""

import bisect
import random
import time

import pytest
from emulated_arm import wait_for
from servo_bus_emulator.protocol import ACCESS_ERROR
from widowx_control.xs_driver.configuration import Mode
from widowx_control.xs_driver.driver_types import CommandRefused, DriverState, ServiceFailed
from widowx_control.xs_driver.units import rad_from_ticks

ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


def move_slowly(arm):
    """Start a move of several seconds."""
    mode = Mode("position", "time", 6000, 200)
    arm.driver.set_operating_modes("group", "arm", mode).result(timeout=5)
    arm.driver.command("group", "arm", [1.5, 0.0, 0.0, 1.5, 0.0, 1.5])
    wait_for(lambda: arm.speed("waist") > 0.15 and arm.speed("forearm_roll") > 0.15)


def still(arm, joints=ARM):
    return all(abs(arm.speed(j)) < 0.03 for j in joints)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("overload 4", "hardware_error:elbow"),
        ("overload 3", "hardware_error:shoulder_shadow"),
        ("temperature 9 95", "hardware_error:gripper"),
        ("reboot 7", ":wrist_angle"),  # missing or without torque, whichever is seen first
        ("unplug_servo 6", "servo_missing:forearm_roll"),
        ("unplug_servo 5", "servo_missing:elbow_shadow"),
    ],
)
def test_a_servo_fault_stops_the_whole_arm_until_rearmed(arm, line, code):
    arm.start_driver()
    move_slowly(arm)
    arm.tell(line)
    arm.wait_state(DriverState.STOPPED, 2.0)
    assert any(fault.endswith(code) for fault in arm.driver.status().faults)
    wait_for(lambda: still(arm, ("waist", "wrist_rotate")), 1.0)
    with pytest.raises(CommandRefused) as refusal:
        arm.driver.command("group", "arm", [0] * 6)
    assert refusal.value.code == "stopped"
    if line.startswith(("overload", "temperature", "unplug")):
        with pytest.raises(ServiceFailed):
            arm.driver.rearm().result(timeout=5)
        assert arm.driver.status().state is DriverState.STOPPED
        arm.tell("plug_servo 5")
        arm.tell("plug_servo 6")
        arm.tell("temperature 9 25")
        arm.driver.reboot("group", "all", enable=True, smart=True).result(timeout=20)
    else:
        wait_for(lambda: not arm.driver.status().missing)
        arm.driver.rearm().result(timeout=5)
    assert arm.driver.status().state is DriverState.RUNNING
    assert not arm.driver.status().faults
    held = arm.joint("waist")
    start = len(arm.readings)
    wait_for(lambda: len(arm.readings) > start + 20)
    # Re-arming does not resume the old move.
    assert arm.joint("waist") == pytest.approx(held, abs=0.02)
    for name in ("shoulder", "elbow", "gripper"):
        assert arm.servo(name, "Torque_Enable") == 1
    assert arm.servo("waist", "Profile_Velocity") == 6000


def test_unplugging_the_bus_stops_the_arm_and_replugging_reconnects(arm):
    arm.start_driver(bus_watchdog_ms=200)
    move_slowly(arm)
    arm.server.unplug()
    arm.wait_state(DriverState.DISCONNECTED, 1.0)
    # Only the servos' own watchdogs can stop them now.
    wait_for(lambda: still(arm), 0.6)
    published = len(arm.readings)
    held = {j: arm.joint(j) for j in ARM}
    time.sleep(0.3)
    assert len(arm.readings) == published
    replugged = time.monotonic()
    arm.server.plug()
    arm.wait_state(DriverState.STOPPED, 3.0)
    assert time.monotonic() - replugged < 2.0
    assert "bus_lost" in arm.driver.status().faults
    wait_for(lambda: len(arm.readings) > published + 20)
    assert {j: arm.joint(j) for j in ARM} == pytest.approx(held, abs=0.03)
    assert all(drops <= 1 for drops in arm.servos("torque_drops").values())
    arm.driver.torque_enable("group", "arm", True).result(timeout=5)
    arm.driver.command("group", "arm", [0.0, -0.5, 0.5, 0, 0, 0])
    wait_for(lambda: abs(arm.joint("waist")) < 0.05 and abs(arm.joint("elbow") - 0.5) < 0.05)


def test_losing_power_leaves_the_arm_stopped_with_its_settings_restored(arm):
    arm.start_driver()
    arm.tell("power_cycle")
    wait_for(lambda: arm.driver.status().state is not DriverState.RUNNING)
    arm.wait_state(DriverState.STOPPED)
    assert arm.servo("waist", "Torque_Enable") == 0
    wait_for(lambda: not arm.driver.status().missing)
    arm.driver.rearm().result(timeout=5)
    assert arm.servo("waist", "Torque_Enable") == 1
    assert arm.servo("waist", "Profile_Velocity") == 2000


def test_a_low_supply_is_reported_and_does_not_stop(arm):
    arm.start_driver()
    arm.tell("voltage 8.5")
    wait_for(lambda: any("input voltage" in text for _, text in arm.events))
    assert arm.driver.status().state is DriverState.RUNNING


def test_a_driver_that_dies_leaves_still_servos(arm):
    arm.start_driver(bus_watchdog_ms=200)
    move_slowly(arm)
    # As if killed: the thread ends without a word to the servos.
    arm.driver._release = lambda: arm.driver._port.closePort()
    arm.stop_driver()
    wait_for(lambda: still(arm), 0.5)
    assert arm.servo("waist", "Bus_Watchdog") == 255
    held = {j: arm.joint(j) for j in ARM}
    arm.start_driver()
    wait_for(lambda: len(arm.readings) > 20)
    assert {j: arm.joint(j) for j in ARM} == pytest.approx(held, abs=0.03)


def test_settings_lost_without_a_restart_are_put_back(arm):
    arm.start_driver()
    arm.server.call(lambda bus: bus.servo(3).table.set("Profile_Velocity", 0))
    wait_for(lambda: arm.servo("shoulder_shadow", "Profile_Velocity") == 2000)
    assert arm.driver.status().loop.settings_restored >= 1


def refuse(servo, register):
    """Let a servo refuse every write of one register, by an error in its status packet."""
    address, write = servo.model.registers[register].address, servo.write

    def refusing(at, data, **how):
        return ACCESS_ERROR if at <= address < at + len(data) else write(at, data, **how)

    servo.write = refusing


@pytest.mark.parametrize("motor", ["waist", "elbow_shadow"])
@pytest.mark.parametrize("how", ["silent", "refuses"])
@pytest.mark.parametrize(
    ("register", "service"),
    [
        ("Torque_Enable", lambda d: d.torque_enable("group", "arm", True)),
        ("Torque_Enable", lambda d: d.set_registers("group", "arm", {"Torque_Enable": 1})),
        ("Operating_Mode", lambda d: d.set_operating_modes("group", "arm", Mode("ext_position"))),
        ("Position_P_Gain", lambda d: d.set_registers("group", "arm", {"Position_P_Gain": 500})),
        ("Torque_Enable", lambda d: d.reboot("group", "arm", enable=True, smart=False)),
    ],
    ids=["torque", "torque_register", "modes", "registers", "reboot"],
)
def test_a_group_service_that_one_servo_misses_is_a_fault(arm, motor, how, register, service):
    servo_id = arm.configuration.motors[motor].servo_id
    driver = arm.start_driver()
    driver.torque_enable("group", "arm", False).result(timeout=5)
    if how == "silent":
        arm.tell(f"unplug_servo {servo_id}")
    else:
        arm.server.call(lambda bus: refuse(bus.servo(servo_id), register))
    first_refuses = motor == "waist" and register == "Position_P_Gain" and how == "refuses"
    with pytest.raises(ServiceFailed):
        service(driver).result(timeout=20)
    if first_refuses:
        return  # nothing was done to any servo
    arm.wait_state(DriverState.STOPPED, 2.0)
    with pytest.raises(CommandRefused) as refusal:
        driver.command("group", "arm", [0.1] * 6)
    assert refusal.value.code == "stopped"
    # Mended, the re-arm makes all of it as it was asked for.
    if how == "silent":
        arm.tell(f"plug_servo {servo_id}")
    else:
        arm.server.call(lambda bus: delattr(bus.servo(servo_id), "write"))
    wait_for(lambda: not driver.status().missing)
    driver.torque_enable("group", "arm", True).result(timeout=10)
    assert driver.status().state is DriverState.RUNNING
    modes = {arm.servo(m, "Operating_Mode") for m in arm.configuration.motors if m != "gripper"}
    assert len(modes) == 1
    assert all(arm.servo(m, "Torque_Enable") for m in arm.configuration.motors)


def test_a_request_to_stop_is_latched(arm):
    arm.start_driver()
    move_slowly(arm)
    arm.driver.halt("stop was requested").result(timeout=5)
    assert arm.driver.status().state is DriverState.STOPPED
    wait_for(lambda: still(arm), 1.0)
    arm.driver.rearm().result(timeout=5)
    assert arm.driver.status().state is DriverState.RUNNING


def record_motion(plant, truth):
    """Make the plant append (monotonic s, angles) at every step that it takes."""
    advance = plant.advance

    def recording(duration_s, drives):
        motion = advance(duration_s, drives)
        truth.append((time.monotonic(), {j: m.position_rad for j, m in motion.items()}))
        return motion

    plant.advance = recording


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_never_publishes_a_wrong_position_and_the_arm_still_follows(make_arm, seed):
    arm = make_arm(seed=seed)
    arm.start_driver(reply_margin_s=0.008)
    mode = Mode("position", "time", 200, 50)
    arm.driver.set_operating_modes("group", "arm", mode).result(timeout=5)
    rng = random.Random(seed)
    truth = []
    arm.server.call(lambda bus: record_motion(bus.plant, truth))
    arm.tell("noise corrupt=0.005 drop=0.005")
    start = len(arm.readings)
    end = time.monotonic() + 6.0
    target = [0.0, -1.0, 1.0, 0.0, 0.5, 0.0]
    next_command = 0.0
    while time.monotonic() < end:
        if time.monotonic() > next_command:
            next_command = time.monotonic() + 0.4
            if end - time.monotonic() > 1.5:
                target = [rng.uniform(-0.4, 0.4), -1.0, 1.0, rng.uniform(-0.4, 0.4), 0.5, 0.0]
                arm.driver.command("group", "arm", target)
        time.sleep(0.01)
    arm.tell("noise")
    assert arm.driver.status().state is DriverState.RUNNING, arm.driver.status().faults
    assert arm.server.call(lambda bus: bus.to_host.damaged_bytes) > 500
    readings = list(arm.readings)[start:]
    assert len(readings) > 100
    # Every published position was true at some moment of the last 0.3 s.
    times = [t for t, _ in truth]
    for when, reading in readings:
        recent = truth[bisect.bisect(times, when - 0.3) : bisect.bisect(times, when + 0.02)]
        for name, state in zip(arm.configuration.joint_order, reading.states, strict=True):
            angles = [q[name] for _, q in recent]
            angle = rad_from_ticks(state.position)
            assert min(angles) - 0.01 <= angle <= max(angles) + 0.01, (name, angle)
    wait_for(lambda: all(abs(arm.joint(j) - q) < 0.06 for j, q in zip(ARM, target, strict=True)))


def test_a_stop_does_not_wait_for_a_reboot_and_outlives_it(arm):
    arm.start_driver()
    move_slowly(arm)
    reboot = arm.driver.reboot("single", "gripper", enable=True, smart=False)
    arm.driver.halt("enough").result(timeout=5)
    assert not reboot.done()
    assert arm.driver.status().state is DriverState.STOPPED
    wait_for(lambda: abs(arm.speed("waist")) < 0.01)
    assert arm.joint("waist") < 1.0
    # The reboot would re-arm after faults that stood before it, not after this one.
    with pytest.raises(ServiceFailed, match="enough"):
        reboot.result(timeout=10)
    assert arm.driver.status().state is DriverState.STOPPED
    arm.driver.rearm().result(timeout=5)
    arm.wait_state(DriverState.RUNNING)


def test_a_stop_without_a_bus_holds_once_there_is_one(arm):
    arm.server.unplug()
    arm.start_driver(expect=DriverState.DISCONNECTED)
    arm.driver.halt("enough").result(timeout=1)
    arm.server.plug()
    arm.wait_state(DriverState.STOPPED)
    assert set(arm.driver.status().faults) == {"halted"}


def test_a_stop_after_a_rearm_request_wins(arm):
    arm.start_driver()
    for _ in range(10):
        arm.driver.halt("first").result(timeout=5)
        rearm = arm.driver.rearm()
        arm.driver.halt("second").result(timeout=5)
        with pytest.raises(ServiceFailed, match="second"):
            rearm.result(timeout=5)
        assert arm.driver.status().state is DriverState.STOPPED
