"""The kitchen's arm behind emulated servos: weight, torque, goals and grip are real there.

The bus is stepped by hand: no thread, no clock, no port.
"""

import math
import threading

import numpy as np
import pytest
from robot_sim.kitchen import Kitchen
from robot_sim.servo_bus import KitchenPlant
from robot_sim.tasks import TASKS
from servo_bus_emulator.widowx import widowx_bus
from widowx_control.kinematics import JOINT_NAMES, ArmKinematics
from widowx_control.servo_stiffness import FACTORY_P_GAIN, servo_stiffness_nm_rad
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.control_table import (
    CENTRE_TICKS,
    DRIVE_REVERSE,
    MODE_PWM,
    RAD_PER_TICK,
)
from widowx_control.xs_driver.package_files import default_modes, default_motors

CONFIGURATION = load_configuration(default_motors(), default_modes())
POSE = (0.2, -0.4, 0.5, 0.1, 0.9, -0.2)


class Arm:
    """The bus, and the arm's servos by joint."""

    def __init__(self, pose):
        self.kitchen = Kitchen()
        self.kitchen.set_layout(TASKS["open_drawer"].layout(3))
        self.kitchen.set_arm(pose, 0.02)
        plant = KitchenPlant(self.kitchen, threading.Lock())
        self.bus = widowx_bus(CONFIGURATION, plant=plant)

    def write(self, joint, register, value):
        for servo in self.bus.servos:
            if servo.joint == joint:
                entry = servo.model.registers[register]
                raw = value.to_bytes(entry.size, "little", signed=value < 0)
                assert servo.write(entry.address, raw) == 0, (joint, register)

    def torque(self, enabled):
        for joint in JOINT_NAMES:
            self.write(joint, "Torque_Enable", int(enabled))

    def go(self, pose):
        for joint, angle in zip(JOINT_NAMES, pose, strict=True):
            self.write(joint, "Goal_Position", CENTRE_TICKS + round(angle / RAD_PER_TICK))

    def run(self, duration_s):
        rng = np.random.default_rng(5)
        end_s = self.bus.now_s + duration_s
        while self.bus.now_s < end_s:
            # As packets do, at any time.
            self.bus.advance(min(end_s, self.bus.now_s + float(rng.uniform(1e-4, 0.012))))

    @property
    def position(self):
        motion = self.bus.joint_motion()
        return np.array([motion[name].position_rad for name in JOINT_NAMES])

    @property
    def speed(self):
        return max(abs(m.velocity_rad_s) for m in self.bus.joint_motion().values())


def test_an_arm_without_torque_falls_and_stays_down():
    arm = Arm(POSE)
    arm.run(0.4)
    assert np.abs(arm.position - POSE).max() > 0.1
    arm.run(3.0)
    assert arm.kitchen.end_effector_m()[2] < 0.1
    assert arm.speed < 0.05


def test_servos_hold_and_give_way_by_load_over_stiffness():
    arm = Arm(POSE)
    arm.torque(True)
    arm.go(POSE)
    arm.run(2.5)
    torques = ArmKinematics().gravity_torques_nm(arm.position)
    sag = torques / servo_stiffness_nm_rad([FACTORY_P_GAIN] * 5 + [640])
    assert np.abs(sag).max() > 0.02
    # Friction may hold a joint before its load is balanced.
    assert np.abs(POSE - arm.position - sag).max() < 0.012
    assert arm.speed < 0.01

    arm.torque(False)
    arm.run(0.5)
    assert np.abs(arm.position - POSE).max() > 0.1


def test_a_goal_is_followed_with_the_servos_profile():
    arm = Arm(POSE)
    for joint in JOINT_NAMES:
        for register, value in (("Profile_Velocity", 1000), ("Profile_Acceleration", 200)):
            for servo in arm.bus.servos:
                if servo.joint == joint:
                    servo.table.set("Drive_Mode", servo.table.get("Drive_Mode") | 4)
            arm.write(joint, register, value)
    arm.torque(True)
    arm.go(POSE)
    arm.run(1.5)
    start = arm.position
    arm.go((0.8, *POSE[1:]))
    arm.run(0.5)
    assert arm.position[0] - start[0] == pytest.approx(0.3, abs=0.06)
    arm.run(1.5)
    assert arm.position[0] == pytest.approx(0.8, abs=0.02)


def test_pwm_opens_and_closes_the_gripper():
    arm = Arm(POSE)
    arm.write("gripper", "Operating_Mode", MODE_PWM)
    arm.write("gripper", "Torque_Enable", 1)
    for pwm, expected in ((250, 0.037), (-250, 0.015)):
        arm.write("gripper", "Goal_PWM", pwm)
        arm.run(2.0)
        assert arm.kitchen.finger_m == pytest.approx(expected, abs=0.001)


def test_the_arm_moves_the_same_however_the_bus_divides_time():
    def fall(step_s):
        arm = Arm(POSE)
        for _ in range(round(0.5 / step_s)):
            arm.bus.advance(arm.bus.now_s + step_s)
        return arm.position

    assert np.abs(fall(0.005) - fall(0.00125)).max() < math.radians(0.5)


def test_mirrored_servos_of_a_pair_pull_together():
    arm = Arm(POSE)
    arm.torque(True)
    arm.go(POSE)
    arm.run(1.0)
    pair = [servo for servo in arm.bus.servos if servo.joint == "shoulder"]
    reverse = [servo.table.get("Drive_Mode") & DRIVE_REVERSE for servo in pair]
    assert sorted(map(bool, reverse)) == [False, True]
    # Both report the joint in the same sense, and neither works against the other.
    loads = [int.from_bytes(servo.read(126, 2)[1], "little", signed=True) for servo in pair]
    assert loads[0] * loads[1] > 0
