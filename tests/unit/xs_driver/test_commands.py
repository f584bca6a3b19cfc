"""Commands, trajectories and services, on the real bytes."""

import itertools
import json
import math
import struct
import time

import pytest
from emulated_arm import wait_for
from servo_bus_emulator.protocol import SYNC_WRITE
from widowx_control.gripper import finger_distance_m
from widowx_control.xs_driver.configuration import Mode
from widowx_control.xs_driver.control_table import (
    MODE_CURRENT,
    MODE_CURRENT_BASED_POSITION,
    MODE_EXTENDED_POSITION,
    MODE_POSITION,
    MODE_VELOCITY,
    RAD_PER_S_PER_UNIT,
)
from widowx_control.xs_driver.driver_types import CommandRefused, DriverState, ServiceFailed
from widowx_control.xs_driver.units import ticks_from_rad

ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
GOAL_POSITION_ADDRESS = 116
FAST = Mode("position", "time", 200, 50)


def use_profile(arm, mode=FAST):
    arm.driver.set_operating_modes("group", "arm", mode).result(timeout=5)


def written_goals(arm, motor):
    """Goal positions that reached a motor since the last "writes": (steady time [s], ticks)."""
    servo_id = arm.configuration.motors[motor].servo_id
    found = []
    for at_s, _, code, parameters in json.loads(arm.tell("writes")):
        data = bytes.fromhex(parameters)
        address, size = struct.unpack_from("<HH", data)
        goal = GOAL_POSITION_ADDRESS - address
        if code != SYNC_WRITE or not 0 <= goal < size:
            continue
        for at in range(4, len(data), 1 + size):
            if data[at] == servo_id:
                found.append((at_s, struct.unpack_from("<i", data, at + 1 + goal)[0]))
    return found


def goals(arm):
    return {name: arm.servo(name, "Goal_Position") for name in ARM}


@pytest.mark.parametrize(
    ("cmd_type", "name", "values", "code"),
    [
        ("group", "leg", [0] * 6, "unknown_name"),
        ("single", "left_finger", [0], "unknown_name"),
        ("both", "arm", [0] * 6, "unknown_name"),
        ("group", "arm", [0] * 5, "wrong_length"),
        ("group", "arm", [0, 0, math.nan, 0, 0, 0], "not_finite"),
        ("group", "arm", [0, 0, math.inf, 0, 0, 0], "not_finite"),
        ("group", "arm", [0, 2.5, 0, 0, 0, 0], "out_of_limits"),
        ("group", "arm", [0, 0, 0, 0, 0, 1e30], "out_of_limits"),
        ("single", "gripper", [900], "out_of_limits"),
        ("single", "elbow_shadow", [0.5], "shadow"),
    ],
)
def test_bad_commands_are_refused_whole_and_counted(arm, cmd_type, name, values, code):
    arm.start_driver()
    before = goals(arm)
    with pytest.raises(CommandRefused) as refusal:
        arm.driver.command(cmd_type, name, values)
    assert refusal.value.code == code
    status = arm.driver.status()
    assert status.refused == {code: 1}
    assert status.state is DriverState.RUNNING
    start = len(arm.readings)
    wait_for(lambda: len(arm.readings) > start + 3)
    assert goals(arm) == before


def test_a_goal_a_hair_beyond_a_servo_limit_is_clipped(arm):
    arm.start_driver()
    # The URDF lets the elbow go 0.0012 rad further than the servo's own limit.
    arm.driver.command("group", "arm", [0, 0, 1.6057029, 0, 0, 0])
    wait_for(lambda: arm.servo("elbow", "Goal_Position") == 3094)


def test_the_arm_arrives_and_its_shadows_agree(arm):
    arm.start_driver()
    use_profile(arm)
    target = dict(zip(ARM, (0.5, -0.4, 0.7, -0.6, 0.3, 0.8), strict=True))
    arm.driver.command("group", "arm", list(target.values()))
    wait_for(lambda: all(abs(arm.joint(j) - q) < 0.06 for j, q in target.items()))
    assert arm.servo("shoulder", "Goal_Position") == arm.servo("shoulder_shadow", "Goal_Position")
    wait_for(lambda: all(abs(arm.speed(j)) < 0.005 for j in target))
    start = len(arm.readings)
    wait_for(lambda: len(arm.readings) > start + 3)
    assert arm.published() == pytest.approx(
        {j: arm.joint(j) for j in arm.configuration.joint_order}, abs=0.02
    )


def test_readings_come_no_faster_than_their_own_rate_with_all_joints(timed_arm):
    rate = timed_arm.configuration.update_rate_hz
    timed_arm.start_driver(cycle_rate_hz=1.5 * rate)
    wait_for(lambda: len(timed_arm.readings) > 150)
    readings = list(timed_arm.readings)
    seconds = readings[-1][0] - readings[0][0]
    # The cycle that reads is faster; a reading that is not published is not a lost one.
    assert len(readings) - 1 <= rate * seconds + 2
    loop = timed_arm.driver.status().loop
    assert len(readings) <= loop.cycles - loop.lost_cycles
    assert all(len(r.states) == 7 for _, r in readings)


def test_the_gripper_opens_by_pwm_and_holds_a_gap(arm):
    arm.start_driver()
    arm.driver.command("single", "gripper", [250])
    wait_for(lambda: finger_distance_m(arm.joint("gripper")) > 0.0365)
    arm.driver.command("single", "gripper", [-250])
    wait_for(lambda: finger_distance_m(arm.joint("gripper")) < 0.0155)
    arm.driver.command("single", "gripper", [0])
    mode = Mode("linear_position", "velocity", 131, 15)
    arm.driver.set_operating_modes("single", "gripper", mode).result(timeout=5)
    arm.driver.command("single", "gripper", [0.06])
    wait_for(lambda: abs(finger_distance_m(arm.joint("gripper")) - 0.03) < 0.001)
    with pytest.raises(CommandRefused):
        arm.driver.command("single", "gripper", [0.2])


def test_velocity_goals_fall_to_zero_when_nobody_renews_them(arm):
    arm.start_driver(open_loop_timeout_s=0.3)
    mode = Mode("velocity", "velocity", 0, 0)
    arm.driver.set_operating_modes("single", "waist", mode).result(timeout=5)
    assert arm.servo("waist", "Operating_Mode") == MODE_VELOCITY
    arm.driver.command("single", "waist", [0.5])
    wait_for(lambda: arm.speed("waist") > 0.3)
    wait_for(lambda: abs(arm.speed("waist")) < 0.01, 3.0)
    # The group is still in position mode: the waist is left out, the others move.
    arm.driver.command("group", "arm", [1.0, -1.0, 1.0, 0.5, 0.5, 0.5])
    wait_for(lambda: abs(arm.joint("forearm_roll") - 0.5) < 0.05)
    assert arm.servo("waist", "Goal_Velocity") == 0


def test_a_mode_that_a_servo_lacks_is_refused_or_leaves_it_alone(arm):
    arm.start_driver()
    current = Mode("current", "velocity", 0, 0)
    with pytest.raises(ServiceFailed):
        arm.driver.set_operating_modes("single", "gripper", current).result(timeout=5)
    unable = arm.driver.set_operating_modes("group", "arm", current).result(timeout=5)
    assert unable == ["wrist_rotate"]
    assert arm.servo("elbow", "Operating_Mode") == MODE_CURRENT
    assert arm.servo("elbow", "Goal_Current") == 0
    assert arm.servo("wrist_rotate", "Operating_Mode") == MODE_POSITION
    arm.driver.command("group", "arm", [0, 100, 0, 0, 0, 100])
    wait_for(lambda: arm.servo("shoulder", "Goal_Current") == round(100 / 2.69))
    assert arm.servo("shoulder_shadow", "Goal_Current") == round(100 / 2.69)
    for bad in (Mode("hover"), Mode("position", "slow"), Mode("position", "time", -1)):
        with pytest.raises(ServiceFailed):
            arm.driver.set_operating_modes("group", "arm", bad)


def test_extended_position_takes_goals_beyond_one_turn(arm):
    arm.start_driver()
    with pytest.raises(CommandRefused) as refusal:
        arm.driver.command("single", "wrist_rotate", [4.0])
    assert refusal.value.code == "out_of_limits"
    mode = Mode("ext_position", "time", 300, 50)
    arm.driver.set_operating_modes("single", "wrist_rotate", mode).result(timeout=5)
    arm.driver.command("single", "wrist_rotate", [4.0])
    wait_for(lambda: arm.servo("wrist_rotate", "Goal_Position") == ticks_from_rad(4.0))
    assert arm.servo("wrist_rotate", "Operating_Mode") == MODE_EXTENDED_POSITION
    # The emulated joint has stops at half a turn.
    wait_for(lambda: arm.joint("wrist_rotate") > 3.1)
    arm.driver.command("single", "wrist_rotate", [-0.5])
    wait_for(lambda: abs(arm.joint("wrist_rotate") + 0.5) < 0.02)


def test_current_based_position_pushes_no_harder_than_goal_current(arm):
    arm.start_driver()
    mode = Mode("current_based_position", "velocity", 0, 0)
    arm.driver.set_operating_modes("single", "shoulder", mode).result(timeout=5)
    assert arm.servo("shoulder_shadow", "Operating_Mode") == MODE_CURRENT_BASED_POSITION
    arm.driver.set_registers("single", "shoulder", {"Goal_Current": 4}).result(timeout=5)
    wait_for(lambda: arm.servo("shoulder_shadow", "Goal_Current") == 4)
    arm.driver.command("single", "shoulder", [-1.0])
    wait_for(lambda: arm.servo("shoulder_shadow", "Goal_Position") == ticks_from_rad(-1.0))
    start = len(arm.readings)
    wait_for(lambda: len(arm.readings) > start + 60)
    # Two servos at 11 mA cannot lift the arm; at 1000 mA each they can.
    assert arm.joint("shoulder") < -1.7
    arm.driver.set_registers("single", "shoulder", {"Goal_Current": 370}).result(timeout=5)
    wait_for(lambda: abs(arm.joint("shoulder") + 1.0) < 0.1)


@pytest.mark.parametrize(
    ("mode", "expected_s"),
    [
        (Mode("position", "time", 1200, 200), 1.2),
        # 0.767 rad/s and 1.498 rad/s^2: 0.512 s up, 0.665 s steady, 0.512 s down.
        (Mode("position", "velocity", 32, 4), 1.69),
    ],
)
def test_moves_take_the_time_of_their_profile(arm, mode, expected_s):
    arm.start_driver()
    use_profile(arm, mode)
    arm.driver.command("group", "arm", [0.9, -1.8, 1.55, 0.9, 0.8, 0.9])

    def turning():
        servos = arm.server.call(
            lambda bus: [s.summary(bus.now_s)["Velocity_Trajectory"] for s in bus.servos]
        )
        return [servos[i] for i in (0, 5, 7)]

    wait_for(lambda: all(turning()))
    start = time.monotonic()
    wait_for(lambda: not any(turning()))
    assert time.monotonic() - start == pytest.approx(expected_s, abs=0.25)
    assert arm.joint("waist") == pytest.approx(0.9, abs=0.02)


def waypoints(joint_index, values, period_s):
    points = []
    for k, value in enumerate(values):
        q = [0.0, -1.8, 1.55, 0.0, 0.8, 0.0]
        q[joint_index] = value
        points.append((k * period_s, q))
    return {"positions": points, "velocities": [], "effort": []}


@pytest.mark.parametrize("period_s", [0.05, 0.5, 1.0])
def test_trajectories_keep_their_times_across_whole_seconds(arm, period_s):
    arm.start_driver()
    use_profile(arm, Mode("position", "time", 40, 10))
    count = max(3, int(1.2 / period_s) + 1)
    values = [0.02 * k for k in range(count)]
    arm.tell("writes")
    arm.driver.command_trajectory("group", "arm", [], waypoints(0, values, period_s))
    start_s = time.monotonic()
    wait_for(lambda: not arm.driver.status().trajectory_running)
    goals = written_goals(arm, "waist")
    # Point k is sent when point k - 1 is due, each on its own time.
    sent = [(at - start_s, round((goal - 2048) * math.pi / 2048 / 0.02)) for at, goal in goals]
    first = {k: at_s for at_s, k in reversed(sent)}
    assert [k for k in sorted(first) if k >= 1] == list(range(1, count))
    assert all(abs(first[k] - (k - 1) * period_s) < 0.15 for k in range(1, count))


def test_bad_trajectories_are_refused_and_a_running_one_is_kept(arm):
    arm.start_driver()
    good = waypoints(0, [0, 0.1, 0.2], 0.5)
    short = waypoints(0, [0], 0.5)
    backwards = {**good, "positions": good["positions"][::-1]}
    wild = waypoints(1, [0, 9.0], 0.5)
    for points, names, code in (
        (short, [], "bad_trajectory"),
        (backwards, [], "bad_trajectory"),
        ({**good, "positions": [(0, [0]), (1, [0])]}, [], "bad_trajectory"),
        (wild, [], "out_of_limits"),
        (good, ["waist", "ghost"], "unknown_name"),
    ):
        with pytest.raises(CommandRefused) as refusal:
            arm.driver.command_trajectory("group", "arm", names, points)
        assert refusal.value.code == code
    arm.driver.command_trajectory("group", "arm", list(ARM), good)
    with pytest.raises(CommandRefused) as refusal:
        arm.driver.command_trajectory("group", "arm", [], good)
    assert refusal.value.code == "trajectory_busy"
    # A direct command ends it.
    arm.driver.command("group", "arm", [0.0, -1.8, 1.55, 0.0, 0.8, 0.0])
    assert not arm.driver.status().trajectory_running


def test_trajectory_values_follow_joint_names(arm):
    arm.start_driver()
    points = waypoints(0, [0.0, 0.4], 0.1)
    names = list(reversed(ARM))
    reordered = [(t, list(reversed(q))) for t, q in points["positions"]]
    arm.driver.command_trajectory("group", "arm", names, {**points, "positions": reordered})
    wait_for(lambda: abs(arm.joint("waist") - 0.4) < 0.03)
    assert abs(arm.joint("wrist_rotate")) < 0.02


def test_a_velocity_trajectory_sends_velocities_on_time(arm):
    arm.start_driver()
    mode = Mode("velocity", "velocity", 0, 0)
    arm.driver.set_operating_modes("single", "waist", mode).result(timeout=5)
    speeds = (0.0, 0.4, -0.4, 0.0)
    points = {
        "positions": [(0.3 * k, []) for k in range(4)],
        "velocities": [(0.3 * k, [v]) for k, v in enumerate(speeds)],
        "effort": [(0.3 * k, []) for k in range(4)],
    }
    arm.driver.command_trajectory("single", "waist", [], points)
    seen = [arm.servo("waist", "Goal_Velocity")]
    start = time.monotonic()
    while arm.driver.status().trajectory_running and time.monotonic() < start + 5.0:
        goal = arm.servo("waist", "Goal_Velocity")
        if goal != seen[-1]:
            seen.append(goal)
        time.sleep(0.003)
    raw = [round(v / RAD_PER_S_PER_UNIT) for v in speeds[1:]]
    assert [v for v in seen if v] == raw[:2]
    wait_for(lambda: arm.servo("waist", "Goal_Velocity") == 0)


def test_shadows_take_no_goals_or_modes_of_their_own(arm):
    arm.start_driver()
    before = arm.servo("elbow_shadow", "Goal_Position")
    goal = arm.driver.set_registers("single", "elbow_shadow", {"Goal_Position": 2048})
    with pytest.raises(ServiceFailed, match="follows elbow"):
        goal.result(timeout=5)
    with pytest.raises(ServiceFailed, match="mode of elbow"):
        arm.driver.set_operating_modes("single", "elbow_shadow", Mode("velocity"))
    assert arm.servo("elbow_shadow", "Goal_Position") == before


def test_registers_reach_shadows_and_are_read_back_one_per_joint(arm):
    arm.start_driver()
    arm.driver.set_registers("group", "arm", {"Profile_Velocity": 777}).result(timeout=5)
    values = arm.driver.get_registers("group", "arm", "Profile_Velocity").result(timeout=5)
    assert values == [777] * 6
    assert arm.servo("elbow_shadow", "Profile_Velocity") == 777
    lacking = arm.driver.set_registers("group", "all", {"Goal_Current": 5})
    with pytest.raises(ServiceFailed):
        arm.driver.get_registers("single", "gripper", "Goal_Current").result(timeout=5)
    assert lacking.result(timeout=5) == ["wrist_rotate.Goal_Current", "gripper.Goal_Current"]
    ids = arm.driver.get_registers("single", "shoulder_shadow", "ID").result(timeout=5)
    assert ids == [3]
    for register, value in (
        ("ID", 1),
        ("Bus_Watchdog", 0),
        ("Present_Position", 1),
        ("Nonsense", 1),
        ("Temperature_Limit", 200),
    ):
        with pytest.raises(ServiceFailed):
            arm.driver.set_registers("single", "waist", {register: value}).result(timeout=5)


def test_fewer_values_than_joints_when_a_servo_is_gone(arm):
    arm.start_driver()
    arm.tell("unplug_servo 6")
    wait_for(lambda: arm.driver.status().missing)
    values = arm.driver.get_registers("group", "all", "Hardware_Error_Status").result(timeout=5)
    assert values == [0, 0, 0]


def test_eeprom_registers_wait_for_torque_off_and_are_written_once(arm):
    arm.start_driver()
    with pytest.raises(ServiceFailed, match="torque"):
        arm.driver.set_registers("single", "waist", {"Temperature_Limit": 70}).result(timeout=5)
    arm.driver.torque_enable("single", "waist", False).result(timeout=5)
    before = arm.servos("eeprom_writes")[1]
    for _ in range(3):
        arm.driver.set_registers("single", "waist", {"Temperature_Limit": 70}).result(timeout=5)
    assert arm.servos("eeprom_writes")[1] == before + 1


def test_torque_off_refuses_commands_and_torque_on_does_not_jump(arm):
    arm.start_driver()
    use_profile(arm)
    arm.driver.command("group", "arm", [0.5, -1.0, 1.0, 0, 0, 0])
    wait_for(lambda: abs(arm.joint("waist") - 0.5) < 0.03)
    arm.driver.torque_enable("group", "arm", False).result(timeout=5)
    wait_for(lambda: arm.joint("elbow") > 1.3)
    assert arm.servo("elbow_shadow", "Torque_Enable") == 0
    with pytest.raises(CommandRefused) as refusal:
        arm.driver.command("group", "arm", [0] * 6)
    assert refusal.value.code == "torque_off"
    wait_for(lambda: all(abs(arm.speed(j)) < 0.01 for j in ARM))
    sagged = arm.joint("elbow")
    arm.driver.torque_enable("group", "arm", True).result(timeout=5)
    start = len(arm.readings)
    wait_for(lambda: len(arm.readings) > start + 30)
    assert arm.joint("elbow") == pytest.approx(sagged, abs=0.05)
    assert arm.servo("elbow_shadow", "Torque_Enable") == 1


def test_joint_states_go_on_during_services(timed_arm):
    timed_arm.start_driver()
    wait_for(lambda: timed_arm.readings)
    for value in range(5):
        timed_arm.driver.set_registers(
            "group", "arm", {"Profile_Velocity": 1000 + value, "Profile_Acceleration": 200}
        ).result(timeout=5)
    times = [t for t, _ in timed_arm.readings]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    # Interbotix's driver is silent for 10 ms per register: 600 ms here.
    assert max(gaps) < 0.1


def test_reboot_restores_profiles_and_gains_and_reaches_shadows(arm):
    arm.start_driver()
    arm.driver.set_registers("group", "arm", {"Position_P_Gain": 640}).result(timeout=5)
    before = arm.servos("_boot_s")
    restarted = arm.driver.reboot("single", "shoulder", enable=True, smart=False).result(timeout=20)
    assert restarted == ["shoulder", "shoulder_shadow"]
    after = arm.servos("_boot_s")
    assert {i for i in after if after[i] != before[i]} == {2, 3}
    for name in restarted:
        assert arm.servo(name, "Profile_Velocity") == 2000
        assert arm.servo(name, "Position_P_Gain") == 640
        assert arm.servo(name, "Torque_Enable") == 1
        assert arm.servo(name, "Bus_Watchdog") == 25
    assert arm.driver.status().state is DriverState.RUNNING
    start = len(arm.readings)
    wait_for(lambda: len(arm.readings) > start + 5)


def test_smart_reboot_restarts_only_who_has_an_error(arm):
    arm.start_driver()
    arm.tell("overload 5")
    arm.wait_state(DriverState.STOPPED)
    restarted = arm.driver.reboot("group", "all", enable=True, smart=True).result(timeout=20)
    assert restarted == ["elbow_shadow"]
    assert arm.driver.status().state is DriverState.RUNNING
