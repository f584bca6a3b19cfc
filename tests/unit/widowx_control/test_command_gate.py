"""What may reach the arm, and what is a measurement."""

import math

import numpy as np
import pytest
from widowx_control.bridge_spaces import ACTION_NAMES
from widowx_control.command_gate import CommandGate, GateCode
from widowx_control.joint_state_reader import JointStateReader
from widowx_control.kinematics import JOINT_NAMES

NAMES = list(ACTION_NAMES)
ZERO = [0.0] * 7


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, GateCode.PASSED),
        ({"frame": ""}, GateCode.PASSED),
        ({"names": NAMES[::-1]}, GateCode.WRONG_NAMES),
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
        ({"stamp_s": 100.05}, GateCode.PASSED),
        ({"stamp_s": 100.3}, GateCode.FUTURE_STAMP),
    ],
)
def test_each_fault_has_its_code_and_count(changes, code):
    gate = CommandGate(max_age_s=0.4, future_tolerance_s=0.1, frame="base_link")
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
    gate = CommandGate(max_age_s=10.0, future_tolerance_s=0.1, frame="base_link")

    def check(stamp_s, values=ZERO):
        return gate.check(NAMES, values, "", 0.2, stamp_s, 100.0).code

    assert check(99.0) is GateCode.PASSED
    assert check(99.0) is GateCode.PASSED
    assert check(99.5, [math.nan] * 7) is GateCode.NON_FINITE
    assert check(99.2) is GateCode.PASSED
    assert check(99.1) is GateCode.OUT_OF_ORDER
    gate.reset()
    assert check(99.1) is GateCode.PASSED


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
