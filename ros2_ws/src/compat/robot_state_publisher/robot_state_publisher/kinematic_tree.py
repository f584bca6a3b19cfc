"""The joints of a URDF, and the transform of each at a position."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REVOLUTE_TYPES = frozenset({"revolute", "continuous"})
MOVING_TYPES = REVOLUTE_TYPES | {"prismatic"}
# A planar joint counts as fixed and a floating one is left to others: one number cannot place them.
FIXED_TYPES = frozenset({"fixed", "planar"})
FLOATING_TYPE = "floating"


class DescriptionError(ValueError):
    """A text that is no URDF, or one whose links and joints make no tree."""


@dataclass(frozen=True)
class Mimic:
    """The position of a joint that follows another: multiplier * position + offset."""

    joint: str
    multiplier: float
    offset: float


@dataclass(frozen=True)
class Joint:
    """One joint; its frame is that of its child link.

    Attributes:
        translation: (3,) origin in the parent link [m].
        rotation: (4,) unit quaternion x y z w of the origin.
        axis: (3,) unit vector in the joint's frame.
    """

    name: str
    kind: str
    parent: str
    child: str
    translation: Array
    rotation: Array
    axis: Array
    mimic: Mimic | None


@dataclass(frozen=True)
class Transform:
    """Pose of the link `child` in the link `parent`: translation (3,) [m], quaternion x y z w."""

    parent: str
    child: str
    translation: Array
    rotation: Array


@dataclass(frozen=True)
class KinematicTree:
    """A robot's joints by name."""

    root: str
    joints: Mapping[str, Joint]

    def fixed_transforms(self) -> list[Transform]:
        """Transforms of all joints that do not move."""
        return [
            Transform(joint.parent, joint.child, joint.translation, joint.rotation)
            for joint in self.joints.values()
            if joint.kind in FIXED_TYPES
        ]

    def moving_transforms(self, positions: Mapping[str, float]) -> list[Transform]:
        """Transforms of the moving joints whose position is known.

        A mimic joint follows its master unless it has a position of its own; names that are not
        joints of the robot are ignored.

        Args:
            positions: rad or m by joint name.
        """
        known = dict(positions)
        for joint in self.joints.values():
            mimic = joint.mimic
            if mimic is not None and mimic.joint in positions and joint.name not in positions:
                known[joint.name] = mimic.multiplier * positions[mimic.joint] + mimic.offset
        return [
            _moved(joint, known[joint.name])
            for joint in self.joints.values()
            if joint.kind in MOVING_TYPES and joint.name in known
        ]


def parse_urdf(text: str) -> KinematicTree:
    """Reads the joints of a URDF.

    Raises:
        DescriptionError: naming the element, what was found and what was expected.
    """
    try:
        # A block of text in a launch file often begins with an empty line.
        robot = ElementTree.fromstring(text.lstrip())
    except ElementTree.ParseError as error:
        raise DescriptionError(f"the robot description is not XML: {error}") from None
    if robot.tag != "robot":
        raise DescriptionError(f"the top element is <{robot.tag}>; expected <robot>")
    links = [_attribute(element, "name") for element in robot.findall("link")]
    _refuse_duplicates("link", links)
    joints = [_joint(element) for element in robot.findall("joint")]
    _refuse_duplicates("joint", [joint.name for joint in joints])
    by_name = {joint.name: joint for joint in joints}
    for joint in joints:
        for end in (joint.parent, joint.child):
            if end not in links:
                raise DescriptionError(
                    f"joint '{joint.name}' names the link '{end}', which does not exist"
                )
        if joint.mimic is not None and joint.mimic.joint not in by_name:
            raise DescriptionError(
                f"joint '{joint.name}' mimics '{joint.mimic.joint}', which does not exist"
            )
    return KinematicTree(_root(links, joints), by_name)


def _root(links: list[str], joints: list[Joint]) -> str:
    parents: dict[str, str] = {}
    for joint in joints:
        if joint.child in parents:
            raise DescriptionError(
                f"link '{joint.child}' is the child of two joints; expected a tree"
            )
        parents[joint.child] = joint.parent
    roots = [link for link in links if link not in parents]
    if len(roots) != 1:
        found = ", ".join(roots) or "none"
        raise DescriptionError(f"links without a parent: {found}; expected exactly one")
    for link in links:
        ancestor, steps = link, 0
        while ancestor in parents:
            ancestor, steps = parents[ancestor], steps + 1
            if steps > len(links):
                raise DescriptionError(f"link '{link}' is in a loop of joints; expected a tree")
    return roots[0]


def _refuse_duplicates(kind: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DescriptionError(f"there are two {kind}s '{name}'; expected unique names")


def _joint(element: ElementTree.Element) -> Joint:
    name = _attribute(element, "name")
    kind = _attribute(element, "type")
    if kind not in MOVING_TYPES | FIXED_TYPES | {FLOATING_TYPE}:
        raise DescriptionError(f"joint '{name}' has the unknown type '{kind}'")
    origin = element.find("origin")
    xyz = _vector(origin, "xyz", (0.0, 0.0, 0.0), name)
    rpy = _vector(origin, "rpy", (0.0, 0.0, 0.0), name)
    axis = _vector(element.find("axis"), "xyz", (1.0, 0.0, 0.0), name)
    length = float(np.linalg.norm(axis))
    if kind in MOVING_TYPES and not length > 0.0:
        raise DescriptionError(f"joint '{name}' has an axis of length zero")
    return Joint(
        name=name,
        kind=kind,
        parent=_attribute(_child(element, "parent", name), "link"),
        child=_attribute(_child(element, "child", name), "link"),
        translation=xyz,
        rotation=_quaternion_from_rpy(rpy),
        axis=axis / length if length else axis,
        mimic=_mimic(element.find("mimic"), name),
    )


def _mimic(element: ElementTree.Element | None, joint: str) -> Mimic | None:
    if element is None:
        return None
    return Mimic(
        _attribute(element, "joint"),
        _number(element.get("multiplier", "1"), f"the mimic multiplier of joint '{joint}'"),
        _number(element.get("offset", "0"), f"the mimic offset of joint '{joint}'"),
    )


def _child(element: ElementTree.Element, tag: str, joint: str) -> ElementTree.Element:
    child = element.find(tag)
    if child is None:
        raise DescriptionError(f"joint '{joint}' has no <{tag}>")
    return child


def _attribute(element: ElementTree.Element, name: str) -> str:
    value = element.get(name)
    if not value:
        raise DescriptionError(f"a <{element.tag}> has no attribute '{name}'")
    return value


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DescriptionError(f"{what} is '{text}'; expected a finite number")
    return value


def _vector(
    element: ElementTree.Element | None,
    name: str,
    default: tuple[float, float, float],
    joint: str,
) -> Array:
    text = element.get(name) if element is not None else None
    if text is None:
        return np.array(default)
    values = [_number(word, f"{name} of joint '{joint}'") for word in text.split()]
    if len(values) != 3:
        raise DescriptionError(f"{name} of joint '{joint}' is '{text}'; expected three numbers")
    return np.array(values)


def _moved(joint: Joint, position: float) -> Transform:
    if joint.kind == "prismatic":
        translation = joint.translation + _rotate(joint.rotation, joint.axis * position)
        return Transform(joint.parent, joint.child, translation, joint.rotation)
    turn = np.append(joint.axis * math.sin(position / 2), math.cos(position / 2))
    return Transform(joint.parent, joint.child, joint.translation, _product(joint.rotation, turn))


def _quaternion_from_rpy(rpy: Array) -> Array:
    """Quaternion of Rz(yaw) Ry(pitch) Rx(roll), the URDF's fixed-axis angles."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy / 2), np.cos(rpy / 2)
    return np.array(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ]
    )


def _product(left: Array, right: Array) -> Array:
    """Quaternion of the rotation `right` followed by `left`."""
    vector = left[3] * right[:3] + right[3] * left[:3] + np.cross(left[:3], right[:3])
    return np.append(vector, left[3] * right[3] - left[:3] @ right[:3])


def _rotate(rotation: Array, vector: Array) -> Array:
    twice = 2.0 * np.cross(rotation[:3], vector)
    return vector + rotation[3] * twice + np.cross(rotation[:3], twice)
