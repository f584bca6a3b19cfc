"""What there is to see of a policy at work: shapes in the arm's base frame, without ROS."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Color = tuple[float, float, float, float]

GREY: Color = (0.6, 0.6, 0.6, 1.0)
GREEN: Color = (0.2, 0.8, 0.3, 1.0)
RED: Color = (0.9, 0.2, 0.2, 1.0)
WHITE: Color = (1.0, 1.0, 1.0, 1.0)
# RViz colours the axes x, y, z so.
AXIS_COLORS: tuple[Color, ...] = (RED, GREEN, (0.3, 0.4, 1.0, 1.0))

TRANSLATION_NAMES = ("dx", "dy", "dz")
GRIPPER_NAME = "gripper"


@dataclass(frozen=True)
class Lines:
    """Line segments: points (2 N, 3) [m] taken in pairs, with one colour for each segment."""

    points: Array
    colors: tuple[Color, ...]


@dataclass(frozen=True)
class Arrow:
    """An arrow between two points (3,) [m]."""

    start: Array
    end: Array
    color: Color


@dataclass(frozen=True)
class Text:
    """Words at a point (3,) [m]."""

    position: Array
    words: str
    color: Color


def workspace_box(low_m: Sequence[float], high_m: Sequence[float]) -> Lines:
    """The twelve edges of the box between two corners.

    Raises:
        ValueError: a corner is not three finite numbers, or low is not below high.
    """
    low, high = np.array(low_m, dtype=np.float64), np.array(high_m, dtype=np.float64)
    if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
        raise ValueError(f"the workspace is {low_m} … {high_m}; expected a lower and upper corner")
    corners = np.array(list(itertools.product((0, 1), repeat=3)))
    edges = [
        (low + (high - low) * a, low + (high - low) * b)
        for a, b in itertools.combinations(corners, 2)
        if np.abs(a - b).sum() == 1
    ]
    return Lines(np.array(edges).reshape(-1, 3), (GREY,) * len(edges))


def action_arrow(
    names: Sequence[str], values: Sequence[float], start_m: Array, scale: float
) -> Arrow:
    """The translation that an action asks for; green for an open gripper, red for a closed one.

    Args:
        names: of the action's numbers; dx, dy and dz [m] must be among them.
        values: one for each name.
        start_m: (3,) where the arrow starts, normally the commanded position.
        scale: length of the arrow per length of the motion.

    Raises:
        ValueError: a name is missing, or a number is not finite.
    """
    if len(names) != len(values):
        raise ValueError(f"the action has {len(names)} names and {len(values)} values")
    by_name = dict(zip(names, values, strict=True))
    missing = [name for name in TRANSLATION_NAMES if name not in by_name]
    if missing:
        raise ValueError(f"the action has no {', '.join(missing)}; it has {', '.join(names)}")
    delta = np.array([by_name[name] for name in TRANSLATION_NAMES])
    if not np.isfinite(delta).all():
        raise ValueError("the action is not finite")
    return Arrow(start_m, start_m + scale * delta, _gripper_color(by_name.get(GRIPPER_NAME)))


def _gripper_color(opening: float | None) -> Color:
    if opening is None or not math.isfinite(opening):
        return GREY
    share = min(max(opening, 0.0), 1.0)
    red, green, blue, alpha = (
        share * opened + (1.0 - share) * closed for opened, closed in zip(GREEN, RED, strict=True)
    )
    return (red, green, blue, alpha)


def pose_axes(position_m: Sequence[float], quaternion: Sequence[float], length_m: float) -> Lines:
    """Three lines along the axes of a pose.

    Args:
        position_m: (3,).
        quaternion: x y z w.
        length_m: of each line.

    Raises:
        ValueError: the pose is not finite or the quaternion not of length one.
    """
    origin = np.array(position_m, dtype=np.float64)
    x, y, z, w = quaternion
    norm = math.hypot(x, y, z, w)
    if not np.isfinite(origin).all() or not abs(norm - 1.0) < 1e-3:
        raise ValueError("the pose is not finite or its quaternion is not of length one")
    axes = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)],
            [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)],
            [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    points = [point for axis in axes for point in (origin, origin + length_m * axis)]
    return Lines(np.array(points), AXIS_COLORS)


@dataclass(frozen=True)
class PolicyCondition:
    """What the policy node says of itself; rates and times may be NaN."""

    running: bool
    faulty: bool
    policy: str
    task: str
    reason: str
    rate_hz: float
    inference_p95_ms: float
    observation_age_ms: float


def status_text(condition: PolicyCondition | None, position_m: Array) -> Text:
    """The policy's condition in up to three lines; None: nothing was heard of it lately."""
    if condition is None:
        return Text(position_m, "no policy", GREY)
    state, color = "idle", WHITE
    if condition.faulty:
        state, color = "FAULT", RED
    elif condition.running:
        state, color = "running", GREEN
    lines = [" ".join(filter(None, (condition.policy, condition.task))), state]
    if condition.running:
        figures = (
            (condition.rate_hz, "{:.1f} Hz"),
            (condition.inference_p95_ms, "p95 {:.0f} ms"),
            (condition.observation_age_ms, "age {:.0f} ms"),
        )
        known = [form.format(value) for value, form in figures if math.isfinite(value)]
        lines[1] = ", ".join([state, *known])
    return Text(position_m, "\n".join(filter(None, (*lines, condition.reason))), color)
