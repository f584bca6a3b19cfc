"""Robot files: those that ship are sound, wrong ones are refused by name."""

import pytest
import yaml
from base_drivers.robot_config import RobotConfigError, load_robot, robot_directory, robot_names


def test_the_named_robots_ship():
    expected = {"locobot", "turtlebot4", "jackal", "rc_car", "go2", "quadrotor"}
    assert expected <= set(robot_names())
    robots = [load_robot(name) for name in robot_names()]
    assert {robot.kinematics for robot in robots} == {"differential", "ackermann", "holonomic"}
    for robot in robots:
        # A full turn of the nominal curve must be possible at nominal speed.
        if robot.min_turning_radius_m:
            assert robot.nominal_speed_m_s / robot.min_turning_radius_m <= robot.max_angular_rad_s


def test_the_locobot_of_the_original_deployment_drives_as_there():
    robot, usual = load_robot("locobot_visualnav"), load_robot("locobot")
    assert (robot.max_linear_m_s, robot.max_angular_rad_s) == (0.2, 0.4)
    assert robot.waypoint_spacing_m == pytest.approx(0.2 / 4.0)
    assert robot.drive.waypoint_index == 2
    assert (robot.body_size_m, robot.camera) == (usual.body_size_m, usual.camera)


def written(tmp_path, **changes):
    values = yaml.safe_load((robot_directory() / "locobot.yaml").read_text())
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        section = values
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[leaf]
        else:
            section[leaf] = value
    file = tmp_path / "locobot.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_linear_m_s": None}, "max_linear_m_s"),
        ({"max_linear_m_s": "fast"}, "max_linear_m_s"),
        ({"nominal_speed_m_s": 0.6}, "nominal_speed_m_s"),
        ({"max_lateral_m_s": 0.1}, "max_lateral_m_s"),
        ({"kinematics": "ackermann"}, "min_turning_radius_m"),
        ({"kinematics": "wheels"}, "kinematics"),
        ({"camera__horizontal_fov_rad": 180.0}, "camera.horizontal_fov_rad"),
        ({"camera__hieght_m": 0.3}, "camera.hieght_m"),
        ({"cmd_vel__stamped": "yes"}, "cmd_vel.stamped"),
        ({"body_size_m": [0.3, 0.3]}, "body_size_m"),
        ({"name": "other"}, "name"),
    ],
)
def test_a_wrong_file_is_refused_by_field(tmp_path, changes, named):
    with pytest.raises(RobotConfigError, match=named.replace(".", r"\.")):
        load_robot(written(tmp_path, **changes))


def test_a_file_of_ones_own_is_read(tmp_path):
    assert load_robot(written(tmp_path, radius_m=0.25)).radius_m == 0.25


def test_a_misspelt_robot_gets_a_hint():
    with pytest.raises(RobotConfigError, match='did you mean "locobot"'):
        load_robot("lokobot")
