import numpy as np
import pytest
from robot_sim.kitchen import Kitchen
from robot_sim.xs_arm import XsArm, XsArmError
from widowx_control.kinematics import JOINT_NAMES, NAMED_POSES

START = list(NAMED_POSES["start"])


@pytest.fixture
def arm():
    return XsArm(Kitchen())


def run(arm, seconds):
    for _ in range(round(seconds / 0.01)):
        arm.update()
        arm._kitchen.advance(2)


def measured(arm):
    return np.array(arm.joint_state()[0][:6])


def test_robot_info_is_the_stock_table(arm):
    info = arm.robot_info("group", "arm")
    assert (info.mode, info.profile_type) == ("position", "time")
    assert info.joint_ids == [1, 2, 4, 6, 7, 8]
    assert info.joint_names == list(JOINT_NAMES)
    assert info.joint_state_indices == [0, 1, 2, 3, 4, 5]
    assert info.joint_sleep_positions == pytest.approx([0, -1.8, 1.55, 0, 0.8, 0])
    assert info.joint_lower_limits[1] == pytest.approx(-1.8849556)
    gripper = arm.robot_info("single", "gripper")
    assert (gripper.mode, gripper.joint_names) == ("pwm", ["left_finger"])
    assert (gripper.joint_ids, gripper.joint_state_indices) == ([9], [7])
    assert gripper.joint_lower_limits == [0.015]
    assert gripper.joint_upper_limits == [0.037]
    assert gripper.joint_sleep_positions[0] == pytest.approx(0.0194936, abs=1e-6)
    everything = arm.robot_info("group", "all")
    assert everything.joint_state_indices == [0, 1, 2, 3, 4, 5, 7]
    assert sorted(everything.name) == ["all", "arm"]


def test_a_move_takes_the_stock_two_seconds(arm):
    goal = np.array(START) + np.array([0.5, -0.3, 0.2, 0.4, -0.3, 0.6])
    arm.command_group("arm", list(goal))
    run(arm, 1.0)
    half = (np.array(START) + goal) / 2
    assert measured(arm) == pytest.approx(half, abs=0.03)
    run(arm, 1.1)
    assert measured(arm) == pytest.approx(goal, abs=0.01)


def test_profile_registers_change_the_next_move(arm):
    arm.write_registers("group", "arm", "Profile_Velocity", 200)
    arm.write_registers("group", "arm", "Profile_Acceleration", 100)
    assert arm.read_registers("group", "arm", "Profile_Velocity") == [200] * 6
    goal = [START[0] + 0.2, *START[1:]]
    arm.command_group("arm", goal)
    run(arm, 0.3)
    assert measured(arm)[0] == pytest.approx(goal[0], abs=0.01)


@pytest.mark.parametrize("pwm", [250.0, -250.0])
def test_gripper_pwm_moves_the_fingers_both_ways_until_zero(arm, pwm):
    names = arm.joint_names
    start = arm.joint_state()[0][names.index("left_finger")]
    if pwm > 0:
        arm.command_single("gripper", -250.0)
        run(arm, 0.6)
        start = arm.joint_state()[0][names.index("left_finger")]
    arm.command_single("gripper", pwm)
    run(arm, 0.2)
    positions = arm.joint_state()[0]
    left, right = (positions[names.index(n)] for n in ("left_finger", "right_finger"))
    assert (left - start) * pwm > 0.002 * abs(pwm)
    assert left == -right
    arm.command_single("gripper", 0.0)
    run(arm, 0.1)
    stopped = arm.joint_state()[0][7]
    run(arm, 0.5)
    assert arm.joint_state()[0][7] == pytest.approx(stopped, abs=2e-4)


def test_fingers_stay_within_their_range_under_lasting_pwm(arm):
    for pwm, end in ((-350.0, 0.015), (350.0, 0.037)):
        arm.command_single("gripper", pwm)
        run(arm, 2.0)
        assert arm.joint_state()[0][7] == pytest.approx(end, abs=1e-3)


def test_linear_position_mode_sets_the_full_gap(arm):
    arm.set_operating_modes("single", "gripper", "linear_position", "time", 500, 100)
    for gap in (0.040, 0.064):
        arm.command_single("gripper", gap)
        run(arm, 1.5)
        assert 2 * arm.joint_state()[0][7] == pytest.approx(gap, abs=2e-3)


def test_velocity_mode_turns_at_the_commanded_speed(arm):
    arm.set_operating_modes("single", "waist", "velocity", "velocity", 0, 0)
    arm.command_single("waist", 0.5)
    run(arm, 1.0)
    assert measured(arm)[0] == pytest.approx(0.5, abs=0.05)
    arm.command_single("waist", 0.0)
    run(arm, 0.3)
    here = measured(arm)[0]
    run(arm, 0.5)
    assert measured(arm)[0] == pytest.approx(here, abs=0.01)


def test_torque_off_drops_the_arm_and_torque_on_holds_it(arm):
    arm.set_torque("group", "arm", False)
    run(arm, 0.5)
    sagged = measured(arm)
    assert sagged[1] > START[1] + 0.2
    assert arm.read_registers("single", "shoulder_shadow", "Torque_Enable") == [0]
    arm.set_torque("group", "arm", True)
    run(arm, 0.5)
    here = measured(arm)
    run(arm, 1.0)
    assert measured(arm) == pytest.approx(here, abs=0.01)


def test_reboot_leaves_the_profiles_at_zero(arm):
    arm.reboot("group", "arm", enable=True, smart=True)
    assert arm.read_registers("single", "waist", "Profile_Velocity") == [2000]
    arm.reboot("group", "arm", enable=True, smart=False)
    assert arm.read_registers("group", "arm", "Profile_Velocity") == [0] * 6
    assert arm.read_registers("group", "arm", "Torque_Enable") == [1] * 6


def test_trajectory_uses_full_durations_across_whole_seconds(arm):
    """Points every 0.4 s up to 2.4 s; point k is sent at the time of point k - 1."""
    arm.write_registers("group", "arm", "Profile_Velocity", 400)
    arm.write_registers("group", "arm", "Profile_Acceleration", 100)
    times = [0.4 * k for k in range(7)]
    waist = [0.1 * k for k in range(7)]
    points = [[w, *START[1:]] for w in waist]
    arm.start_trajectory("group", "arm", times, points)
    with pytest.raises(XsArmError, match="running"):
        arm.start_trajectory("group", "arm", times, points)
    for k in range(1, 7):
        run(arm, 0.4)
        assert measured(arm)[0] == pytest.approx(waist[k], abs=0.02)
    run(arm, 0.05)
    assert not arm.trajectory_running


@pytest.mark.parametrize(
    "request_",
    [
        lambda a: a.command_group("legs", [0.0] * 6),
        lambda a: a.command_group("arm", [0.0] * 5),
        lambda a: a.command_group("arm", [float("nan")] + [0.0] * 5),
        lambda a: a.command_single("left_finger", 1.0),
        lambda a: a.command_single("gripper", float("inf")),
        lambda a: a.write_registers("group", "arm", "Profile_Speed", 1),
        lambda a: a.write_registers("group", "arm", "Profile_Velocity", -1),
        lambda a: a.write_registers("group", "arm", "Present_Position", 0),
        lambda a: a.write_registers("single", "waist", "Operating_Mode", 1),
        lambda a: a.set_operating_modes("group", "arm", "fast", "time", 0, 0),
        lambda a: a.set_operating_modes("group", "arm", "current", "time", 0, 0),
        lambda a: a.robot_info("group", "legs"),
        lambda a: a.set_torque("team", "arm", False),
        lambda a: a.start_trajectory("group", "arm", [0.0], [START]),
    ],
)
def test_bad_requests_name_the_fault_and_change_nothing(arm, request_):
    before = {s: dict(r) for s, r in arm._registers.items()}
    with pytest.raises(
        XsArmError, match=r"found|read-only|locked|no mode|has no|wrong|unknown|expected"
    ):
        request_(arm)
    assert arm._registers == before
    run(arm, 0.3)
    assert measured(arm) == pytest.approx(START, abs=0.01)
