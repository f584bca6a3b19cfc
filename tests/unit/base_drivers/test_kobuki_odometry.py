"""Odometry against the true motion of the emulated base, over a clean and a damaged line."""

import math
import random

import pytest
from base_drivers.kobuki import feedback
from base_drivers.kobuki.feedback import FeedbackError, decode
from base_drivers.kobuki.framing import FrameParser
from base_drivers.kobuki.odometry import KobukiOdometry, tick_difference
from base_drivers.kobuki_emulator.emulated_base import EmulatedKobuki
from base_drivers.velocity import Velocity
from emulators.line_noise import LineNoise


class Run:
    """An emulated base that drives about, and the odometry of what arrives."""

    def __init__(self, seed, noise=None):
        self.base = EmulatedKobuki(seed=seed)
        if noise is not None:
            self.base.to_host.noise = noise
        self.parser = FrameParser(feedback.LENGTHS)
        self.odometry = KobukiOdometry()
        self.random = random.Random(seed)
        self.jumps_m = []
        self.delay_s = 0.0
        self.rest()

    def drive(self, duration_s):
        end_s = self.base.now_s + duration_s
        turn_s = 0.0
        while self.base.now_s < end_s:
            if self.base.now_s >= turn_s:
                turn_s = self.base.now_s + self.random.uniform(0.3, 2.0)
                self.base.target = Velocity(
                    self.random.uniform(-0.5, 0.6), 0.0, self.random.uniform(-1.5, 1.5)
                )
            self.listen()

    def rest(self):
        """Stand still for so long that a good frame gets through."""
        self.base.target = Velocity()
        for _ in range(100):
            self.listen()

    def listen(self):
        data = self.base.advance(self.base.now_s + 0.0201)
        for payload in self.parser.feed(data):
            self.take(payload)

    def take(self, payload):
        try:
            said = decode(payload)
        except FeedbackError:
            return
        if said.basic is None or said.inertial is None:
            return
        before = self.odometry.pose
        self.odometry.update(said.basic, said.inertial, self.base.now_s + self.delay_s)
        after = self.odometry.pose
        self.jumps_m.append(math.hypot(after.x_m - before.x_m, after.y_m - before.y_m))

    def error_m(self):
        pose, body = self.odometry.pose, self.base.body
        return math.hypot(pose.x_m - body.x_m, pose.y_m - body.y_m)

    def error_rad(self):
        return math.remainder(self.odometry.pose.yaw_rad - self.base.body.yaw_rad, math.tau)


@pytest.mark.parametrize("seed", [1, 7])
def test_the_pose_is_right_though_every_counter_wraps(seed):
    run = Run(seed)
    run.drive(150.0)
    assert run.base.body.travelled_m > 20.0
    assert run.odometry.rejected == run.odometry.restarts == 0
    assert run.error_m() < 0.003 * run.base.body.travelled_m
    assert abs(run.error_rad()) < 0.002


@pytest.mark.parametrize("seed", [2, 3])
def test_one_percent_of_damaged_bytes_makes_no_jump(seed):
    run = Run(seed, LineNoise(corrupt=0.01, drop=0.001))
    run.drive(150.0)
    run.rest()
    assert run.parser.skipped_bytes > 0.2 * 150 * 50 * 90
    assert run.error_m() < 0.01 * run.base.body.travelled_m
    assert abs(run.error_rad()) < 0.01
    # 0.7 m/s over the longest gap between two good frames.
    assert max(run.jumps_m) < 0.35


def test_forged_frames_with_a_right_checksum_make_no_jump():
    """What one damaged frame of 256 would do."""
    clean, forged = Run(5), Run(5)
    generator = random.Random(5)
    take = forged.take

    def forge(payload):
        if generator.random() < 0.02:
            data = bytearray(payload[0].data)
            for position in generator.sample(range(9), 2):
                data[position] ^= generator.randrange(1, 256)
            inertial = bytearray(payload[2].data)
            inertial[generator.randrange(2)] ^= generator.randrange(1, 256)
            parts = list(payload)
            parts[0] = type(parts[0])(parts[0].identifier, bytes(data))
            parts[2] = type(parts[2])(parts[2].identifier, bytes(inertial))
            payload = parts
        take(payload)

    forged.take = forge
    clean.drive(60.0)
    forged.drive(60.0)
    forged.rest()
    assert forged.odometry.rejected > 10
    assert forged.odometry.restarts == 0
    assert forged.error_m() < 0.02 * forged.base.body.travelled_m
    assert max(forged.jumps_m) < max(clean.jumps_m) * 3.0


def test_a_busy_host_loses_nothing_and_a_restart_moves_nothing():
    run = Run(11)
    for delay_s in (0.0, 1.5, 0.3, 0.0):
        run.delay_s = delay_s
        run.drive(3.0)
    assert run.odometry.rejected == 0 and run.error_m() < 0.02
    before = run.odometry.pose
    run.base.power_cycle()
    run.base.advance(run.base.now_s + 3.0)
    run.rest()
    after = run.odometry.pose
    assert run.odometry.restarts == 1
    assert math.hypot(after.x_m - before.x_m, after.y_m - before.y_m) < 0.01


def test_ticks_wrap_both_ways():
    assert tick_difference(3, 65530) == 9
    assert tick_difference(65530, 3) == -9
