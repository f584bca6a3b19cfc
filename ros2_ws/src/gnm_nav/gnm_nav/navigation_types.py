"""What navigation can be told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from gnm_nav.localiser import Localisation, LocaliserConfig


class NavigationState(IntEnum):
    """What the robot does; the numbers are those of `policy_interfaces/NavigationStatus`."""

    IDLE = 0
    LOCALISING = 1
    DRIVING = 2
    TURNING = 3
    EXPLORING = 4
    WAITING = 5
    RECOVERING = 6


class FailureCode(StrEnum):
    """Why a goal was given up, or refused."""

    UNKNOWN_GOAL = "unknown_goal"
    UNREACHABLE = "unreachable"
    LOST = "lost"
    NO_MAP = "no_map"


class NavigationError(ValueError):
    """A goal that was refused.

    Attributes:
        code: the reason.
    """

    def __init__(self, code: FailureCode, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class NavigationConfig:
    """Parameters of navigation.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    close_threshold_steps: float = 3.0
    """A node nearer than this is no subgoal; the next one of the route is."""
    passed_margin_steps: float = 4.0
    """Nor is one that is further away than the next one by more than this."""
    lookahead_nodes: int = 5
    """Nodes of the route that are compared per tick."""
    reach_distance_steps: float = 1.5
    """Distance to the goal at which it counts as reached."""
    reach_ticks: int = 2
    """For so many ticks on end."""
    passed_distance_steps: float = 3.5
    """The goal also counts as reached when it was this near and is now further away again."""
    turn_distance_steps: float = 4.0
    """A robot drives on to the place of a turn as long as that is further away."""
    goal_image_distance_steps: float = 6.0
    """A goal image is a place of the map when a node is this near to it."""
    image_timeout_s: float = 0.5
    """Age of the newest frame above which the robot waits."""
    no_progress_s: float = 10.0
    """Time without coming nearer to the goal after which something is done about it."""
    progress_steps: float = 1.0
    """How much nearer counts as progress [model steps]."""
    stuck_s: float = 2.5
    """Time of driving without a change of the image after which the robot counts as stuck."""
    stuck_change: float = 3.0
    """Mean change of the image within one second, in grey levels 0 … 255, below which nothing
    moved."""
    recoveries: int = 2
    """Attempts at one place before its edges count as blocked."""
    block_steps: float = 4.0
    """How far ahead the route counts as blocked [model steps]."""
    block_radius_m: float = 0.45
    """Nodes this near to blocked ones, where the map has poses, are blocked too."""
    second_tries: int = 2
    """Times that what was blocked is tried again when no other way is left."""
    doubt_ticks: int = 2
    """Ticks on end with everything far after which the robot stands, before it counts as lost."""
    look_s: float = 1.5
    """Time to look without turning after getting lost, and where something looks near."""
    look_apart_rad: float = 0.3
    """Angle between two such looks."""
    turn_rate_rad_s: float = 0.5
    """Speed of turning on the spot."""
    can_turn: bool = True
    """Whether the robot can turn on the spot."""
    back_m: float = 0.3
    """How far it drives straight back from where it is stuck, or sees nothing any more."""
    nudge_rad: float = 0.5
    """Angle of turning away from what the robot is stuck at."""
    nudge_s: float = 1.0
    """Time of driving straight on afterwards."""
    blind_turn_rad: float = 1.6
    """Angle up to which it turns to see again when something plain fills the picture."""
    search_turns: float = 1.75
    """Turns on the spot after which the search is given up."""
    return_steps: float = 8.0
    """So far a robot that cannot turn on the spot drives straight back to find itself [model
    steps]: to where it still knew its place."""
    creep_steps: float = 12.0
    """So far it then drives on."""
    lost_timeout_s: float = 40.0
    """Time of being lost on end after which the goal is given up."""
    num_samples: int = 8
    """Waypoint samples of a diffusion model; the medoid is driven."""
    seed: int = 0
    """Of a diffusion model's noise; it advances by one per tick."""
    localiser: LocaliserConfig = field(default_factory=LocaliserConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        bounds: dict[str, tuple[float, float]] = {
            "close_threshold_steps": (0.0, 20.0),
            "passed_margin_steps": (0.0, 20.0),
            "lookahead_nodes": (1, 32),
            "reach_distance_steps": (0.1, 20.0),
            "reach_ticks": (1, 100),
            "passed_distance_steps": (0.0, 20.0),
            "turn_distance_steps": (0.1, 20.0),
            "goal_image_distance_steps": (0.1, 20.0),
            "image_timeout_s": (0.05, 10.0),
            "no_progress_s": (1.0, 600.0),
            "progress_steps": (0.1, 20.0),
            "stuck_s": (0.5, 60.0),
            "stuck_change": (0.0, 50.0),
            "recoveries": (0, 10),
            "block_steps": (0.5, 100.0),
            "block_radius_m": (0.0, 10.0),
            "second_tries": (0, 10),
            "doubt_ticks": (1, 1000),
            "look_s": (0.0, 30.0),
            "look_apart_rad": (0.0, 3.2),
            "turn_rate_rad_s": (0.05, 3.0),
            "back_m": (0.0, 1.0),
            "nudge_rad": (0.0, 3.0),
            "nudge_s": (0.0, 10.0),
            "blind_turn_rad": (0.0, 3.2),
            "search_turns": (0.1, 5.0),
            "return_steps": (0.0, 20.0),
            "creep_steps": (0.0, 100.0),
            "lost_timeout_s": (1.0, 600.0),
            "num_samples": (1, 64),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be within [{low:g}, {high:g}]")


@dataclass(frozen=True)
class NavigationDecision:
    """What to do until the next tick. Neither waypoints nor a turn rate: stand.

    Attributes:
        state: what the robot does.
        code: why it gave up, or None.
        message: for people.
        node: where it believes to be; None: not known.
        subgoal: the node it drives to.
        goal: the goal node.
        distance_steps: predicted distance to `node`; NaN: not known.
        route_steps: from `node` to the goal along the map; NaN: no goal or no route.
        confidence: probability of `node` and its neighbours, 0 … 1.
        progress: of the route since the goal was set, 0 … 1.
        waypoints_m: (T, 3) x forward, y left [m], yaw [rad] in the robot's frame at the newest
            image; or None.
        turn_rate_rad_s: speed of turning on the spot, counter-clockwise; or None.
        reached: the goal was reached in this tick; the robot has no goal any more.
        replans: times that edges were blocked since the goal was set.
        stamp_s: of the newest image; NaN: there is none.
        localisation: details of this tick, where it localised.
    """

    state: NavigationState
    code: FailureCode | None = None
    message: str = ""
    node: int | None = None
    subgoal: int | None = None
    goal: int | None = None
    distance_steps: float = math.nan
    route_steps: float = math.nan
    confidence: float = 0.0
    progress: float = 0.0
    waypoints_m: NDArray[np.float64] | None = None
    turn_rate_rad_s: float | None = None
    reached: bool = False
    replans: int = 0
    stamp_s: float = math.nan
    localisation: Localisation | None = None
