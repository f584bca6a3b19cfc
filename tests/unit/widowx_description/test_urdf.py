"""The URDF against what is known of the robot from elsewhere."""

import xml.etree.ElementTree as ET

import numpy as np
import pinocchio as pin
import pytest
from widowx_description import load_numbers, urdf_text

INTERBOTIX_JOINTS = [
    "waist",
    "shoulder",
    "elbow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
    "ee_arm",
    "gripper",
    "gripper_bar",
    "ee_bar",
    "left_finger",
    "right_finger",
    "ee_gripper",
]
INTERBOTIX_LINKS = {
    "base_link",
    "shoulder_link",
    "upper_arm_link",
    "upper_forearm_link",
    "lower_forearm_link",
    "wrist_link",
    "gripper_link",
    "ee_arm_link",
    "gripper_prop_link",
    "gripper_bar_link",
    "fingers_link",
    "left_finger_link",
    "right_finger_link",
    "ee_gripper_link",
}


def test_links_and_joints_have_interbotix_names_and_the_prefix_is_on_links_only():
    robot = ET.fromstring(urdf_text(prefix="wx250s/"))
    assert [joint.get("name") for joint in robot.iter("joint") if joint.find("parent") is not None]
    joints = {j.get("name") for j in robot.findall("joint")}
    assert joints == set(INTERBOTIX_JOINTS)
    links = {link.get("name") for link in robot.findall("link")}
    assert links == {f"wx250s/{name}" for name in INTERBOTIX_LINKS}
    named = {e.get("link") for tag in ("parent", "child") for e in robot.iter(tag)}
    assert named == links


def test_inertias_are_physical():
    for name, inertial in load_numbers()["inertials"].items():
        ixx, iyy, izz, ixy, ixz, iyz = inertial["inertia"]
        tensor = np.array([[ixx, ixy, ixz], [ixy, iyy, iyz], [ixz, iyz, izz]])
        a, b, c = np.linalg.eigvalsh(tensor)
        assert a > 0, name
        assert a + b >= c, name


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ([0, 0, 0, 0, 0, 0], (-1.88, -1.47, -0.19)),
        ([0, -1.80, 1.55, 0, 0.80, 0], (1.11, -1.41, -0.17)),
    ],
)
def test_gravity_torques_are_those_of_the_interbotix_model(q, expected):
    """Nm at shoulder, elbow and wrist; Interbotix's three 1 g frames are worth 0.015 Nm."""
    model = pin.buildModelFromXML(urdf_text())
    full = pin.neutral(model)
    full[:6] = q
    torque = pin.computeGeneralizedGravity(model, model.createData(), full)
    np.testing.assert_allclose([torque[1], torque[2], torque[4]], expected, atol=0.02)


def test_meshes_replace_only_the_visual_geometry():
    uri = "package://interbotix_xsarm_descriptions/meshes/wx250s_meshes"
    plain, meshed = ET.fromstring(urdf_text()), ET.fromstring(urdf_text(meshes=uri))
    assert not list(plain.iter("mesh"))
    files = {mesh.get("filename") for mesh in meshed.iter("mesh")}
    assert f"{uri}/upper_forearm.stl" in files
    assert len(files) == 10
    assert all(visual.find("geometry/mesh") is not None for visual in meshed.iter("visual"))
    for a, b in zip(plain.iter("collision"), meshed.iter("collision"), strict=True):
        assert ET.tostring(a) == ET.tostring(b)
