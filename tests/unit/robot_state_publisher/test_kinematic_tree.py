"""URDFs that are no tree are refused with the reason."""

import numpy as np
import pytest
from robot_state_publisher.kinematic_tree import DescriptionError, parse_urdf
from robot_state_publisher.publish_schedule import PublishSchedule

TREE = """
<robot name="r">
  <link name="a"/><link name="b"/><link name="c"/><link name="d"/>
  <joint name="j1" type="revolute"><parent link="a"/><child link="b"/>
    <origin xyz="1 2 3" rpy="0 0 1.5707963267948966"/><axis xyz="0 0 2"/></joint>
  <joint name="j2" type="prismatic"><parent link="b"/><child link="c"/>
    <mimic joint="j1" multiplier="2" offset="0.5"/></joint>
  <joint name="j3" type="floating"><parent link="c"/><child link="d"/></joint>
</robot>
"""


def test_axis_is_normalised_defaults_hold_and_mimicry_scales():
    tree = parse_urdf(TREE)
    assert tree.root == "a"
    first, second = tree.moving_transforms({"j1": np.pi / 2})
    np.testing.assert_allclose(first.translation, [1, 2, 3])
    np.testing.assert_allclose(first.rotation, [0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(second.translation, [np.pi + 0.5, 0, 0])
    assert tree.fixed_transforms() == [], "a floating joint is somebody else's to publish"


@pytest.mark.parametrize("space", ["", "\n", " \t\r\n\n"])
def test_white_space_before_the_declaration_is_skipped(space):
    assert parse_urdf(f"{space}<?xml version='1.0'?>{TREE}").root == "a"


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("<robot", "<robo", "not XML"),
        ('name="d"/>', 'name="c"/>', "two links 'c'"),
        ('name="j2"', 'name="j1"', "two joints 'j1'"),
        ('<child link="b"/>', '<child link="z"/>', "link 'z'"),
        ('<child link="d"/>', '<child link="b"/>', "child of two joints"),
        ('<parent link="a"/>', '<parent link="c"/>', "expected"),
        ('type="floating"', 'type="screw"', "unknown type 'screw'"),
        ('xyz="1 2 3"', 'xyz="1 2"', "three numbers"),
        ('xyz="1 2 3"', 'xyz="1 2 nan"', "finite"),
        ('xyz="0 0 2"', 'xyz="0 0 0"', "length zero"),
        ('mimic joint="j1"', 'mimic joint="j9"', "'j9'"),
        ('<parent link="b"/>', "", "no <parent>"),
    ],
)
def test_description_that_is_no_tree_is_refused(found, replacement, message):
    with pytest.raises(DescriptionError, match=message):
        parse_urdf(TREE.replace(found, replacement, 1))


def test_time_that_goes_back_lets_old_stamps_through_again():
    schedule = PublishSchedule(10.0, ignore_timestamp=False)
    second = 1_000_000_000
    assert not schedule.clock_went_back(50 * second)
    assert schedule.is_due(["j1"], 50 * second, 50 * second)
    assert not schedule.is_due(["j1"], 10 * second, 50 * second)
    assert schedule.clock_went_back(10 * second)
    assert schedule.is_due(["j1"], 10 * second, 10 * second)
