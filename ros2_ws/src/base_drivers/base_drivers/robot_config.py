"""What navigation knows of a robot: its body, its limits, its camera, how it is driven."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from node_common.package_share import share_file
from node_common.strict_yaml import BundleError, Section, did_you_mean, read_yaml_mapping

KINEMATICS = ("differential", "ackermann", "holonomic")
CONTROLLERS = ("pd", "pure_pursuit")
MODEL_PERIOD_S = 0.25
"""Time between two waypoints: the navigation networks are trained at 4 Hz."""


class RobotConfigError(ValueError):
    """A robot that is not known, or whose file is wrong."""


@dataclass(frozen=True)
class CameraMount:
    """A forward-looking camera on a robot.

    Attributes:
        height_m: of the optical centre above the ground.
        forward_m: of the optical centre before the robot's centre.
        pitch_rad: positive looks down.
        horizontal_fov_rad: whole horizontal angle of view.
        width, height: of the images [pixels].
    """

    height_m: float
    forward_m: float
    pitch_rad: float
    horizontal_fov_rad: float
    width: int
    height: int


@dataclass(frozen=True)
class DriveConfig:
    """How predicted waypoints become velocities.

    Attributes:
        controller: `pd` (towards one waypoint) or `pure_pursuit` (arc through one waypoint).
        waypoint_index: index of that waypoint in the predicted path, 0-based.
    """

    controller: str
    waypoint_index: int


@dataclass(frozen=True)
class RobotConfig:
    """A robot of `config/robots`.

    Attributes:
        name: as in the file's name.
        kinematics: `differential` (turns on the spot), `ackermann` (turns only while driving) or
            `holonomic` (can also move sideways).
        max_linear_m_s: forward speed. Nothing here ever drives backwards.
        max_lateral_m_s: sideways speed; 0 unless holonomic.
        max_angular_rad_s: yaw rate.
        max_linear_acceleration_m_s2: forward and sideways, of everything that is driven.
        max_linear_deceleration_m_s2: how hard it can brake when it is told to rest.
        max_angular_acceleration_rad_s2: of the yaw rate.
        min_turning_radius_m: of the centre's path; 0 unless Ackermann.
        wheelbase_m: distance of the axles, or of the wheels or feet where there are no axles.
        nominal_speed_m_s: the speed that one model step stands for.
        radius_m: of a circle around the centre that the robot needs to pass.
        body_size_m: length, width, height.
        height_m: of the body's centre in flight; 0 for a robot on the ground.
        camera: the camera that navigation sees through.
        stamped: the base takes `TwistStamped` instead of `Twist`.
        drive: how waypoints become velocities.
        bumper: the base feels what it touches in front.
    """

    name: str
    kinematics: str
    max_linear_m_s: float
    max_lateral_m_s: float
    max_angular_rad_s: float
    max_linear_acceleration_m_s2: float
    max_linear_deceleration_m_s2: float
    max_angular_acceleration_rad_s2: float
    min_turning_radius_m: float
    wheelbase_m: float
    nominal_speed_m_s: float
    radius_m: float
    body_size_m: tuple[float, float, float]
    height_m: float
    camera: CameraMount
    stamped: bool
    drive: DriveConfig
    bumper: bool = False

    @property
    def waypoint_spacing_m(self) -> float:
        """Metres per unit of the networks' waypoints: one model step at nominal speed."""
        return self.nominal_speed_m_s * MODEL_PERIOD_S


def robot_directory() -> Path:
    """The directory of the robots that come with this package."""
    return share_file(__file__, "base_drivers", "config/robots")


def robot_names() -> tuple[str, ...]:
    """Names of the robots that come with this package, sorted."""
    return tuple(sorted(file.stem for file in robot_directory().glob("*.yaml")))


def load_robot(name_or_path: str | Path) -> RobotConfig:
    """Read a robot's file.

    Args:
        name_or_path: a name out of `robot_names()`, or the path of a YAML file.

    Raises:
        RobotConfigError: no such robot; or the file has an unknown, missing, mistyped or
            contradictory entry.
    """
    file = Path(name_or_path)
    if file.suffix != ".yaml":
        names = robot_names()
        if str(name_or_path) not in names:
            raise RobotConfigError(
                f"found the robot {str(name_or_path)!r}, expected one of {list(names)} or the path "
                f"of a .yaml file{did_you_mean(str(name_or_path), names)}"
            )
        file = robot_directory() / f"{name_or_path}.yaml"
    try:
        return _read(file)
    except BundleError as error:
        place = f"{error.file}: {error.field}" if error.field else error.file
        raise RobotConfigError(f"{place}: found {error.found}, expected {error.expected}") from None


def _read(file: Path) -> RobotConfig:
    root = Section(file, "", read_yaml_mapping(file))
    name = root.string("name")
    if name != file.stem:
        raise root.error("name", f'"{file.stem}", the name of the file')
    kinematics = root.string("kinematics", KINEMATICS)
    size = root.numbers("body_size_m")
    if len(size) != 3 or min(size) <= 0.0:
        raise root.error("body_size_m", "length, width and height, all positive")
    camera = root.section("camera")
    cmd_vel = root.section("cmd_vel")
    stamped = _boolean(cmd_vel, "stamped")
    drive = root.section("drive")
    robot = RobotConfig(
        name=name,
        kinematics=kinematics,
        max_linear_m_s=root.number("max_linear_m_s", 0.01, 20.0),
        max_lateral_m_s=root.number("max_lateral_m_s", 0.0, 20.0),
        max_angular_rad_s=root.number("max_angular_rad_s", 0.01, 20.0),
        max_linear_acceleration_m_s2=root.number("max_linear_acceleration_m_s2", 0.01, 100.0),
        max_linear_deceleration_m_s2=root.number("max_linear_deceleration_m_s2", 0.01, 100.0),
        max_angular_acceleration_rad_s2=root.number("max_angular_acceleration_rad_s2", 0.01, 100.0),
        min_turning_radius_m=root.number("min_turning_radius_m", 0.0, 50.0),
        wheelbase_m=root.number("wheelbase_m", 0.01, 10.0),
        nominal_speed_m_s=root.number("nominal_speed_m_s", 0.01, 20.0),
        radius_m=root.number("radius_m", 0.01, 5.0),
        body_size_m=(size[0], size[1], size[2]),
        height_m=root.number("height_m", 0.0, 50.0),
        camera=CameraMount(
            height_m=camera.number("height_m", 0.0, 50.0),
            forward_m=camera.number("forward_m", -5.0, 5.0),
            pitch_rad=camera.number("pitch_rad", -1.5, 1.5),
            horizontal_fov_rad=camera.number("horizontal_fov_rad", 0.1, 3.1),
            width=camera.integer("width", 16, 8192),
            height=camera.integer("height", 16, 8192),
        ),
        stamped=stamped,
        bumper=_boolean(root, "bumper"),
        drive=DriveConfig(
            controller=drive.string("controller", CONTROLLERS),
            waypoint_index=drive.integer("waypoint_index", 0, 31),
        ),
    )
    for section in (camera, cmd_vel, drive, root):
        section.finish()
    if robot.nominal_speed_m_s > robot.max_linear_m_s:
        raise root.error("nominal_speed_m_s", f"at most max_linear_m_s, {robot.max_linear_m_s:g}")
    if (kinematics == "ackermann") != (robot.min_turning_radius_m > 0.0):
        raise root.error("min_turning_radius_m", "above 0 for ackermann, 0 for all others")
    if kinematics != "holonomic" and robot.max_lateral_m_s > 0.0:
        raise root.error("max_lateral_m_s", f"0, as a {kinematics} robot cannot move sideways")
    return robot


def _boolean(section: Section, key: str) -> bool:
    value = section.value(key)
    if not isinstance(value, bool):
        raise section.error(key, "true or false")
    return value
