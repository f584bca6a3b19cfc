"""Kinds of observations: how they are declared, read, paired and remembered; what a task brings."""

import math

import bundle_builder
import numpy as np
import pytest
from geometry_msgs.msg import Twist
from node_common.strict_yaml import BundleError
from policy_server.bundle import load_bundle
from policy_server.deployment import StateObservation
from policy_server.observation_buffer import (
    FreshnessLimits,
    ObservationBuffer,
    Problem,
    camera_source,
)
from policy_server.observation_history import ObservationHistory
from policy_server.observation_sources import STATE_SOURCES
from policy_server.policy import Task, TaskError, check_task, example_observation
from policy_server.registry import load_policy
from policy_server.robots import check_robot, load_robot
from sensor_msgs.msg import Imu, JointState

MS = 10**6
LIMITS = FreshnessLimits(camera_timeout_s=0.5, state_timeout_s=0.2, future_tolerance_s=0.05)
ROBOT = load_robot("wx250s")


# --- two cameras --------------------------------------------------------------------------------


def image(number):
    return np.full((2, 2, 3), number, np.uint8)


def two_cameras(delays_ms, count=20, period_ms=33, skew_ms=0):
    """Feed the images of two cameras in the order of their arrival; the time of the last [ms]."""
    buffer = ObservationBuffer(("camera", "camera wrist", "end_effector_state"), LIMITS)
    arrivals = []
    for k in range(count):
        for camera, delay_ms in zip(("main", "wrist"), delays_ms, strict=True):
            stamp_ms = 1000 + k * period_ms + (skew_ms if camera == "wrist" else 0)
            arrivals.append((stamp_ms + delay_ms, camera, stamp_ms, k))
    for arrival_ms, camera, stamp_ms, k in sorted(arrivals):
        state = {"state": np.full(7, arrival_ms, np.float32)}
        buffer.put("end_effector_state", state, arrival_ms * MS, arrival_ms * MS)
        name = camera_source(camera)
        buffer.put(name, {camera: image(k)}, stamp_ms * MS, arrival_ms * MS)
    return buffer, max(arrivals)[0]


@pytest.mark.parametrize("delays_ms", [(10, 10), (10, 150), (150, 10), (0, 400)])
@pytest.mark.parametrize("skew_ms", [0, 7, -12])
def test_images_of_several_cameras_are_of_one_moment(delays_ms, skew_ms):
    buffer, now_ms = two_cameras(delays_ms, skew_ms=skew_ms)
    found = buffer.take(now_ms * MS)
    assert not isinstance(found, Problem), found
    assert found.values["main"][0, 0, 0] == found.values["wrist"][0, 0, 0] == 19
    assert found.stamp_ns == (1000 + 19 * 33 + min(0, skew_ms)) * MS
    assert found.age_s == pytest.approx(now_ms * 1e-3 - found.stamp_ns * 1e-9)
    # The state is that of the images, however late the slower camera's came.
    assert abs(found.values["state"][0] - found.stamp_ns / MS) <= 33
    assert buffer.images_received == 40


def test_while_the_slower_camera_is_behind_older_images_of_the_other_are_used():
    buffer = ObservationBuffer(("camera", "camera wrist"), LIMITS)
    for k in range(20):
        now_ms = 1000 + 33 * k + 10
        buffer.put("camera", {"main": image(k)}, (now_ms - 10) * MS, now_ms * MS)
        if k >= 5:
            buffer.put("camera wrist", {"wrist": image(k - 5)}, (now_ms - 175) * MS, now_ms * MS)
    found = buffer.take(now_ms * MS)
    assert found.values["main"][0, 0, 0] == found.values["wrist"][0, 0, 0] == 14


@pytest.mark.parametrize("missing", ["main", "wrist"])
def test_a_camera_that_is_missing_is_named(missing):
    buffer = ObservationBuffer(("camera", "camera wrist"), LIMITS)
    for camera in {"main", "wrist"} - {missing}:
        buffer.put(camera_source(camera), {camera: image(1)}, 1000 * MS, 1001 * MS)
    problem = buffer.take(1002 * MS)
    assert problem.source == camera_source(missing)
    expected = "no image has" if missing == "main" else "no image of camera wrist has arrived"
    assert expected in problem.message
    buffer.refuse("camera wrist", 'found the encoding "8UC9"')
    assert "images of camera wrist arrive and are refused" in buffer.refusal()


def test_cameras_whose_images_are_never_of_one_moment_are_refused():
    limits = FreshnessLimits(0.5, 0.2, 0.05, pairing_tolerance_s=0.03)
    buffer = ObservationBuffer(("camera", "camera wrist"), limits)
    buffer.put("camera", {"main": image(1)}, 1000 * MS, 1010 * MS)
    buffer.put("camera wrist", {"wrist": image(1)}, 1040 * MS, 1041 * MS)
    problem = buffer.take(1045 * MS)
    assert "0.040 s from them, expected at most 0.03 s" in problem.message
    buffer.put("camera", {"main": image(2)}, 1033 * MS, 1050 * MS)
    assert buffer.take(1055 * MS).values["main"][0, 0, 0] == 2


# --- states -------------------------------------------------------------------------------------


def reader(kind, names, units, quantity=""):
    observation = StateObservation("x", ("m/x",), tuple(names), tuple(units), kind, quantity)
    return STATE_SOURCES[kind].make_reader(observation)


def test_joints_are_found_by_name_in_any_order():
    names = ["gripper", "wrist_angle", "waist"]
    message = JointState(name=names, position=[0.1, 0.2, 0.3], velocity=[1.0, 2.0, 3.0])
    read = reader("joint_state", ("waist", "gripper"), ("rad", "rad"), "position")
    np.testing.assert_allclose(read(message), [0.3, 0.1])
    read = reader("joint_state", ("waist", "wrist_angle"), ("rad/s", "rad/s"), "velocity")
    np.testing.assert_allclose(read(message), [3.0, 2.0])
    with pytest.raises(ValueError, match="found no velocity of waist"):
        read(JointState(name=["waist", "wrist_angle"], position=[0.0, 0.0]))
    with pytest.raises(ValueError, match="found no velocity of wrist_angle"):
        read(JointState(name=["waist"], velocity=[0.0]))


@pytest.mark.parametrize("seed", range(4))
def test_gravity_and_attitude_of_an_imu(seed):
    roll, pitch, yaw = np.random.default_rng(seed).uniform((-3, -1.5, -3), (3, 1.5, 3))
    half = np.array([roll, pitch, yaw]) / 2
    (cr, cp, cy), (sr, sp, sy) = np.cos(half), np.sin(half)
    message = Imu()
    message.orientation.w = cr * cp * cy + sr * sp * sy
    message.orientation.x = sr * cp * cy - cr * sp * sy
    message.orientation.y = cr * sp * cy + sr * cp * sy
    message.orientation.z = cr * cp * sy - sr * sp * cy
    message.angular_velocity.z = 0.7
    read = reader("imu", ("roll", "pitch", "yaw", "angular_velocity_z"), ("rad",) * 3 + ("rad/s",))
    np.testing.assert_allclose(read(message), [roll, pitch, yaw, 0.7], atol=1e-6)
    read = reader("imu", ("gravity_x", "gravity_y", "gravity_z"), ("1",) * 3)
    expected = [
        math.sin(pitch),
        -math.sin(roll) * math.cos(pitch),
        -math.cos(roll) * math.cos(pitch),
    ]
    np.testing.assert_allclose(read(message), expected, atol=1e-6)


def test_what_an_imu_does_not_measure_is_no_number():
    read = reader("imu", ("gravity_x", "angular_velocity_x"), ("1", "rad/s"))
    message = Imu()
    with pytest.raises(ValueError, match="orientation of length 0"):
        read(Imu(orientation=type(message.orientation)(w=0.0)))
    message.orientation_covariance[0] = -1.0
    with pytest.raises(ValueError, match="without orientation"):
        read(message)
    # What is not asked for may be missing.
    assert reader("imu", ("angular_velocity_x",), ("rad/s",))(message)[0] == 0.0
    message.angular_velocity_covariance[0] = -1.0
    with pytest.raises(ValueError, match="without angular velocity"):
        reader("imu", ("angular_velocity_x",), ("rad/s",))(message)


def test_a_commanded_velocity():
    message = Twist()
    message.linear.x, message.linear.y, message.angular.z = 0.5, -0.1, 0.8
    read = reader("commanded_velocity", ("wz", "vx"), ("rad/s", "m/s"))
    np.testing.assert_allclose(read(message), [0.8, 0.5])


# --- bundles ------------------------------------------------------------------------------------


def test_a_bundle_may_have_observations_of_every_kind(tmp_path):
    file = bundle_builder.write_all_kinds_bundle(tmp_path / "all")
    policy = load_policy(file)
    check_robot(file, policy.spec, ROBOT)
    assert policy.spec.needs("goal_image") and policy.spec.needs("language_embedding")
    example = example_observation(policy.spec)
    assert example.values["image"].shape == (2, 4, 4, 3)
    assert example.values["state"].shape == (3, 7)
    goal_image = np.full((30, 40, 3), 90, np.uint8)
    seen = {
        "image": np.stack([image(10), image(20)]).repeat(2, 1).repeat(2, 2),
        "wrist": np.full((4, 4, 3), 30, np.uint8),
        "state": np.full((3, 7), 0.1, np.float32),
        "joints": np.array([0.5, 0.25], np.float32),
        "last": np.array([0.01, 1.0], np.float32),
    }
    task = Task(goal_image=goal_image, embedding=np.arange(5, dtype=np.float32))
    action = policy.infer(type(example)(seen, task)).action
    expected = np.array([15, 30, 90, 2.1, 0.75, 1.01, 10]) * bundle_builder.ALL_KINDS_SCALE
    np.testing.assert_allclose(action, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task(), "found no goal image"),
        (Task(goal_image=image(1)), "found an embedding of 0 numbers, expected 5"),
        (Task(goal_image=image(1), embedding=np.zeros(4, np.float32)), "expected 5.*minilm"),
        (Task(goal_image=image(1), embedding=np.full(5, np.nan, np.float32)), "not finite"),
    ],
)
def test_a_task_that_lacks_what_the_policy_needs_is_refused(tmp_path, task, said):
    spec = load_bundle(bundle_builder.write_all_kinds_bundle(tmp_path / "all")).deployment
    with pytest.raises(TaskError, match=said):
        check_task(spec, task)


def at(index, key, value):
    def change(deployment):
        deployment["observations"][index][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (at(4, "quantity", "speed"), "quantity"),
        (at(4, "units", ["rad", "rad"]), "rad/s or m/s for waist"),
        (at(4, "names", ["waist", "elbw"]), "names out of"),
        (at(5, "names", ["dx", "dw"]), "names out of"),
        (at(5, "units", ["rad", "opening"]), "units of dx"),
        (at(3, "history", 2), "float32 [3, 7]"),
        (at(3, "history", 0), "history"),
        (at(1, "history", 65), "history"),
        (at(4, "kind", "imu"), "names out of"),
        (at(6, "size", 6), "float32 [1, 5]"),
        (at(2, "kind", "camera"), "goal_image (schema 2): a camera shows what is there now"),
    ],
)
def test_observations_that_do_not_fit_are_refused(tmp_path, change, said):
    with pytest.raises(BundleError) as refused:
        file = bundle_builder.write_all_kinds_bundle(tmp_path / "all", change)
        check_robot(file, load_bundle(file).deployment, ROBOT)
    assert said in str(refused.value)


def test_a_robot_without_an_imu_is_told_so(tmp_path):
    def change(deployment):
        deployment["observations"][4] |= {
            "kind": "imu",
            "names": ["roll", "pitch"],
            "units": ["rad", "rad"],
        }
        del deployment["observations"][4]["quantity"]

    file = bundle_builder.write_all_kinds_bundle(tmp_path / "all", change)
    with pytest.raises(BundleError, match=r"kind: found imu, expected one of .*joint_state"):
        check_robot(file, load_bundle(file).deployment, ROBOT)


# --- history ------------------------------------------------------------------------------------


def test_a_history_is_of_the_last_ticks_and_begins_with_the_oldest_that_is_known(tmp_path):
    spec = load_bundle(bundle_builder.write_all_kinds_bundle(tmp_path / "all")).deployment
    history = ObservationHistory(spec)

    def tick(number):
        return history.extend({"image": image(number), "state": np.full(7, number, np.float32)})

    def seen(values):
        return values["image"][:, 0, 0, 0].tolist(), values["state"][:, 0].tolist()

    first = tick(1)
    assert seen(first) == ([1, 1], [1, 1, 1])
    assert first["last"].tolist() == [0.0, 0.0]
    history.acted(np.array([0.01, 0, 0, 0, 0, 0, 1.0]))
    second = tick(2)
    assert seen(second) == ([1, 2], [1, 1, 2])
    np.testing.assert_allclose(second["last"], [0.01, 1.0])
    assert seen(tick(3)) == ([2, 3], [1, 2, 3])
    # What was handed out is not changed afterwards.
    assert seen(first) == ([1, 1], [1, 1, 1])
    history.clear()
    assert seen(tick(9)) == ([9, 9], [9, 9, 9])
