"""What may reach the arm, and what is a measurement."""

import math

import numpy as np
import pytest
from widowx_control.bridge_spaces import ACTION_NAMES
from widowx_control.command_gate import CommandGate, GateCode
from widowx_control.commanders import Commanders
from widowx_control.joint_state_reader import JointStateReader
from widowx_control.kinematics import JOINT_NAMES

NAMES = list(ACTION_NAMES)
ZERO = [0.0] * 7


def make_gate(max_age_s=0.4):
    return CommandGate(max_age_s, future_tolerance_s=0.1, frame="base_link", max_lateness_s=0.25)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, GateCode.PASSED),
        ({"frame": ""}, GateCode.PASSED),
        ({"names": NAMES[::-1]}, GateCode.PASSED),
        ({"names": [*NAMES[:6], "dx"]}, GateCode.WRONG_NAMES),
        ({"names": [*NAMES, "dx"], "values": [0.0] * 8}, GateCode.WRONG_NAMES),
        ({"names": NAMES[:6], "values": ZERO[:6]}, GateCode.WRONG_NAMES),
        ({"values": ZERO[:6]}, GateCode.WRONG_LENGTH),
        ({"values": []}, GateCode.WRONG_LENGTH),
        ({"values": [*ZERO[:6], -math.inf]}, GateCode.NON_FINITE),
        ({"frame": "world"}, GateCode.WRONG_FRAME),
        ({"step_s": 0.0}, GateCode.BAD_STEP),
        ({"step_s": math.nan}, GateCode.BAD_STEP),
        ({"stamp_s": 99.7}, GateCode.PASSED),
        ({"stamp_s": 99.5}, GateCode.STALE),
        ({"stamp_s": 0.0}, GateCode.STALE),
        ({"stamp_s": math.nan}, GateCode.FUTURE_STAMP),
        ({"stamp_s": 100.05}, GateCode.PASSED),
        ({"stamp_s": 100.3}, GateCode.FUTURE_STAMP),
        # How old the observation may be is the command's to say, as far as the robot allows it.
        ({"stamp_s": 98.6, "max_observation_age_s": 1.5}, GateCode.PASSED),
        ({"stamp_s": 98.4, "max_observation_age_s": 1.5}, GateCode.STALE),
        ({"stamp_s": 99.7, "max_observation_age_s": 0.2}, GateCode.STALE),
        ({"stamp_s": 97.9, "max_observation_age_s": 60.0}, GateCode.STALE),
        ({"max_observation_age_s": math.nan}, GateCode.STALE),
        ({"max_observation_age_s": -1.0}, GateCode.STALE),
        # Lateness counts from when the motion should begin.
        ({"execute_at_s": 99.8}, GateCode.PASSED),
        ({"execute_at_s": 99.7}, GateCode.LATE),
        ({"execute_at_s": 100.05}, GateCode.PASSED),
        ({"execute_at_s": 100.2}, GateCode.FUTURE_STAMP),
        ({"execute_at_s": math.nan}, GateCode.FUTURE_STAMP),
        ({"stamp_s": 98.6, "max_observation_age_s": 1.5, "execute_at_s": 99.7}, GateCode.LATE),
    ],
)
def test_each_fault_has_its_code_and_count(changes, code):
    gate = make_gate()
    command = {
        "names": NAMES,
        "values": ZERO,
        "frame": "base_link",
        "step_s": 0.2,
        "stamp_s": 100.0,
        "now_s": 100.0,
    }
    verdict = gate.check(**{**command, **changes})
    assert verdict.code is code
    assert verdict.passed == (not verdict.reason)
    assert gate.counters == {code: 1}


def test_order_counts_only_among_passed_commands_and_since_reset():
    gate = make_gate(10.0)

    def check(stamp_s, values=ZERO):
        return gate.check(NAMES, values, "", 0.2, stamp_s, 100.0).code

    assert check(99.0) is GateCode.PASSED
    assert check(99.0) is GateCode.PASSED
    assert check(99.5, [math.nan] * 7) is GateCode.NON_FINITE
    assert check(99.2) is GateCode.PASSED
    assert check(99.1) is GateCode.OUT_OF_ORDER
    gate.reset()
    assert check(99.1) is GateCode.PASSED


@pytest.mark.parametrize("seed", range(5))
def test_names_decide_the_order_of_values(seed):
    order = np.random.default_rng(seed).permutation(7)
    gate = make_gate()
    values = np.linspace(-0.03, 0.03, 7)
    names = [NAMES[i] for i in order]
    verdict = gate.check(names, values[order].tolist(), "", 0.2, 100.0, 100.0)
    assert verdict.passed
    np.testing.assert_array_equal(verdict.action, values)


@pytest.mark.parametrize("back_s", [0.2, 30.0, 86400.0])
def test_a_clock_that_goes_back_begins_anew_with_one_notice(back_s):
    gate = make_gate()
    notices = []
    for k in range(20):
        now_s = 1000.0 + 0.05 * k - (back_s if k >= 10 else 0.0)
        assert gate.check(NAMES, ZERO, "", 0.05, now_s - 0.01, now_s).passed
        notices.append(gate.notice)
        gate.notice = ""
    assert [k for k, notice in enumerate(notices) if notice] == [10]


def test_stamps_that_go_back_begin_anew_and_a_late_command_does_not():
    gate = make_gate(2.0)

    def codes(stamps_s):
        return [
            gate.check(NAMES, ZERO, "", 0.05, stamp_s, now_s).code
            for stamp_s, now_s in zip(
                stamps_s, 1000.0 + 0.05 * np.arange(len(stamps_s)), strict=True
            )
        ]

    passed, late = GateCode.PASSED, GateCode.OUT_OF_ORDER
    stamps_s = 999.9 + 0.05 * np.arange(10)
    mixed_s = stamps_s.copy()
    mixed_s[[4, 7]] -= 1.0
    assert codes(mixed_s) == [passed] * 4 + [late] + [passed] * 2 + [late] + [passed] * 2
    gate.reset()
    stamps_s[5:] -= 1.0  # the sender's clock was set back
    assert codes(stamps_s) == [passed] * 5 + [late] * 2 + [passed] * 3
    assert gate.notice.startswith("the stamps of commands went back by ")


def test_steps_of_one_chunk_have_one_stamp_and_come_in_the_order_of_their_times():
    gate = make_gate()

    def check(stamp_s, execute_at_s):
        now_s = execute_at_s + 0.01
        return gate.check(NAMES, ZERO, "", 0.05, stamp_s, now_s, execute_at_s, 1.0).code

    assert [check(99.9, 100.0 + 0.05 * k) for k in range(8)] == [GateCode.PASSED] * 8
    assert check(99.9, 100.3) is GateCode.OUT_OF_ORDER
    assert check(99.85, 100.4) is GateCode.OUT_OF_ORDER
    assert check(100.3, 100.4) is GateCode.PASSED


def test_a_stamp_far_ahead_is_not_remembered():
    gate = make_gate()
    assert gate.check(NAMES, ZERO, "", 0.05, 1000.0 + 3600, 1000.0).code is GateCode.FUTURE_STAMP
    assert gate.check(NAMES, ZERO, "", 0.05, 1000.04, 1000.05).passed


def test_lost_commands_are_counted_per_publisher():
    commanders = Commanders()
    heard = [
        (b"a", 1), (b"a", 2), (b"a", 5), (b"b", 40), (b"a", 6), (b"b", 42), (b"b", 1), (b"b", 2),
    ]  # fmt: skip
    lost = [commanders.heard(gid, n, 0.02, 0.1 * i) for i, (gid, n) in enumerate(heard)]
    assert lost == [0, 0, 2, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("step_s", [0.02, 0.2, 2.0, math.nan, math.inf, -1.0])
def test_a_commander_is_one_until_it_is_silent(step_s):
    commanders = Commanders()
    for i in range(10):
        commanders.heard(b"a", i, step_s, 0.02 * i)
    commanders.heard(b"b", 1, 0.2, 0.2)
    assert commanders.active(0.2) == [b"a", b"b"]
    assert commanders.active(1.0) == [b"a", b"b"]
    assert commanders.active(5.0) == []
    commanders.heard(b"a", 10, step_s, 5.0)
    assert commanders.active(5.0) == [b"a"]
    commanders.keep([b"b"])
    assert commanders.active(5.0) == []


def read(reader, changes=None, stamp_s=50.0, drop=None):
    joints = dict(zip(JOINT_NAMES, np.linspace(-0.5, 0.5, 6), strict=True))
    joints |= {"gripper": 0.3, "left_finger": 0.02, "right_finger": -0.02} | (changes or {})
    if drop:
        del joints[drop]
    order = sorted(joints)  # any order of names will do
    return reader.read(order, [joints[name] for name in order], stamp_s, 50.0)


def test_joints_are_found_by_name():
    measurement = read(JointStateReader(0.25, 0.1))
    np.testing.assert_allclose(measurement.joint_positions_rad, np.linspace(-0.5, 0.5, 6))
    assert measurement.finger_m == 0.02


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"drop": "elbow"}, "joint_states_incomplete"),
        ({"drop": "left_finger"}, "joint_states_incomplete"),
        ({"changes": {"waist": math.nan}}, "joint_states_non_finite"),
        ({"changes": dict.fromkeys(JOINT_NAMES, -math.pi)}, "joint_states_dead_bus"),
        ({"stamp_s": 49.0}, "joint_states_bad_stamp"),
        ({"stamp_s": 51.0}, "joint_states_bad_stamp"),
    ],
)
def test_what_is_no_measurement_is_counted(arguments, code):
    reader = JointStateReader(0.25, 0.1)
    assert read(reader, **arguments) is None
    assert reader.counters == {code: 1}
    assert reader.reason
    assert read(reader) is not None
    assert not reader.reason
