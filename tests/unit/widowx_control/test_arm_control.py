"""The arm controller's promises, under ordinary, blocked and hostile use."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from widowx_control.arm_control import ArmControl, ArmControlConfig, ArmMode, CommandCode
from widowx_control.bridge_spaces import compose_delta
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_UPPER_RAD,
    NAMED_POSES,
    ArmKinematics,
)
from widowx_control.servo_stiffness import FACTORY_P_GAIN, servo_stiffness_nm_rad

DT_S = 0.02
FINGER_M = 0.03
KINEMATICS = ArmKinematics()
CONFIG = ArmControlConfig()
LOWER = JOINT_LOWER_RAD + CONFIG.joint_limit_margin_rad
UPPER = JOINT_UPPER_RAD - CONFIG.joint_limit_margin_rad


def controller(q=NAMED_POSES["start"], config=CONFIG):
    control = ArmControl(config, KINEMATICS)
    control.reset(q, FINGER_M)
    return control


class PerfectArm:
    """Follows at once, or not at all when blocked; keeps all joint positions it was sent."""

    def __init__(self, control, blocked=False):
        self.control = control
        self.q = control.commanded_joints_rad
        self.blocked = blocked
        self.sent = [self.q]
        self.pwm = []

    def run(self, seconds):
        for _ in range(round(seconds / DT_S)):
            command = self.control.update(DT_S, self.q, FINGER_M)
            self.sent.append(command.arm_positions_rad)
            self.pwm.append(command.gripper_pwm)
            if not self.blocked:
                self.q = command.arm_positions_rad

    def steps(self):
        return np.abs(np.diff(self.sent, axis=0))


def rotation_angle(a, b):
    return math.acos(np.clip((np.trace(a[:3, :3] @ b[:3, :3].T) - 1) / 2, -1, 1))


def test_a_sequence_of_actions_lands_where_the_definition_says():
    rng = np.random.default_rng(11)
    control = controller()
    arm = PerfectArm(control)
    expected = control.commanded_pose
    for _ in range(12):
        action = np.append(rng.uniform(-0.02, 0.02, 3), rng.uniform(-0.1, 0.1, 3))
        expected = compose_delta(expected, control.measured_pose[:3, 3], action)
        assert control.command([*action, 1.0]).code is CommandCode.ACCEPTED
        arm.run(0.2)
        np.testing.assert_allclose(control.commanded_pose, expected, atol=1e-9)
        np.testing.assert_allclose(KINEMATICS.forward(arm.q), expected, atol=2e-3)


def test_the_move_takes_the_stated_part_of_the_period_without_jumps():
    control = controller()
    arm = PerfectArm(control)
    for seconds in (0.2, 0.1, 0.06, 0.2):  # late and early commands: re-planned mid-motion
        assert control.command([0.03, 0.02, -0.02, 0.1, 0, 0.1, 1]).accepted
        arm.run(seconds)
    arm.run(0.5)
    moving = arm.steps().max(axis=1) > 0
    assert moving[:8].all()
    assert not moving[8:10].any()  # 0.16 s of 0.2 s
    # No step is larger than the speed limit, and speed changes gradually.
    assert arm.steps().max() <= CONFIG.max_joint_speed_rad_s * DT_S + 1e-9
    assert np.abs(np.diff(arm.sent, n=2, axis=0)).max() < 0.03


def test_a_blocked_arm_does_not_wind_up():
    control = controller()
    arm = PerfectArm(control, blocked=True)
    for _ in range(30):
        control.command([0.0, 0.05, 0.0, 0.25, 0.0, 0.0, 1.0])
        arm.run(0.2)
        error_m = np.linalg.norm(control.commanded_pose[:3, 3] - control.measured_pose[:3, 3])
        assert error_m <= CONFIG.max_position_error_m + 1e-6
        assert rotation_angle(control.commanded_pose, control.measured_pose) <= 0.35 + 1e-6
    assert control.counters["limited_position_error"] > 20
    assert control.counters["limited_rotation_error"] > 20
    assert np.linalg.norm(KINEMATICS.forward(arm.sent[-1])[:3, 3] - [0.3, 0, 0.15]) < 0.075


def test_an_unreachable_pose_does_not_advance_the_commanded_one():
    config = ArmControlConfig(workspace_low_m=(-1, -1, -1), workspace_high_m=(1, 1, 1))
    control = controller(NAMED_POSES["home"], config)
    arm = PerfectArm(control)
    for _ in range(25):
        verdict = control.command([0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
        arm.run(0.2)
        reached = KINEMATICS.forward(arm.q)
        np.testing.assert_allclose(control.commanded_pose[:3, 3], reached[:3, 3], atol=1e-2)
    assert verdict.code in (CommandCode.CLOSEST_REACHABLE, CommandCode.UNREACHABLE)
    assert verdict.reason
    # It comes back at once: nothing has wound up.
    assert control.command([-0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).accepted
    before = KINEMATICS.forward(arm.q)[0, 3]
    arm.run(0.2)
    assert KINEMATICS.forward(arm.q)[0, 3] < before - 0.03


def test_workspace_box_holds_and_an_arm_outside_is_not_pulled_in():
    control = controller()
    arm = PerfectArm(control)
    for _ in range(10):
        control.command([0.0, 0.0, -0.05, 0.0, 0.0, 0.0, 1.0])
        arm.run(0.2)
    assert control.commanded_pose[2, 3] == pytest.approx(CONFIG.workspace_low_m[2])
    assert control.counters["limited_workspace"] > 0

    low, high = (0.10, -0.25, 0.0), (0.25, 0.25, 0.10)  # start is beyond it in x and z
    outside = controller(config=ArmControlConfig(workspace_low_m=low, workspace_high_m=high))
    outside.command([0.0, 0.01, 0.0, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(outside.commanded_pose[:3, 3], [0.3, 0.01, 0.15], atol=1e-3)
    outside.command([0.02, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(outside.commanded_pose[:3, 3], [0.3, 0.01, 0.15], atol=1e-3)
    outside.command([-0.02, 0.0, -0.02, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(outside.commanded_pose[:3, 3], [0.28, 0.01, 0.13], atol=1e-3)


numbers = st.one_of(
    st.floats(-0.05, 0.05),
    st.floats(-10, 10),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0]),
)
events = st.lists(
    st.tuples(
        st.sampled_from(["command", "command", "command", "hold", "move", "lose", "push"]),
        st.lists(numbers, min_size=6, max_size=8),
        st.integers(0, 15),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(events=events, pose=st.sampled_from(sorted(NAMED_POSES)), seed=st.integers(0, 2**16))
def test_nothing_makes_the_joints_leave_their_limits_or_leap(events, pose, seed):
    rng = np.random.default_rng(seed)
    control = controller(NAMED_POSES[pose])
    arm = PerfectArm(control)
    for kind, values, updates in events:
        if kind == "command":
            verdict = control.command(values)
            assert verdict.accepted or verdict.reason
            assert np.isfinite(values).all() or not verdict.accepted
        elif kind == "hold":
            control.hold("asked")
        elif kind == "move":
            control.move_to(rng.uniform(-4, 4, 6), 0.1 + abs(rng.normal()), True)
        elif kind == "lose":
            control.update(DT_S, np.full(6, math.nan), math.nan)
        else:
            arm.q = np.clip(arm.q + rng.normal(0, 0.3, 6), JOINT_LOWER_RAD, JOINT_UPPER_RAD)
        arm.run(updates * DT_S)
    sent = np.array(arm.sent)
    assert np.isfinite(sent).all()
    assert (sent >= JOINT_LOWER_RAD - 1e-9).all()
    assert (sent <= JOINT_UPPER_RAD + 1e-9).all()
    assert arm.steps().max(initial=0) <= CONFIG.max_joint_speed_rad_s * 2 * DT_S + 1e-9
    assert np.isfinite(control.commanded_pose).all()


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ([0.01] * 6, CommandCode.WRONG_LENGTH),
        ([[0.01] * 7], CommandCode.WRONG_LENGTH),
        ([math.nan, 0, 0, 0, 0, 0, 1], CommandCode.NON_FINITE),
        ([0, 0, 0, 0, 0, 0, math.inf], CommandCode.NON_FINITE),
    ],
)
def test_a_refused_command_changes_nothing(action, code):
    control = controller()
    arm = PerfectArm(control)
    control.command([0.02, 0, 0, 0, 0, 0, 0])
    arm.run(0.06)
    pose, gripper = control.commanded_pose, control.gripper_target
    verdict = control.command(action)
    assert not verdict.accepted
    assert verdict.code is code
    assert control.counters[code] == 1
    np.testing.assert_array_equal(control.commanded_pose, pose)
    assert control.gripper_target == gripper
    arm.run(0.2)
    np.testing.assert_allclose(KINEMATICS.forward(arm.q)[:3, 3], pose[:3, 3], atol=1e-3)


def test_steps_beyond_the_action_space_are_clipped_and_counted():
    control = controller()
    verdict = control.command([0.2, -0.0501, 0, 0, 0, 0, 7])
    assert verdict.code is CommandCode.LIMITED
    assert control.counters["limited_step"] == 1
    assert control.gripper_target == 1.0
    np.testing.assert_allclose(
        control.commanded_pose[:3, 3], [0.3 + 0.0495, -0.0495, 0.15], atol=1e-3
    )


@pytest.mark.parametrize("step_s", [0.1, 0.2, 0.5])
def test_motion_ends_when_commands_stop(step_s):
    config = ArmControlConfig(max_joint_speed_rad_s=0.2)  # far behind: the motion would go on
    control = controller(config=config)
    arm = PerfectArm(control)
    control.command([0.05, 0.05, 0, 0, 0, 0, 1], step_s)
    arm.run(max(2 * step_s, 0.4))
    last_move_s = (np.flatnonzero(arm.steps().max(axis=1) > 0)[-1] + 1) * DT_S
    assert last_move_s <= max(CONFIG.command_timeout_periods * step_s, 0.2) + 0.03 + 2 * DT_S
    assert control.mode is ArmMode.HOLDING
    assert "no command" in control.reason
    # The commanded pose is where it stopped, so the next delta starts there.
    np.testing.assert_allclose(control.commanded_pose, KINEMATICS.forward(arm.q), atol=1e-9)


def stream(rate_hz, phase_s=0.0, jitter_s=0.0, seconds=2.0, distance_m=0.1):
    """Ask for a distance along x at a rate, on a control loop with a clock of its own."""
    rng = np.random.default_rng(5)
    control = controller()
    arm = PerfectArm(control)
    n = round(seconds * rate_hz)
    due_s = phase_s + np.arange(n) / rate_hz + rng.uniform(-jitter_s, jitter_s, n)
    for tick in range(round(seconds / DT_S) + 50):
        while len(due_s) and due_s[0] <= tick * DT_S:
            verdict = control.command([distance_m / n, 0, 0, 0, 0, 0, 1], 1 / rate_hz)
            assert verdict.code is CommandCode.ACCEPTED
            due_s = due_s[1:]
        arm.run(DT_S)
    return control, KINEMATICS.forward(arm.q)[:3, 3] - KINEMATICS.forward(arm.sent[0])[:3, 3]


@pytest.mark.parametrize("rate_hz", [0.5, 2, 5, 7, 10, 12.5, 15, 20, 24, 25, 29.97, 30, 40, 45, 50])
def test_the_arm_goes_as_far_as_it_is_told_at_any_rate(rate_hz):
    for phase_s in (0.0, 0.003, 0.01, 0.0199):
        for jitter_s in (0.0, 1e-3):
            distance_m = 0.1 if rate_hz >= 5 else 0.03
            control, moved_m = stream(rate_hz, phase_s, jitter_s, max(2.0, 2 / rate_hz), distance_m)
            np.testing.assert_allclose(moved_m, [distance_m, 0, 0], atol=1e-3)
            assert control.counters["command_timeout"] == 1
            assert control.mode is ArmMode.HOLDING


@pytest.mark.parametrize("step_s", [0.02, 0.025, 0.033, 0.05, 0.067, 0.1, 0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("distance_m", [0.002, 0.01, 0.05])
def test_one_command_moves_the_arm_as_far_as_it_says(step_s, distance_m):
    control = controller()
    arm = PerfectArm(control)
    before_m = control.measured_pose[:3, 3]
    assert control.command([-distance_m, 0, 0, 0, 0, 0, 1], step_s).accepted
    arm.run(2.5)
    np.testing.assert_allclose(
        KINEMATICS.forward(arm.q)[:3, 3] - before_m, [-distance_m, 0, 0], atol=5e-4
    )
    moving = np.flatnonzero(arm.steps().max(axis=1) > 1e-9)
    assert (moving[-1] + 1) * DT_S <= max(0.8 * step_s, 0.2) + 0.05


def test_a_wrist_at_the_end_of_its_range_does_not_stop_the_arm():
    control = controller()
    arm = PerfectArm(control)
    for _ in range(24):
        control.command([0, 0, 0, 0, 0, 0.25, 1])
        arm.run(0.2)
    before = KINEMATICS.forward(arm.q)
    for _ in range(5):
        verdict = control.command([0, 0.01, 0, 0, 0, 0.25, 1])
        assert verdict.accepted
        assert verdict.code is CommandCode.CLOSEST_REACHABLE
        arm.run(0.2)
    after = KINEMATICS.forward(arm.q)
    np.testing.assert_allclose(after[:3, 3] - before[:3, 3], [0, 0.05, 0], atol=3e-3)
    assert rotation_angle(before, after) < 0.25  # the waist turned, which gave the wrist room
    control.command([0, 0, 0, 0, 0, -0.25, 1])
    arm.run(0.3)
    assert rotation_angle(after, KINEMATICS.forward(arm.q)) == pytest.approx(0.25, abs=0.02)


def test_silence_after_a_finished_step_keeps_the_commanded_pose():
    control = controller()
    arm = PerfectArm(control)
    control.command([0.02, 0, 0, 0, 0, 0, 1])
    arm.run(0.2)
    pose = control.commanded_pose
    arm.q = arm.q + 0.01  # the arm sags under its weight
    arm.blocked = True
    arm.run(1.0)
    np.testing.assert_array_equal(control.commanded_pose, pose)


@pytest.mark.parametrize("pose", ["neutral", "sleep", "home"])
def test_named_poses_are_reached_smoothly_and_refuse_commands_meanwhile(pose):
    control = controller()
    arm = PerfectArm(control)
    planned_s = control.move_to(NAMED_POSES[pose], 0.1, open_gripper=True)
    distance = np.abs(np.array(NAMED_POSES[pose]) - NAMED_POSES["start"]).max()
    assert planned_s == pytest.approx(1.5 * distance / CONFIG.max_joint_speed_rad_s)
    arm.run(planned_s / 2)
    assert control.command([0.01, 0, 0, 0, 0, 0, 0]).code is CommandCode.BUSY
    arm.run(planned_s / 2 + 0.1)
    np.testing.assert_allclose(arm.q, NAMED_POSES[pose], atol=1e-9)
    np.testing.assert_allclose(control.commanded_pose, KINEMATICS.forward(arm.q), atol=1e-9)
    assert control.gripper_target == 1.0
    assert control.mode is ArmMode.HOLDING
    assert arm.steps().max() <= CONFIG.max_joint_speed_rad_s * DT_S * (1 + 1e-9)


def test_a_named_pose_motion_waits_for_a_blocked_arm():
    control = controller()
    arm = PerfectArm(control, blocked=True)
    control.move_to(NAMED_POSES["sleep"], 1.0, open_gripper=False)
    arm.run(5.0)
    assert np.abs(arm.sent[-1] - arm.q).max() < CONFIG.max_joint_error_rad + 0.1
    arm.blocked = False
    arm.run(5.0)
    np.testing.assert_allclose(arm.q, NAMED_POSES["sleep"], atol=1e-9)


def test_nothing_is_sent_before_reset():
    control = ArmControl(CONFIG, KINEMATICS)
    assert control.command([0] * 7).code is CommandCode.NOT_READY
    assert control.update(DT_S, NAMED_POSES["start"], FINGER_M).arm_positions_rad is None
    with pytest.raises(ValueError, match="finite"):
        control.reset([math.nan] * 6, FINGER_M)


@pytest.mark.parametrize(
    "values",
    [
        {"max_position_error_m": 1.0},
        {"step_s": math.nan},
        {"workspace_low_m": (0.5, 0.0, 0.0)},
        {"workspace_high_m": (math.nan, 1.0, 1.0)},
        {"max_joint_speed_rad_s": 10.0},
    ],
)
def test_configuration_out_of_range_is_refused_by_name(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ArmControlConfig(**values)


GAINS = [FACTORY_P_GAIN] * 5 + [640]
STIFFNESS_NM_RAD = servo_stiffness_nm_rad(GAINS)


class SaggingArm(PerfectArm):
    """Its servos hold the arm's weight by a position error only, as real ones do."""

    def run(self, seconds):
        for _ in range(round(seconds / DT_S)):
            goals = self.control.update(DT_S, self.q, FINGER_M).arm_positions_rad
            for _ in range(5):  # where load and stiffness balance
                self.q = goals - KINEMATICS.gravity_torques_nm(self.q) / STIFFNESS_NM_RAD


@pytest.mark.parametrize("pose", ["home", "start", "neutral"])
def test_goals_bring_sagging_servos_to_where_the_arm_is_wanted(pose):
    errors = {}
    for gains in (None, GAINS):
        control = controller()
        control.use_servo_gains(gains)
        arm = SaggingArm(control)
        control.move_to(NAMED_POSES[pose], 1.0, open_gripper=False)
        arm.run(2.0)
        errors[gains is None] = np.abs(arm.q - np.clip(NAMED_POSES[pose], LOWER, UPPER)).max()
    assert errors[True] > 0.02
    assert errors[False] < 0.004


class TrailingArm(SaggingArm):
    """Its servos also need a position error for their speed: they settle exponentially."""

    TIME_CONSTANT_S = 0.045

    def run(self, seconds):
        for _ in range(round(seconds / DT_S)):
            goals = self.control.update(DT_S, self.q, FINGER_M).arm_positions_rad
            rest = goals - KINEMATICS.gravity_torques_nm(self.q) / STIFFNESS_NM_RAD
            self.q = rest + (self.q - rest) * math.exp(-DT_S / self.TIME_CONSTANT_S)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_servos_that_trail_their_goals_arrive_within_the_period(axis):
    away_m = {}
    for gains in (None, GAINS):
        control = controller()
        control.use_servo_gains(gains)
        arm = TrailingArm(control)
        control.move_to(NAMED_POSES["start"], 1.0, open_gripper=False)
        arm.run(2.0)
        errors = []
        for _ in range(3):
            control.command(np.eye(7)[axis] * 0.04)
            arm.run(0.2)
            errors.append(KINEMATICS.forward(arm.q)[:3, 3] - control.commanded_pose[:3, 3])
        away_m[gains is None] = np.abs(errors).max()
    assert away_m[True] > 0.008
    assert away_m[False] < 0.004


def test_taking_over_a_sagging_arm_does_not_let_it_down():
    control = controller()
    control.use_servo_gains(GAINS)
    arm = SaggingArm(control)
    before = arm.q
    for _ in range(5):
        control.reset(arm.q, FINGER_M)
        arm.run(0.2)
    assert np.abs(arm.q - before).max() < 0.004


def test_goals_for_sagging_servos_stay_within_the_joint_limits():
    control = controller()
    control.use_servo_gains([60] * 6)
    rng = np.random.default_rng(3)
    for _ in range(50):
        control.move_to(rng.uniform(JOINT_LOWER_RAD, JOINT_UPPER_RAD), 0.1, open_gripper=False)
        for _ in range(100):
            goals = control.update(DT_S, control.commanded_joints_rad, FINGER_M).arm_positions_rad
            assert (goals >= LOWER - 1e-9).all() and (goals <= UPPER + 1e-9).all()


@pytest.mark.parametrize("load", [0.3, 0.75])
def test_a_blocked_arm_does_not_overload_its_servos(load):
    control = controller(config=ArmControlConfig(max_servo_load=load))
    control.use_servo_gains(GAINS)
    arm = PerfectArm(control, blocked=True)
    for _ in range(10):
        control.command([0.0, 0.0, -0.05, 0.0, 0.25, 0.0, 1.0])
        arm.run(0.2)
    error = np.abs(np.array(arm.sent[1:]) - arm.q)
    torque = error * STIFFNESS_NM_RAD / np.array([4.1, 8.2, 8.2, 4.1, 4.1, 1.5])
    assert load - 0.01 < torque.max() < load + 0.01
    assert control.counters["limited_servo_load"] > 0


@pytest.mark.parametrize("step_s", [0.02, 0.1, 0.2, 0.5])
def test_a_command_too_far_for_the_speed_limit_moves_the_arm_no_longer_than_its_period(step_s):
    control = controller(config=ArmControlConfig(max_joint_speed_rad_s=0.3))
    arm = PerfectArm(control)
    control.command([0.0, 0.05, 0.0, 0.0, 0.0, 0.25, 1.0], step_s)
    arm.run(1.0)
    moving = np.flatnonzero(arm.steps().max(axis=1) > 1e-9)
    time_s = max(step_s, 0.2)
    assert time_s <= (moving[-1] + 1) * DT_S <= time_s + CONFIG.stop_s + 2 * DT_S
    measured = KINEMATICS.forward(arm.q)
    assert np.abs(control.commanded_pose - measured).max() < 1e-6


def test_goals_rest_within_0_3_s_of_the_last_command_though_the_arm_still_settles():
    control = controller(config=ArmControlConfig(max_servo_load=0.3))
    control.use_servo_gains(GAINS)
    q = control.commanded_joints_rad
    sent = []
    for tick in range(40):
        if tick in (0, 10):
            control.command([0.0, 0.04, 0.0, 0.0, 0.0, 0.1, 1.0])
        goals = control.update(DT_S, q, FINGER_M).arm_positions_rad
        sent.append(goals)
        q = q + 0.1 * (goals - q)
    assert control.counters["limited_servo_load"] > 0
    moving = np.abs(np.diff(sent, axis=0)).max(axis=1) > 1e-9
    assert moving[10:20].any() and not moving[10 + 14 :].any()
    control.command([-0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert np.abs(control.update(DT_S, q, FINGER_M).arm_positions_rad - sent[-1]).max() > 1e-4


def test_useless_gains_are_refused():
    control = controller()
    for gains in ([800] * 5, [800, 800, 0, 800, 800, 640], []):
        with pytest.raises(ValueError, match="Position_P_Gain"):
            control.use_servo_gains(gains)


@pytest.mark.parametrize("gains", [None, GAINS])
def test_an_arm_that_fell_limp_stays_down_when_its_torque_returns(gains):
    control = controller()
    control.use_servo_gains(gains)
    arm = PerfectArm(control)
    arm.run(0.5)
    arm.blocked = True  # without torque: it goes where weight takes it
    for _ in range(100):
        arm.q = arm.q + np.array([0.0, 0.012, 0.008, 0.0, -0.004, 0.0])
        arm.run(DT_S)
    arm.run(1.0)
    fallen = arm.q
    arm.blocked = False
    arm.run(1.0)
    assert np.abs(control.commanded_joints_rad - fallen).max() < 1e-6
    assert control.counters["yielded"] == 1
    assert control.command([0.0, 0.0, 0.01, 0.0, 0.0, 0.0, 1.0]).accepted


def test_a_held_arm_that_is_pushed_a_little_keeps_its_pose():
    control = controller()
    arm = PerfectArm(control, blocked=True)
    wanted = control.commanded_joints_rad
    arm.q = wanted + 0.1
    arm.run(2.0)
    assert np.array_equal(control.commanded_joints_rad, wanted)


def test_a_motion_to_a_named_pose_starts_straight_up_when_the_gripper_is_low():
    control = controller()
    arm = PerfectArm(control)
    for _ in range(6):
        control.command([0.02, 0.02, -0.02, 0.0, 0.0, 0.0, 0.0])
        arm.run(0.2)
    arm.run(0.5)
    low = KINEMATICS.forward(arm.q)[:3, 3]
    assert low[2] < 0.06
    begin = len(arm.sent)
    planned_s = control.move_to(NAMED_POSES["start"], 1.5, open_gripper=True)
    arm.run(planned_s + 0.2)
    path = np.array([KINEMATICS.forward(q)[:3, 3] for q in arm.sent[begin:]])
    still_low = path[path[:, 2] < 0.09]
    assert np.abs(still_low[:, :2] - low[:2]).max() < 0.01
    assert control.mode is ArmMode.HOLDING
    assert np.abs(arm.q - NAMED_POSES["start"]).max() < 1e-3


def test_a_motion_that_is_held_while_it_lifts_goes_no_further():
    control = controller()
    arm = PerfectArm(control)
    for _ in range(6):
        control.command([0.0, 0.0, -0.02, 0.0, 0.0, 0.0, 0.0])
        arm.run(0.2)
    control.move_to(NAMED_POSES["start"], 1.5, open_gripper=False)
    arm.run(0.2)
    control.hold("stop")
    arm.run(0.2)
    held = arm.q
    arm.run(2.0)
    assert np.array_equal(arm.q, held)
