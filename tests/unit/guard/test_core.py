"""Every code of the guard through its public functions, its latch, and what it sends meanwhile."""

import math

import numpy as np
import pytest
from guarded_stream import PERIOD_S, START, Stream
from widowx_control.arm_control import ArmControl, ArmControlConfig
from widowx_control.guard.arm_geometry import ArmGeometry
from widowx_control.guard.checks import CHECKS, THRESHOLDS, Code, GuardConfig, Reaction
from widowx_control.guard.core import CommandTimes, Guard, GuardState
from widowx_control.guard.servo_health import (
    ERROR_REGISTER,
    TEMPERATURE_REGISTER,
    VOLTAGE_REGISTER,
)
from widowx_control.guard.step_limits import StepLimiter
from widowx_control.kinematics import (
    JOINT_LOWER_RAD,
    JOINT_NAMES,
    JOINT_UPPER_RAD,
    NAMED_POSES,
    ArmKinematics,
)

SHOULDER, ELBOW, WRIST = 1, 2, 4


def moved(joint, angle_rad):
    pose = START.copy()
    pose[joint] += angle_rad
    return pose


def ramp(stream, goal, speed_rad_s=1.0, **how):
    """Stream towards a goal at a steady speed until there or not passing any more."""
    now = stream.q.copy()
    for _ in range(1000):
        step = np.clip(goal - now, -speed_rad_s * PERIOD_S, speed_rad_s * PERIOD_S)
        now = now + step
        stream.step(now, **how)
        if stream.status.state in (GuardState.HOLDING, GuardState.STOPPED):
            break
        if np.abs(step).max() == 0:
            break
    return now


def down_to_the_table(stream):
    kinematics = ArmKinematics()
    pose = kinematics.forward(START)
    pose[2, 3] = -0.03
    ramp(stream, kinematics.inverse(pose, START).joint_positions_rad, 0.3)


def fold(stream):
    """Wrist into the shoulder."""
    stream.q = np.array([0.0, -1.0, 1.2, 0.0, 1.2, 0.0])
    ramp(stream, np.array([0.0, -1.6, 1.6, 0.0, 2.1, 0.0]))


def swing_behind(stream):
    stream.q = np.zeros(6)
    out = np.zeros(6)
    out[0] = 3.0
    return ramp(stream, out)


def malformed(stream):
    stream.step(START[:5])


def stop_in_mid_motion(stream):
    for i in range(10):
        stream.step(moved(0, 0.02 * i))
    stream.run(0.2)


def jump_after_rearm(stream):
    stream.step(START)
    stream.guard.emergency_stop()
    stream.run(0.1, moved(0, 0.3))
    assert stream.guard.rearm(stream.now_s)[0]
    stream.run(0.1, moved(0, 0.3))


def silent_button(stream):
    assert stream.guard.config.emergency_stop_timeout_s > 0
    stream.guard.set_emergency_button(False, stream.now_s)
    assert stream.code is None
    stream.run(0.6)


def sick(servo, register, value):
    def cause(stream):
        stream.sick[servo, register] = value
        stream.step(START)

    return cause


def lose(what):
    def cause(stream):
        stream.step(START)
        setattr(stream, what, False)
        stream.run(7.0, START)

    return cause


def late_states(stream):
    stream.bus = False
    stream.run(0.3, START)


def stuck_arm(stream):
    stream.follows = False
    ramp(stream, moved(0, 1.0))


CAUSES = {
    Code.JOINT_SPEED: lambda s: ramp(s, moved(0, 1.5), speed_rad_s=4.5),
    Code.JOINT_ACCELERATION: lambda s: s.step(moved(0, 0.15)),
    Code.RESUME_SPEED: jump_after_rearm,
    Code.GRIPPER_PWM: lambda s: s.step(gripper=-400.0),
    Code.GRIPPER_STALL: lambda s: s.run(2.2, gripper=-350.0),
    Code.COMMAND_MALFORMED: malformed,
    Code.COMMAND_STALE: lambda s: s.step(START, age_s=0.21),
    Code.COMMAND_FUTURE: lambda s: s.step(START, age_s=-0.06),
    Code.COMMAND_LATE: stop_in_mid_motion,
    Code.JOINT_LIMIT: lambda s: s.step(moved(ELBOW, 1.7)),
    Code.WORKSPACE: swing_behind,
    Code.TABLE: down_to_the_table,
    Code.SELF_COLLISION: fold,
    Code.TRACKING_ERROR: stuck_arm,
    Code.OTHER_PUBLISHER: lambda s: s.guard.set_other_publishers(["/puppet"]),
    Code.SERVO_STATUS_LOST: lose("answers"),
    Code.JOINT_STATES_LATE: late_states,
    Code.COMMAND_NON_FINITE: lambda s: s.step(moved(WRIST, math.nan)),
    Code.JOINT_STATES_LOST: lose("bus"),
    Code.SERVO_CURRENT: lambda s: (s.currents_ma.put(1, -2100.0), s.run(2.1, START)),
    Code.SERVO_TEMPERATURE: sick("elbow_shadow", TEMPERATURE_REGISTER, 69),
    Code.SERVO_VOLTAGE_LOW: sick("waist", VOLTAGE_REGISTER, 99),
    Code.SERVO_VOLTAGE_HIGH: sick("gripper", VOLTAGE_REGISTER, 136),
    Code.SERVO_HARDWARE_ERROR: sick("shoulder_shadow", ERROR_REGISTER, 0x20),
    Code.EMERGENCY_STOP: lambda s: s.guard.emergency_stop(),
}
STATES = {
    Reaction.SLOW: GuardState.SLOWING,
    Reaction.HOLD: GuardState.HOLDING,
    Reaction.STOP: GuardState.STOPPED,
}


@pytest.mark.parametrize("code", CHECKS)
def test_each_code_has_a_cause_and_its_one_reaction(code):
    stream = Stream()
    CAUSES[code](stream)
    finding = stream.status.finding
    assert finding is not None and finding.code is code, finding
    assert stream.status.state is STATES[CHECKS[code].reaction]
    assert finding.message and stream.guard.counters[code] >= 1
    for _, joints in stream.sent:
        assert np.isfinite(joints).all()


@pytest.mark.parametrize(
    "code", [code for code, check in CHECKS.items() if check.reaction is Reaction.STOP]
)
def test_a_stop_holds_the_pose_and_refuses_everything_until_rearmed(code):
    stream = Stream()
    ramp(stream, moved(0, 0.2))
    CAUSES[code](stream)
    held = stream.sent[-1][1]
    stream.sick.clear()
    stream.bus = stream.answers = True
    stream.currents_ma[:] = 0
    count = len(stream.sent)
    stream.run(1.0, moved(0, 0.5), gripper=-350.0)
    assert stream.status.state is GuardState.STOPPED and stream.code is code
    assert len(stream.sent) - count >= 30
    assert all(np.array_equal(joints, held) for _, joints in stream.sent[count:])
    assert stream.pwms[-1] in (0.0, -120.0)

    armed, message = stream.guard.rearm(stream.now_s)
    assert armed, message
    ramp(stream, held + 0.1)
    np.testing.assert_allclose(stream.q, held + 0.1, atol=1e-9)
    assert stream.status.state is GuardState.PASSING


def pressed(stream):
    stream.guard.set_emergency_button(True, stream.now_s)


@pytest.mark.parametrize(
    ("cause", "cure"),
    [
        (pressed, lambda s: s.guard.set_emergency_button(False, s.now_s)),
        (sick("waist", TEMPERATURE_REGISTER, 75), lambda s: s.sick.clear()),
        (sick("elbow_shadow", ERROR_REGISTER, 0x04), lambda s: s.sick.clear()),
        (sick("wrist_rotate", VOLTAGE_REGISTER, 80), lambda s: s.sick.clear()),
        (lose("bus"), lambda s: setattr(s, "bus", True)),
        (CAUSES[Code.COMMAND_NON_FINITE], lambda s: s.run(0.6)),
    ],
)
def test_rearm_is_refused_while_the_cause_is_there(cause, cure):
    stream = Stream()
    stream.step(START)
    cause(stream)
    code = stream.code
    armed, message = stream.guard.rearm(stream.now_s)
    assert not armed and code in message
    assert stream.status.state is GuardState.STOPPED
    cure(stream)
    stream.step()
    assert stream.guard.rearm(stream.now_s)[0]
    assert stream.status.state is GuardState.PASSING


def test_a_second_cause_is_kept_apart_from_the_first_and_both_must_go():
    stream = Stream()
    stream.guard.emergency_stop()
    stream.sick["waist", TEMPERATURE_REGISTER] = 90
    stream.step()
    assert stream.code is Code.EMERGENCY_STOP
    assert [f.code for f in stream.status.also] == [Code.SERVO_TEMPERATURE]
    armed, message = stream.guard.rearm(stream.now_s)
    assert not armed and "servo_temperature" in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("joint", range(6))
def test_what_is_not_a_number_never_reaches_the_arm(bad, joint):
    stream = Stream()
    stream.step(START)
    stream.step(moved(joint, bad))
    assert stream.code is Code.COMMAND_NON_FINITE
    assert all(np.isfinite(joints).all() for _, joints in stream.sent)
    stream = Stream()
    stream.step(gripper=bad)
    assert stream.code is Code.COMMAND_NON_FINITE and not stream.pwms[:-1]


@pytest.mark.parametrize("age_s", [math.nan, math.inf, -math.inf])
def test_an_unknown_age_is_refused(age_s):
    stream = Stream()
    stream.step(START, age_s=age_s)
    assert stream.status.state is GuardState.HOLDING
    assert not stream.sent


@pytest.mark.parametrize("no_number", [math.nan, math.inf])
def test_an_effort_that_was_never_a_number_is_no_sensor(no_number):
    stream = Stream(sensor=False)
    assert stream.guard.unsensed_joints() == []  # the driver does not say efforts at all
    stream.sensor, stream.currents_ma[:] = True, no_number
    stream.run(10.0, START)
    assert stream.status.state is GuardState.PASSING
    assert stream.guard.unsensed_joints() == list(JOINT_NAMES[:5])
    stream.currents_ma[SHOULDER] = 100.0
    stream.step(START)
    assert "shoulder" not in stream.guard.unsensed_joints()
    stream.currents_ma[SHOULDER] = no_number  # it was a sensor, and fails
    stream.run(2.2, START)
    assert stream.code is Code.SERVO_CURRENT
    assert "has its sensor failed?" in stream.status.finding.message
    assert math.isfinite(stream.status.finding.value)


@pytest.mark.parametrize("back_s", [0.5, 30.0, 86400.0])
def test_a_clock_that_goes_back_slows_no_stream(back_s):
    limiter = StepLimiter()
    pose = np.zeros(6)
    for k in range(200):
        goal = pose + 0.02
        now_s = 100.0 + 0.02 * k
        sent_s = now_s + 1e9 - (back_s if k >= 100 else 0.0)
        scales = limiter.judge(pose, goal, now_s, sent_s, 3.14, 250.0)
        assert (scales.speed, scales.acceleration) == (1.0, 1.0)
        limiter.take(pose, goal, 3.14)
        pose = goal


def test_two_senders_of_commands_hold_the_arm_and_are_named():
    stream = Stream()
    stream.step(START)
    stream.guard.set_other_publishers([], ["/arm_controller"])
    assert stream.step(START).state is GuardState.PASSING
    stream.guard.set_other_publishers([], ["/arm_controller", "/teleop"])
    assert stream.step(moved(0, 0.02)).state is GuardState.HOLDING
    assert stream.code is Code.OTHER_PUBLISHER
    assert "/arm_controller and /teleop" in stream.status.finding.message
    assert stream.q == pytest.approx(START)
    stream.guard.set_other_publishers([], ["/arm_controller"])
    assert stream.step(START).state is not GuardState.HOLDING


@pytest.mark.parametrize("current_ma", [math.nan, math.inf, -math.inf])
def test_a_current_that_is_no_number_counts_as_overload(current_ma):
    stream = Stream()
    stream.currents_ma[2] = current_ma
    stream.run(2.1)
    assert stream.code is Code.SERVO_CURRENT


@pytest.mark.parametrize("seed", range(3))
def test_the_arm_controllers_stream_passes_unchanged(seed):
    """Policy actions through the real controller, messages at uneven intervals."""
    rng = np.random.default_rng(seed)
    stream = Stream()
    control = ArmControl(ArmControlConfig(), ArmKinematics())
    control.reset(stream.q, stream.finger_m)
    centre = control.measured_pose[:3, 3]
    wanted = []
    for _ in range(60):
        action = np.append(rng.normal(0, [0.02] * 3 + [0.06] * 3), rng.integers(2))
        action[:3] += 0.3 * (centre - control.measured_pose[:3, 3])
        control.command(action)
        left_s = 0.2
        while left_s > 0:
            dt_s = float(rng.uniform(0.012, 0.035))
            left_s -= dt_s
            command = control.update(dt_s, stream.q, stream.finger_m)
            assert command.arm_positions_rad is not None
            wanted.append(np.float32(command.arm_positions_rad).astype(float))
            # The message arrives up to 10 ms late; the sender's time is exact.
            stream.now_s += dt_s
            delay_s = float(rng.uniform(0, 0.01))
            stream.measure()
            stream.ask()
            at_s = stream.now_s + delay_s
            times = CommandTimes(at_s, at_s, delay_s, stream.now_s)
            stream.take(stream.guard.on_arm_command("arm", wanted[-1].tolist(), times))
            stream.take(stream.guard.on_gripper_command("gripper", command.gripper_pwm, times))
            stream.take(stream.guard.tick(at_s, at_s))
    assert np.array_equal([joints for _, joints in stream.sent], wanted)
    assert set(stream.guard.counters) <= {"passed", Code.GRIPPER_STALL}


@pytest.mark.parametrize("start", NAMED_POSES)
@pytest.mark.parametrize("goal", NAMED_POSES)
def test_moves_between_named_poses_pass(start, goal):
    stream = Stream()
    stream.q = np.array(NAMED_POSES[start])
    ramp(stream, np.array(NAMED_POSES[goal]), 3.0)
    assert stream.status.state is GuardState.PASSING, stream.status
    np.testing.assert_allclose(stream.q, NAMED_POSES[goal], atol=1e-9)


def test_a_jump_becomes_a_ramp_within_the_limits():
    stream = Stream(max_joint_speed_rad_s=1.0)
    goal = moved(0, 0.5)
    stream.run(2.0, goal)
    times = np.array([t for t, _ in stream.sent])
    positions = np.array([joints[0] for _, joints in stream.sent])
    np.testing.assert_allclose(positions[-1], goal[0], atol=1e-9)
    late = times >= times[0] + 0.1
    mean = (positions[late] - positions[0]) / (times[late] - times[0] + 0.1)
    assert mean.max() <= 1.0 + 1e-9
    assert np.diff(positions).min() >= 0


def test_a_hold_lets_the_arm_go_back_but_not_further():
    stream = Stream()
    out = swing_behind(stream)
    assert stream.code is Code.WORKSPACE
    held = stream.sent[-1][1]
    stream.run(0.5, out)
    assert np.array_equal(stream.sent[-1][1], held)
    back = held.copy()
    back[0] -= 0.05
    stream.run(0.5, back)
    assert stream.status.state is GuardState.PASSING
    np.testing.assert_allclose(stream.sent[-1][1], back, atol=1e-9)


def test_an_arm_that_is_outside_a_limit_may_return():
    stream = Stream()
    stream.q = np.zeros(6)
    stream.q[WRIST] = JOINT_UPPER_RAD[WRIST] + 0.05  # pushed there by hand
    stream.step(np.nextafter(np.float32(stream.q), np.float32(4)))  # as messages round it
    assert stream.status.state is GuardState.PASSING
    further = stream.q.copy()
    further[WRIST] += 0.01
    stream.step(further)
    assert stream.code is Code.JOINT_LIMIT
    ramp(stream, START)
    assert stream.status.state is GuardState.PASSING


def test_a_stream_that_dies_is_held_and_the_next_starts_where_the_arm_is():
    stream = Stream()
    stop_in_mid_motion(stream)
    assert stream.code is Code.COMMAND_LATE
    count = len(stream.sent)
    stream.run(0.5)
    assert len(stream.sent) > count + 10
    assert np.array_equal(stream.sent[-1][1], stream.sent[count - 1][1])
    stream.run(1.0)
    assert stream.status.state is GuardState.PASSING
    count = len(stream.sent)
    stream.run(1.0)
    assert len(stream.sent) == count  # other clients of the driver are not disturbed
    stream.q = np.array(NAMED_POSES["neutral"])  # moved by hand
    stream.step(NAMED_POSES["neutral"])
    assert stream.status.state is GuardState.PASSING
    assert np.array_equal(stream.sent[-1][1], NAMED_POSES["neutral"])


def test_a_stream_that_ends_at_rest_is_no_fault():
    stream = Stream()
    ramp(stream, moved(0, 0.2))
    stream.run(0.1, moved(0, 0.2))
    stream.run(2.0)
    assert stream.guard.counters.keys() == {"passed"}


def test_an_emergency_stop_stops_what_another_client_started():
    """Nothing came through the guard: the measured pose is commanded."""
    stream = Stream()
    stream.follows = False
    stream.q = moved(0, 0.4)
    stream.step()
    stream.guard.emergency_stop()
    stream.step()
    assert np.array_equal(stream.sent[-1][1], moved(0, 0.4))


def test_an_overloaded_servo_is_relieved_and_the_arm_goes_on_slowly_from_there():
    stream = Stream()
    stream.follows = False
    stream.run(0.5, moved(SHOULDER, 0.2))
    stream.currents_ma[SHOULDER] = 2500.0
    stream.run(2.2, moved(SHOULDER, 0.2))
    assert stream.code is Code.SERVO_CURRENT
    assert np.array_equal(stream.sent[-1][1], stream.q)
    stream.currents_ma[SHOULDER] = 500.0
    stream.follows = True
    count = len(stream.sent)
    stream.run(0.15, moved(SHOULDER, 0.2))
    assert stream.code is Code.RESUME_SPEED
    assert np.abs(stream.sent[count][1] - START).max() <= 0.051
    stream.run(1.0, moved(SHOULDER, 0.2))
    np.testing.assert_allclose(stream.q, moved(SHOULDER, 0.2))


def test_an_arm_that_sags_does_not_sink_through_a_limit_with_pauses():
    stream = Stream()
    stream.sag_rad[SHOULDER] = 0.03
    down_to_the_table(stream)
    assert stream.code is Code.TABLE
    geometry = ArmGeometry(0.003)
    deepest_m = geometry.posture(stream.sent[-1][1], stream.finger_m).lowest_m
    for k in range(20):
        if k % 2:
            stream.guard.emergency_stop()
            stream.run(0.1)
            assert stream.guard.rearm(stream.now_s)[0]
        else:
            stream.run(1.1)
        stream.run(0.1, stream.q)
    for _, joints in stream.sent:
        assert geometry.posture(joints, stream.finger_m).lowest_m > deepest_m - 1e-3


def test_an_emergency_stop_does_not_push_on_against_what_blocks_the_arm():
    stream = Stream()
    stream.follows = False
    ramp(stream, moved(0, 0.4))
    stream.guard.emergency_stop()
    stream.run(0.1, moved(0, 0.4))
    assert np.array_equal(stream.sent[-1][1], stream.q)


def test_a_short_overload_is_normal():
    stream = Stream()
    for _ in range(5):
        stream.currents_ma[2] = 2300.0
        stream.run(1.5, START)
        stream.currents_ma[2] = 500.0
        stream.run(0.1, START)
    assert stream.guard.counters.keys() == {"passed"}


def test_a_stalled_gripper_is_eased_and_free_again_when_it_moves():
    stream = Stream()
    stream.run(2.2, gripper=-350.0)
    assert stream.pwms[-1] == -250.0
    stream.finger_m -= 0.005
    stream.step(gripper=-350.0)
    assert stream.step(gripper=-350.0).state is not GuardState.STOPPED
    assert stream.pwms[-1] == -350.0


def test_a_stall_is_eased_without_another_command():
    stream = Stream()
    stream.step(gripper=-350.0)
    stream.run(2.2, START)
    assert stream.pwms == [-350.0, -250.0]


def test_a_silent_emergency_button_stops_when_it_must_repeat():
    stream = Stream(emergency_stop_timeout_s=0.5)
    silent_button(stream)
    assert stream.code is Code.EMERGENCY_STOP
    assert not stream.guard.rearm(stream.now_s)[0]
    stream.guard.set_emergency_button(False, stream.now_s)
    assert stream.guard.rearm(stream.now_s)[0]


def test_nothing_passes_before_the_first_measurement():
    guard = Guard(GuardConfig())
    stream = Stream()
    times = stream.times(0.0)
    assert guard.on_arm_command("arm", START.tolist(), times).arm_rad is None
    assert guard.on_gripper_command("gripper", 350.0, times).gripper_pwm is None
    assert guard.tick(times.now_s, times.now_s).arm_rad is None
    assert guard.status(times.now_s).state is GuardState.WAITING
    assert not guard.rearm(times.now_s)[0]


def test_tolerated_bad_commands_are_dropped_and_change_nothing():
    stream = Stream(max_non_finite_commands=2, max_malformed_commands=1)
    stream.step(START)
    for _ in range(2):
        stream.step(moved(0, math.nan))
    stream.step(START)
    malformed(stream)
    assert stream.step(START).state is GuardState.PASSING
    for _ in range(3):
        stream.step(moved(0, math.nan))
    assert stream.code is Code.COMMAND_NON_FINITE


def test_commands_for_other_joints_do_not_pass_the_gripper_topic():
    stream = Stream()
    stream.take(stream.guard.on_gripper_command("shoulder", 0.5, stream.times(0.0)))
    assert stream.code is Code.COMMAND_MALFORMED
    assert not stream.pwms


def test_a_driver_that_starts_again_while_nobody_commands_stops_nothing():
    stream = Stream()
    stream.bus = False
    assert stream.run(1.5).state is GuardState.HOLDING
    stream.bus = True
    assert stream.run(0.1).state is GuardState.PASSING


def test_a_stopped_clock_of_the_simulation_does_not_stop_the_watchdog():
    stream = Stream()
    stream.step(START)
    for _ in range(60):
        stream.now_s += PERIOD_S
        stream.take(stream.guard.tick(stream.now_s, 100.0))
    assert stream.code is Code.JOINT_STATES_LOST


@pytest.mark.parametrize("name", THRESHOLDS)
def test_thresholds_out_of_range_are_refused(name):
    threshold = THRESHOLDS[name]
    several = isinstance(threshold.default, tuple)
    for bad in (threshold.low - 1, threshold.high + 1, math.nan):
        value = (bad, 0.0, 0.0) if several else bad
        with pytest.raises(ValueError, match=name):
            GuardConfig(**{name: value})


def test_each_threshold_belongs_to_one_check():
    used = [name for check in CHECKS.values() for name in check.thresholds]
    assert sorted(used) == sorted(THRESHOLDS)


@pytest.mark.parametrize("seed", range(5))
def test_no_sequence_of_messages_gets_beyond_the_limits(seed):
    """Random commands, ages, gaps, faults and re-arms: what goes out stays within every bound."""
    rng = np.random.default_rng(seed)
    stream = Stream()
    low, high = JOINT_LOWER_RAD - 0.001, JOINT_UPPER_RAD + 0.001
    for _ in range(1500):
        wild = rng.uniform(-4, 4, 6) if rng.random() < 0.3 else stream.q + rng.normal(0, 0.05, 6)
        if rng.random() < 0.02:
            wild[rng.integers(6)] = rng.choice([math.nan, math.inf, 1e30])
        if rng.random() < 0.02:
            wild = wild[: rng.integers(6)]
        if rng.random() < 0.02:
            stream.guard.rearm(stream.now_s)
        before = stream.q.copy()
        count = len(stream.sent)
        stream.step(
            wild,
            gripper=float(rng.choice([0.0, 500.0, -500.0, math.nan], p=[0.5, 0.24, 0.25, 0.01])),
            age_s=float(rng.choice([0.001, 0.5, -1.0], p=[0.96, 0.02, 0.02])),
            dt_s=float(rng.uniform(0.001, 0.06)),
        )
        for _, joints in stream.sent[count:]:
            assert np.isfinite(joints).all()
            assert (joints >= low).all() and (joints <= high).all()
            assert np.abs(joints - before).max() <= 0.32
    assert all(abs(pwm) <= 350 for pwm in stream.pwms)


def test_joint_names_of_findings_are_the_arms():
    stream = Stream()
    stream.step(moved(WRIST, 3.0))
    finding = stream.status.finding
    assert finding is not None and JOINT_NAMES[WRIST] in finding.message
