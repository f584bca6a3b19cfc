"""The robots that a policy node can be connected to, and whether a policy fits one.

A robot is a YAML file: one of `config/robots`, or a user's own by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node_common.package_share import share_file
from node_common.strict_yaml import BundleError, Section, did_you_mean, read_yaml_mapping

from policy_server.deployment import STATE_KINDS, UNITS, Deployment


@dataclass(frozen=True)
class ActionSpace:
    """Commands that a robot's controller takes.

    Attributes:
        name: e.g. end_effector_delta.
        frame: frame of the commands.
        names, units, low, high: entries of a command, with bounds.
        step_range_s: shortest and longest period of commands that the controller executes.
    """

    name: str
    frame: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    step_range_s: tuple[float, float]

    def executes(self, step_s: float) -> bool:
        """Whether the controller takes commands with this period; never for NaN."""
        shortest_s, longest_s = self.step_range_s
        # A rate that went through a file or float32 is still the same rate.
        return shortest_s * (1 - 1e-6) <= step_s <= longest_s * (1 + 1e-6)


@dataclass(frozen=True)
class RobotSpec:
    """What a robot takes and reports.

    Attributes:
        name: as in the file's name.
        action_spaces: by name.
        states: kind of observation → entry → unit, of what it reports.
        start_state: the end-effector state at its named pose `start`, by entry.
        max_observation_age_s: how old the observation behind a command may at most be [s].
    """

    name: str
    action_spaces: Mapping[str, ActionSpace]
    states: Mapping[str, Mapping[str, str]]
    start_state: Mapping[str, float]
    max_observation_age_s: float


def robot_names() -> tuple[str, ...]:
    """Names of the robots that come with this package, sorted."""
    return tuple(sorted(file.stem for file in robot_directory().glob("*.yaml")))


def robot_directory() -> Path:
    """The directory of the robots that come with this package."""
    return share_file(__file__, "policy_server", "config/robots")


def load_robot(name_or_path: str) -> RobotSpec:
    """Read a robot's file.

    Args:
        name_or_path: a name out of `robot_names()`, or the path of a YAML file.

    Raises:
        BundleError: no such robot; or the file has an unknown, missing, mistyped or contradictory
            entry.
    """
    file = Path(name_or_path).expanduser()
    if file.suffix != ".yaml":
        known = robot_names()
        if name_or_path not in known:
            raise BundleError(
                "robot",
                "",
                repr(name_or_path),
                f"one of {list(known)} or the path of a .yaml file"
                f"{did_you_mean(name_or_path, known)}",
            )
        file = robot_directory() / f"{name_or_path}.yaml"
    root = Section(file, "", read_yaml_mapping(file))
    if root.string("name") != file.stem:
        raise root.error("name", f'"{file.stem}", the name of the file')
    spaces, states = root.section("action_spaces"), root.section("states")
    start = root.section("start_state") if "start_state" in root else None
    robot = RobotSpec(
        name=file.stem,
        action_spaces={name: _action_space(spaces.section(name), name) for name in spaces.keys()},  # noqa: SIM118
        states={kind: _state(states, kind) for kind in states.keys()},  # noqa: SIM118
        start_state={name: start.number(name, -1e6, 1e6) for name in start.keys()} if start else {},  # noqa: SIM118
        max_observation_age_s=root.number("max_observation_age_s", 0.02, 100.0),
    )
    if not robot.action_spaces:
        raise root.error("action_spaces", "at least one")
    if start is not None and set(robot.start_state) != set(
        robot.states.get("end_effector_state", ())
    ):
        raise root.error("start_state", "the entries of states.end_effector_state")
    root.finish()
    return robot


def _action_space(section: Section, name: str) -> ActionSpace:
    entries = section.section("entries")
    names = tuple(entries.keys())
    if not names:
        raise section.error("entries", "at least one")
    units, low, high = [], [], []
    for entry in names:
        item = entries.section(entry)
        units.append(item.string("unit", UNITS))
        low.append(item.number("low", -1e6, 1e6))
        high.append(item.number("high", -1e6, 1e6))
        if not low[-1] < high[-1]:
            raise item.error("high", f"more than `low`, {low[-1]:g}")
        item.finish()
    step_range_s = section.numbers("step_range_s")
    if len(step_range_s) != 2 or not 0 < step_range_s[0] <= step_range_s[1]:
        raise section.error("step_range_s", "the shortest and the longest period [s]")
    space = ActionSpace(
        name=name,
        frame=section.string("frame"),
        names=names,
        units=tuple(units),
        low=tuple(low),
        high=tuple(high),
        step_range_s=(step_range_s[0], step_range_s[1]),
    )
    section.finish()
    return space


def _state(states: Section, kind: str) -> dict[str, str]:
    if kind not in STATE_KINDS:
        raise states.error(
            kind, f"kinds out of {list(STATE_KINDS)}{did_you_mean(kind, STATE_KINDS)}"
        )
    entries = states.section(kind)
    return {name: entries.string(name, UNITS) for name in entries.keys()}  # noqa: SIM118


def check_robot(file: Path, deployment: Deployment, robot: RobotSpec) -> ActionSpace:
    """Make sure that a policy's commands and inputs are ones the connected robot has.

    Args:
        file: the bundle's YAML, for messages.
        deployment: what the policy sees and commands.
        robot: the connected robot.

    Returns:
        The action space of the robot that the policy commands in.

    Raises:
        BundleError: the robot differs from the bundle's, or an action or state entry, unit, frame
            or bound does not fit.
    """
    action = deployment.action

    def require(field: str, found: object, expected: object) -> None:
        if found != expected:
            raise BundleError(
                file, f"deployment.{field}", found, f"{expected}, which the robot {robot.name} has"
            )

    require("robot", deployment.robot, robot.name)
    space = robot.action_spaces.get(action.space)
    if space is None:
        raise BundleError(
            file,
            "deployment.action.space",
            action.space,
            f"one of {list(robot.action_spaces)}, which the robot {robot.name} has",
        )
    require("action.frame", action.frame, space.frame)
    require("action.names", sorted(action.names), sorted(space.names))
    for index, name in enumerate(action.names):
        own = space.names.index(name)
        require(f"action.units of {name}", action.units[index], space.units[own])
        low, high = space.low[own], space.high[own]
        # Bounds may come through float32.
        margin = 1e-6 * (high - low)
        if not (low - margin <= action.low[index] and action.high[index] <= high + margin):
            raise BundleError(
                file,
                f"deployment.action bounds of {name}",
                f"[{action.low[index]:g}, {action.high[index]:g}]",
                f"within [{low:g}, {high:g}], which the robot {robot.name} accepts",
            )
    if not action.max_observation_age_s <= robot.max_observation_age_s * (1 + 1e-6):
        raise BundleError(
            file,
            "deployment.action.max_observation_age_s",
            f"{action.max_observation_age_s:g}",
            f"at most {robot.max_observation_age_s:g}, which the robot {robot.name} accepts: "
            "execute fewer steps of a chunk",
        )
    if "gripper" in space.names:
        require("action.gripper", (action.gripper_closed, action.gripper_open), (0.0, 1.0))
    _check_states(file, deployment, robot)
    return space


def _check_states(file: Path, deployment: Deployment, robot: RobotSpec) -> None:
    own_action = dict(zip(deployment.action.names, deployment.action.units, strict=True))
    reported = {**robot.states, "last_action": own_action}
    for state in deployment.states:
        field = f"deployment.observations {state.name}"
        known = reported.get(state.kind)
        if known is None:
            raise BundleError(
                file,
                f"{field}.kind",
                state.kind,
                f"one of {list(reported)}, which the robot {robot.name} has",
            )
        for name, unit in zip(state.names, state.units, strict=True):
            if name not in known:
                raise BundleError(
                    file,
                    f"{field}.names",
                    name,
                    f"names out of {list(known)}, which the robot {robot.name} reports",
                )
            expected = known[name]
            if state.quantity == "velocity":
                expected += "/s"
            if unit != expected and state.quantity != "effort":
                raise BundleError(
                    file,
                    f"{field}.units of {name}",
                    unit,
                    f"{expected}, which the robot {robot.name} has",
                )
