"""The shipped files load; wrong ones are refused with the place of the mistake."""

import pytest
import yaml
from widowx_control.xs_driver.configuration import ConfigurationError, load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors
from widowx_control.xs_driver.robot_info import limits_from_urdf, robot_info
from widowx_description import urdf_text


@pytest.fixture(scope="module")
def shipped():
    return load_configuration(default_motors(), default_modes())


def test_the_shipped_arm_is_the_wx250s_of_interbotix(shipped):
    assert {name: m.servo_id for name, m in shipped.motors.items()} == {
        "waist": 1,
        "shoulder": 2,
        "shoulder_shadow": 3,
        "elbow": 4,
        "elbow_shadow": 5,
        "forearm_roll": 6,
        "wrist_angle": 7,
        "wrist_rotate": 8,
        "gripper": 9,
    }
    assert shipped.joint_names() == (
        *("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"),
        *("gripper", "left_finger", "right_finger"),
    )


def test_robot_info_is_that_of_the_reference_driver(shipped):
    limits = limits_from_urdf(urdf_text())
    arm = robot_info(shipped, limits, "group", "arm", shipped.group_modes["arm"])
    assert (arm.mode, arm.profile_type) == ("position", "time")
    assert arm.joint_ids == [1, 2, 4, 6, 7, 8]
    assert arm.joint_lower_limits == pytest.approx(
        [-3.1415827, -1.8849556, -2.1467550, -3.1415827, -1.7453293, -3.1415827], abs=1e-6
    )
    assert arm.joint_upper_limits == pytest.approx(
        [3.1415827, 1.9896754, 1.6057029, 3.1415827, 2.1467550, 3.1415827], abs=1e-6
    )
    assert arm.joint_sleep_positions == [0, -1.8, 1.55, 0, 0.8, 0]
    assert arm.joint_state_indices == [0, 1, 2, 3, 4, 5]
    gripper = robot_info(shipped, limits, "single", "gripper", shipped.motor_modes["gripper"])
    assert gripper.joint_names == ["left_finger"]
    assert gripper.joint_ids == [9]
    assert gripper.joint_lower_limits == [0.015]
    assert gripper.joint_upper_limits == [0.037]
    assert gripper.joint_sleep_positions == pytest.approx([0.0194936], abs=1e-6)
    assert gripper.joint_state_indices == [7]
    whole = robot_info(shipped, limits, "group", "all", shipped.group_modes["arm"])
    assert whole.joint_state_indices == [0, 1, 2, 3, 4, 5, 7]
    assert sorted(whole.name) == ["all", "arm"]


def change(path, value):
    """Return a function that sets, or with value ... deletes, an entry."""

    def apply(root):
        *heads, last = path
        for head in heads:
            root = root[head]
        if value is ...:
            del root[last]
        else:
            root[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("motors", "waist", "ID"), 300, "motors.waist.ID"),
        (("motors", "waist", "ID"), 2, "also the ID of"),
        (("motors", "waist", "ID"), ..., "motors.waist.ID: missing"),
        (("motors", "waist", "Goal_Position"), 5, "waist.Goal_Position"),
        (("motors", "waist", "Max_Position_Limit"), 5000, "Max_Position_Limit"),
        (("motors", "waist", "Min_Position_Limit"), 4095, "Min_Position_Limit"),
        (("motors", "waist", "Drive_Mode"), True, "waist.Drive_Mode"),
        (("motors",), {}, "at least one motor"),
        (("motors", "elbow_shadow", "Secondary_ID"), 255, "Secondary_ID"),
        (("joint_order",), ["waist", "ghost"], "ghost"),
        (("joint_order",), ["waist", "waist"], "twice"),
        (("sleep_positions",), [0, 1], "sleep_positions"),
        (("groups", "arm"), ["left_finger"], "groups.arm"),
        (("grippers", "gripper", "horn_radius"), 0.02, "horn_radius"),
        (("grippers", "gripper", "type"), "rack_and_pinion", "swing_arm"),
        (("shadows", "shoulder", "shadow_list"), ["ghost"], "shadow_list"),
        (("sisters",), {"waist": "elbow"}, "sisters"),
        (("joint_state_publisher", "update_rate"), 0, "update_rate"),
        (("joint_state_publisher", "update_rte"), 100, "update_rte"),
        (("prot",), "/dev/ttyUSB0", "prot"),
    ],
)
def test_a_mistake_in_the_motors_is_named(tmp_path, path, value, complaint):
    root = yaml.safe_load(default_motors().read_text())
    change(path, value)(root)
    file = tmp_path / "motors.yaml"
    file.write_text(yaml.safe_dump(root))
    with pytest.raises(ConfigurationError, match=complaint) as refusal:
        load_configuration(file, default_modes())
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("groups: {leg: {operating_mode: pwm}}", "leg"),
        ("groups: {arm: {operating_mode: hover}}", "hover"),
        ("groups: {arm: {profile_type: slow}}", "slow"),
        ("singles: {gripper: {profile_velocity: -1}}", "profile_velocity"),
        ("singles: {gripper: {torque: true}}", "torque"),
        ("singles: [gripper]", "mapping"),
        ("a: b: c", "not YAML"),
    ],
)
def test_a_mistake_in_the_modes_is_named(tmp_path, text, complaint):
    file = tmp_path / "modes.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        load_configuration(default_motors(), file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_configuration(default_motors(), tmp_path / "absent.yaml")


def test_a_port_in_the_modes_wins(tmp_path):
    file = tmp_path / "modes.yaml"
    file.write_text("port: /dev/ttyUSB7\n")
    assert load_configuration(default_motors(), file).port == "/dev/ttyUSB7"
