"""What the driver does to the servos when it starts, stops and starts again."""

import math
from dataclasses import replace

import pytest
from emulated_arm import wait_for
from widowx_control.xs_driver.configuration import Mode
from widowx_control.xs_driver.control_table import MODE_PWM
from widowx_control.xs_driver.driver_types import DriverState, ServiceFailed


def test_a_new_arm_is_configured_and_a_configured_one_is_left_alone(make_arm):
    arm = make_arm(factory_settings=True, assembly_offsets_ticks={"shoulder_shadow": 25})
    arm.start_driver()
    for motor in arm.configuration.motors.values():
        for register, value in motor.eeprom.items():
            wanted = value
            if register == "Drive_Mode" and motor.name != "gripper":
                wanted |= 4  # the arm starts in the time profile
            assert arm.servo(motor.name, register) == wanted
    assert arm.servo("gripper", "Operating_Mode") == MODE_PWM
    assert arm.servo("shoulder", "Profile_Velocity") == 2000
    assert arm.servo("shoulder_shadow", "Profile_Acceleration") == 300
    master = arm.servo("shoulder", "Present_Position")
    assert arm.servo("shoulder_shadow", "Present_Position") == pytest.approx(master, abs=3)
    assert arm.driver.status().loop.eeprom_writes > 0

    writes, drops = arm.servos("eeprom_writes"), arm.servos("torque_drops")
    arm.stop_driver()
    arm.start_driver()
    assert arm.servos("eeprom_writes") == writes
    assert arm.servos("torque_drops") == drops
    assert arm.driver.status().loop.eeprom_writes == 0


def test_a_restart_neither_drops_nor_moves_a_raised_arm(arm):
    arm.start_driver()
    arm.driver.command("group", "arm", [0.3, -0.5, 0.6, 0.2, 0.4, -0.3])
    wait_for(lambda: abs(arm.joint("waist") - 0.3) < 0.02)
    wait_for(lambda: all(abs(arm.speed(j)) < 0.01 for j in arm.configuration.groups["arm"]))
    before = {j: arm.joint(j) for j in arm.configuration.joint_order}
    arm.stop_driver()
    arm.start_driver()
    wait_for(lambda: len(arm.readings) > 50)
    after = {j: arm.joint(j) for j in arm.configuration.joint_order}
    assert after == pytest.approx(before, abs=0.01)
    assert all(drops <= 1 for drops in arm.servos("torque_drops").values())


def test_torque_comes_on_at_the_present_position_whatever_the_goal_register_says(arm):
    arm.server.call(lambda bus: bus.servo(1).table.set("Goal_Position", 3500))
    arm.server.call(lambda bus: bus.servo(9).table.set("Goal_PWM", 885))
    arm.start_driver()
    wait_for(lambda: len(arm.readings) > 30)
    assert abs(arm.joint("waist")) < 0.01
    assert abs(arm.joint("gripper")) < 0.01


def test_load_configs_false_writes_only_what_the_modes_need(make_arm):
    arm = make_arm(factory_settings=True)
    arm.start_driver(load_configs=False)
    assert arm.servo("elbow", "Max_Position_Limit") == 4095
    assert arm.servo("elbow", "Drive_Mode") == 4
    assert arm.servo("gripper", "Operating_Mode") == MODE_PWM


def test_a_missing_servo_at_the_start_stops_the_arm_and_is_named(arm):
    arm.tell("unplug_servo 6")
    arm.start_driver(expect=DriverState.STOPPED)
    assert "servo_missing:forearm_roll" in arm.driver.status().faults
    assert not arm.readings
    arm.tell("plug_servo 6")
    wait_for(lambda: "forearm_roll" not in arm.driver.status().missing)
    arm.driver.rearm().result(timeout=5)
    assert arm.driver.status().state is DriverState.RUNNING
    wait_for(lambda: arm.readings)


def test_a_shadow_that_is_far_off_is_refused_not_calibrated(make_arm):
    arm = make_arm(assembly_offsets_ticks={"elbow_shadow": 1500})
    arm.start_driver(expect=None)
    wait_for(lambda: "elbow_shadow" in arm.driver.status().problem)
    assert arm.servo("elbow_shadow", "Homing_Offset") == 0
    assert arm.servo("elbow_shadow", "Torque_Enable") == 0


def test_a_servo_that_answers_only_pings_is_woken(arm):
    arm.server.call(lambda bus: bus.servo(7).table.set("Status_Return_Level", 0))
    arm.start_driver()
    assert arm.servo("wrist_angle", "Status_Return_Level") == 2


def test_a_port_without_servos_is_reported_and_waited_for(arm):
    arm.server.call(lambda bus: [setattr(s, "unplugged", True) for s in bus.servos])
    arm.start_driver(expect=None)
    wait_for(lambda: "no servo answers" in arm.driver.status().problem)
    arm.server.call(lambda bus: [setattr(s, "unplugged", False) for s in bus.servos])
    arm.wait_state(DriverState.RUNNING)


def test_the_watchdog_is_off_after_a_clean_end(arm):
    arm.start_driver()
    assert arm.servo("elbow_shadow", "Bus_Watchdog") == 25
    arm.stop_driver()
    assert arm.servo("elbow_shadow", "Bus_Watchdog") == 0
    assert arm.servo("elbow_shadow", "Torque_Enable") == 1


@pytest.mark.parametrize(
    ("motor", "register", "left", "wanted"),
    [
        ("waist", "Homing_Offset", -300, 0),
        ("forearm_roll", "Homing_Offset", 250, 0),
        ("wrist_rotate", "Homing_Offset", -2300, 0),
        ("gripper", "Homing_Offset", 600, 0),
        ("wrist_angle", "Drive_Mode", 0x0C, 0x05),
        ("waist", "Secondary_ID", 6, 255),
        ("elbow", "Startup_Configuration", 3, 0),
        ("forearm_roll", "Operating_Mode", 4, 3),
        ("elbow_shadow", "Homing_Offset", 400, 0),
    ],
)
def test_what_another_program_left_in_a_servo_is_put_right(arm, motor, register, left, wanted):
    servo_id = arm.configuration.motors[motor].servo_id
    before = {joint: arm.joint(joint) for joint in arm.configuration.joint_order}
    arm.server.call(lambda bus: bus.servo(servo_id).table.set(register, left))
    arm.start_driver()
    wait_for(lambda: len(arm.readings) > 20)
    assert arm.servo(motor, register) == wanted
    assert any(f"{motor}.{register}: {left} -> {wanted}" in text for _, text in arm.events)
    # The joints are where they were, but for what their weight makes them give way, and are
    # reported there.
    now = {j: arm.joint(j) for j in before}
    assert now == pytest.approx(before, abs=0.08)
    assert now["wrist_rotate"] == pytest.approx(before["wrist_rotate"], abs=0.01)
    wait_for(lambda: arm.published() == pytest.approx({j: arm.joint(j) for j in before}, abs=0.01))


def test_an_offset_that_may_not_be_written_refuses_the_start(arm):
    arm.server.call(lambda bus: bus.servo(6).table.set("Homing_Offset", 250))
    arm.start_driver(expect=None, load_configs=False)
    wait_for(lambda: "Homing_Offset of forearm_roll is 250" in arm.driver.status().problem)
    assert not arm.readings
    assert set(arm.servos("torque_drops").values()) == {0}
    assert arm.servo("forearm_roll", "Torque_Enable") == 0


def test_a_shadow_that_nobody_calibrates_and_is_off_refuses_the_start(make_arm):
    arm = make_arm(assembly_offsets_ticks={"elbow_shadow": 60})
    arm.configuration = replace(arm.configuration, calibrated_shadows=frozenset())
    arm.start_driver(expect=None)
    wait_for(lambda: "elbow_shadow" in arm.driver.status().problem)
    assert arm.servo("elbow", "Torque_Enable") == 0


@pytest.mark.parametrize("off_rad", [0.05, 0.4])
@pytest.mark.parametrize("how", ["start", "rearm", "torque_enable", "reboot", "mode"])
def test_torque_never_comes_on_with_a_goal_away_from_the_joint(arm, how, off_rad):
    """A joint outside its servo's limits: the nearest goal would jerk it back."""
    narrow = {"Max_Position_Limit": 2048 - round(off_rad * 4096 / (2 * math.pi))}
    motors = dict(arm.configuration.motors)
    eeprom = motors["wrist_rotate"].eeprom
    if how == "start":
        motors["wrist_rotate"] = replace(motors["wrist_rotate"], eeprom={**eeprom, **narrow})
        arm.configuration = replace(arm.configuration, motors=motors)
        arm.start_driver(expect=DriverState.STOPPED)
        assert "outside_limits:wrist_rotate" in arm.driver.status().faults
        assert not any(arm.servo(motor, "Torque_Enable") for motor in motors)
    else:
        driver = arm.start_driver()
        driver.torque_enable("group", "arm", False).result(timeout=5)
        driver.set_registers("single", "wrist_rotate", narrow).result(timeout=5)
        if how == "rearm":
            driver.halt("stop").result(timeout=5)
        requests = {
            "rearm": lambda: driver.torque_enable("group", "all", True),
            "torque_enable": lambda: driver.torque_enable("group", "arm", True),
            "reboot": lambda: driver.reboot("single", "wrist_rotate", enable=True, smart=False),
            "mode": lambda: driver.set_operating_modes("group", "arm", Mode()),
        }
        if how in ("reboot", "mode"):
            motors["wrist_rotate"] = replace(motors["wrist_rotate"], eeprom={**eeprom, **narrow})
            driver._servos.by_name["wrist_rotate"].motor = motors["wrist_rotate"]
        with pytest.raises(ServiceFailed, match="wrist_rotate"):
            requests[how]().result(timeout=10)
    wait_for(lambda: len(arm.readings) > 20)
    assert arm.driver.status().state is DriverState.STOPPED
    assert arm.servo("wrist_rotate", "Torque_Enable") == 0
    assert abs(arm.joint("wrist_rotate")) < 0.02


def test_a_driver_that_ends_gives_back_the_profile_that_a_client_lent_itself(arm):
    arm.start_driver()
    for register in ("Profile_Velocity", "Profile_Acceleration"):
        arm.driver.set_registers("group", "arm", {register: 0}).result(timeout=5)
    assert arm.servo("shoulder_shadow", "Profile_Velocity") == 0
    arm.driver.command("group", "arm", [0.3, 0, 0, 0, 0, 0])
    wait_for(lambda: arm.joint("waist") > 0.1)
    arm.stop_driver()
    for motor in arm.configuration.motors:
        if motor != "gripper":
            assert arm.servo(motor, "Profile_Velocity") == 2000
            assert arm.servo(motor, "Profile_Acceleration") == 300
