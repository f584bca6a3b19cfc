"""A guard with a fake clock, a healthy arm that follows at once, and a 50 Hz stream of commands."""

import math

import numpy as np
from widowx_control.guard.checks import GuardConfig
from widowx_control.guard.core import CommandTimes, Guard, Measurement
from widowx_control.guard.servo_health import (
    ERROR_REGISTER,
    TEMPERATURE_REGISTER,
    VOLTAGE_REGISTER,
)
from widowx_control.kinematics import NAMED_POSES

PERIOD_S = 0.02
START = np.array(NAMED_POSES["start"])


class Stream:
    """Feeds a guard as the node does; `step` is one control period."""

    def __init__(self, sensor=True, **thresholds):
        self.guard = Guard(GuardConfig(**thresholds))
        self.now_s = 100.0
        self.q = START.copy()
        self.finger_m = 0.03
        self.currents_ma = np.zeros(6)
        self.sensor = sensor
        self.follows = True
        self.sag_rad = np.zeros(6)
        self.bus = True
        self.answers = True
        self.registers = {ERROR_REGISTER: 0, TEMPERATURE_REGISTER: 35, VOLTAGE_REGISTER: 120}
        self.sick: dict[tuple[str, str], int] = {}
        self.sent = []  # (time, joints)
        self.pwms = []
        self.step()

    def step(self, arm=None, *, gripper=None, age_s=0.001, name="arm", dt_s=PERIOD_S):
        """One period: joint states, servo registers, a command, the watchdog."""
        self.now_s += dt_s
        self.measure()
        self.ask()
        if arm is not None:
            self.take(self.guard.on_arm_command(name, list(arm), self.times(age_s)))
        if gripper is not None:
            self.take(self.guard.on_gripper_command("gripper", gripper, self.times(age_s)))
        self.take(self.guard.tick(self.now_s, self.now_s))
        return self.status

    def run(self, seconds, arm=None, **how):
        for _ in range(math.ceil(seconds / PERIOD_S)):
            self.step(arm, **how)
        return self.status

    def times(self, age_s):
        return CommandTimes(self.now_s, self.now_s, age_s, self.now_s - age_s)

    def measure(self):
        if self.bus:
            currents_ma = self.currents_ma.copy() if self.sensor else None
            measurement = Measurement(self.q.copy(), self.finger_m, currents_ma)
            self.guard.on_joint_states(measurement, self.now_s, self.now_s)

    def ask(self):
        for _ in range(16 if self.answers else 0):
            question = self.guard.health.next_question()
            values = [
                self.sick.get((servo, question.register), self.registers[question.register])
                for servo in question.servos
            ]
            self.guard.health.answer(question, values if self.bus else None, self.now_s)

    def take(self, output):
        if output.arm_rad is not None:
            self.sent.append((self.now_s, output.arm_rad.copy()))
            if self.follows:
                self.q = output.arm_rad + self.sag_rad
        if output.gripper_pwm is not None:
            self.pwms.append(output.gripper_pwm)

    @property
    def status(self):
        return self.guard.status(self.now_s)

    @property
    def code(self):
        finding = self.status.finding
        return finding.code if finding else None
