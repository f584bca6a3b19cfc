"""What the driver does to the servos when it starts, stops and starts again."""

import pytest
from emulated_arm import wait_for
from widowx_control.xs_driver.control_table import MODE_PWM
from widowx_control.xs_driver.driver_types import DriverState


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
