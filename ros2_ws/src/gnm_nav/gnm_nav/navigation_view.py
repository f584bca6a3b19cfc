"""What people see of navigation: the map and the belief as markers, the camera image with notes."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
from base_drivers.robot_config import CameraMount
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped
from nav_msgs.msg import Path
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from gnm_nav.navigation import NavigationDecision
from gnm_nav.topological_map import EdgeKind, TopologicalMap

MAX_DRAWN_NODES = 5000
"""Larger maps are thinned out for drawing: a viewer cannot show more, and nobody can read it."""
_ROUTE_HEIGHT_M = 0.05
_NODE_M = 0.08
_EDGE_COLORS = {
    EdgeKind.CHAIN: ColorRGBA(r=0.5, g=0.5, b=0.55, a=0.8),
    EdgeKind.CLOSURE: ColorRGBA(r=0.3, g=0.6, b=0.9, a=0.5),
    EdgeKind.TURN: ColorRGBA(r=0.8, g=0.6, b=0.2, a=0.5),
}
_NODE_COLOR = ColorRGBA(r=0.75, g=0.75, b=0.8, a=1.0)
_ROUTE_COLOR = ColorRGBA(r=0.2, g=0.9, b=0.3, a=1.0)
_BELIEF_COLOR = (1.0, 0.75, 0.1)
_TEXT_COLOR = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)


def graph_markers(topological_map: TopologicalMap, stamp: Time) -> list[Marker]:
    """The map's nodes, edges and names; empty for a map without poses."""
    poses = topological_map.poses
    if poses is None:
        return []
    frame = topological_map.frame_id
    stride = max(1, math.ceil(len(topological_map) / MAX_DRAWN_NODES))
    nodes = _marker(frame, stamp, "nodes", 0, Marker.POINTS, _NODE_COLOR, _NODE_M)
    nodes.points = [_point(pose) for pose in poses[::stride]]
    markers = [nodes]
    edges = topological_map.edges
    if stride == 1:
        for kind, color in _EDGE_COLORS.items():
            chosen = edges[edges["kind"] == kind]
            lines = _marker(frame, stamp, "edges", int(kind), Marker.LINE_LIST, color, 0.015)
            for edge in chosen:
                lines.points += [_point(poses[edge["a"]]), _point(poses[edge["b"]])]
            if lines.points:
                markers.append(lines)
    for index, (name, node) in enumerate(sorted(topological_map.names.items())):
        text = _marker(frame, stamp, "names", index, Marker.TEXT_VIEW_FACING, _TEXT_COLOR, 0.25)
        text.pose.position = _point(poses[node], 0.4)
        text.text = name
        markers.append(text)
    return markers


def belief_markers(
    topological_map: TopologicalMap, decision: NavigationDecision, route: list[int], stamp: Time
) -> list[Marker]:
    """Where the robot believes to be, and the way to the goal; empty for a map without poses."""
    poses = topological_map.poses
    if poses is None:
        return []
    frame = topological_map.frame_id
    # Removed and drawn in one message: a viewer never shows a belief of two ticks.
    markers = []
    for name in ("belief", "route", "goal"):
        gone = _marker(frame, stamp, name, 0, Marker.SPHERE_LIST, _NODE_COLOR, _NODE_M)
        gone.action = Marker.DELETE
        markers.append(gone)
    if decision.localisation is not None and decision.localisation.belief:
        belief = decision.localisation.belief
        spheres = _marker(frame, stamp, "belief", 0, Marker.SPHERE_LIST, _NODE_COLOR, 0.2)
        for node, probability in belief.items():
            spheres.points.append(_point(poses[node], 0.1))
            spheres.colors.append(
                ColorRGBA(
                    r=_BELIEF_COLOR[0],
                    g=_BELIEF_COLOR[1],
                    b=_BELIEF_COLOR[2],
                    a=float(min(1.0, 0.05 + probability)),
                )
            )
        markers.append(spheres)
    if len(route) > 1:
        line = _marker(frame, stamp, "route", 0, Marker.LINE_STRIP, _ROUTE_COLOR, 0.05)
        line.points = [_point(poses[node], _ROUTE_HEIGHT_M) for node in route]
        markers.append(line)
    if decision.goal is not None:
        goal = _marker(frame, stamp, "goal", 0, Marker.CYLINDER, _ROUTE_COLOR, 0.3)
        goal.scale.z = 0.02
        goal.pose.position = _point(poses[decision.goal])
        markers.append(goal)
    return markers


def marker_array(markers: list[Marker]) -> MarkerArray:
    """The markers as one message."""
    return MarkerArray(markers=markers)


def route_path(topological_map: TopologicalMap, route: list[int], stamp: Time) -> Path:
    """The route in the frame of the map's poses; without poses, empty."""
    path = Path()
    path.header.stamp = stamp
    path.header.frame_id = topological_map.frame_id
    if topological_map.poses is not None:
        for node in route:
            path.poses.append(_pose(path, topological_map.poses[node]))
    return path


def waypoint_path(waypoints: NDArray[np.float64], stamp_s: float, frame_id: str) -> Path:
    """Waypoints as a message.

    Args:
        waypoints: (T, 3) x, y [m], yaw [rad].
        stamp_s: time of the image behind them.
        frame_id: the robot's frame.
    """
    path = Path()
    path.header.frame_id = frame_id
    seconds, nanoseconds = divmod(round(stamp_s * 1e9), 1_000_000_000)
    path.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
    path.poses = [_pose(path, waypoint) for waypoint in waypoints]
    return path


def annotated_image(
    image: NDArray[np.uint8],
    camera: CameraMount,
    decision: NavigationDecision,
    topological_map: TopologicalMap | None,
    note: str,
) -> NDArray[np.uint8]:
    """The camera image with the waypoints on the ground, the subgoal and the goal beside it.

    Args:
        image: RGB (H, W, 3) uint8.
        camera: where the camera is; decides where the waypoints are drawn.
        decision: of this tick.
        topological_map: the map.
        note: one line below.

    Returns:
        RGB, 640 pixels wide with pictures of nodes at the right.
    """
    width = 480
    height = round(width * image.shape[0] / image.shape[1])
    view = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if decision.waypoints_m is not None:
        pixels = ground_pixels(decision.waypoints_m[:, :2], camera, (width, height))
        seen = [tuple(map(int, p)) for p in pixels if np.isfinite(p).all()]
        for a, b in itertools.pairwise(seen):
            cv2.line(view, a, b, (60, 220, 60), 2, cv2.LINE_AA)
        for point in seen:
            cv2.circle(view, point, 5, (255, 220, 40), -1, cv2.LINE_AA)
    side = np.full((height, 160, 3), 30, np.uint8)
    if topological_map is not None:
        shown = (("at", decision.node), ("to", decision.subgoal), ("goal", decision.goal))
        for row, (title, node) in enumerate(shown):
            if node is None:
                continue
            top = row * height // 3
            picture = cv2.resize(np.asarray(topological_map.images[node]), (120, height // 3 - 24))
            side[top + 20 : top + 20 + picture.shape[0], 20:140] = picture
            _write(side, f"{title} {node}", (20, top + 15))
    whole = np.concatenate([view, side], axis=1)
    bar = np.full((28, whole.shape[1], 3), 20, np.uint8)
    _write(bar, f"{decision.state.name}  {note}"[:78], (6, 19))
    return np.concatenate([whole, bar], axis=0)


def ground_pixels(
    points_m: NDArray[np.float64], camera: CameraMount, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Where points on the ground are seen by a pinhole camera.

    Args:
        points_m: (T, 2) x forward, y left in the robot's frame.
        camera: its mount.
        size: width and height of the image [pixels].

    Returns:
        (T, 2) pixels; NaN for what lies outside of the image or behind the camera.
    """
    width, height = size
    focal = 0.5 * width / math.tan(0.5 * camera.horizontal_fov_rad)
    forward = points_m[:, 0] - camera.forward_m
    down = np.full(len(points_m), camera.height_m)
    c, s = math.cos(camera.pitch_rad), math.sin(camera.pitch_rad)
    depth = c * forward + s * down
    below = c * down - s * forward
    with np.errstate(divide="ignore", invalid="ignore"):
        u = 0.5 * width - focal * points_m[:, 1] / depth
        v = 0.5 * height + focal * below / depth
    outside = (depth < 0.05) | (u < 0) | (u >= width) | (v < 0) | (v >= height)
    return np.where(outside[:, None], math.nan, np.stack([u, v], axis=1))


def _write(image: NDArray[np.uint8], text: str, place: tuple[int, int]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)


def _marker(
    frame: str, stamp: Time, namespace: str, number: int, kind: int, color: ColorRGBA, size_m: float
) -> Marker:
    marker = Marker(ns=namespace, id=number, type=kind, action=Marker.ADD, color=color)
    marker.header.frame_id = frame
    marker.header.stamp = stamp
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = size_m
    return marker


def _point(pose: NDArray[np.float64], height_m: float = 0.0) -> Point:
    return Point(x=float(pose[0]), y=float(pose[1]), z=height_m)


def _pose(path: Path, pose: NDArray[np.float64]) -> PoseStamped:
    stamped = PoseStamped(header=path.header)
    stamped.pose.position = _point(pose)
    stamped.pose.orientation.z = math.sin(0.5 * float(pose[2]))
    stamped.pose.orientation.w = math.cos(0.5 * float(pose[2]))
    return stamped
