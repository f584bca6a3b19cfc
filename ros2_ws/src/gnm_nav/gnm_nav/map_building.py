"""Builds a topological map from a drive, live or recorded."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gnm_nav.frame_context import FrameContext
from gnm_nav.localiser import place_descriptors
from gnm_nav.loop_closure import (
    ClosureConfig,
    ClosureRun,
    Edge,
    find_same_view,
    find_sighting,
    may_be_same_place,
)
from gnm_nav.planar_pose import Pose, compose, inverse, is_jump, relative_pose
from gnm_nav.topological_map import (
    EdgeKind,
    MapCode,
    MapError,
    MapModel,
    TopologicalMap,
    edge_array,
    new_name_fault,
)

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationModel, ObservationCode

_MIN_EDGE_STEPS = 0.5
_CONTINUED_S = 1.05
"""Over a longer time without a pose nobody knows how the robot moved while its odometry jumped."""
_COMPARED_S = 10.0
"""How far a base can have driven is reckoned for this time at most."""
_CLOCK_SET_BACK_S = 1.0
_LEAST_TURN_RAD = 1.2
_TURN_SECTORS = 6
_TURN_SECTOR_RAD = 2.0 * math.pi / _TURN_SECTORS


@dataclass(frozen=True)
class BuilderConfig:
    """Parameters of map building.

    Raises:
        ValueError: a value is outside its range; the message names it.
    """

    spacing_steps: float = 4.0
    """A new node is made where the network sees the last one this far behind [model steps]."""
    min_steps: int = 2
    max_steps: int = 6
    """But after so many steps of driving at least and at most."""
    still_change: float = 0.8
    """Mean change of the image from step to step, in grey levels 0 … 255, below which the robot
    stands and the step does not count."""
    picture_quality: int = 90
    """JPEG quality of the pictures for people, 1 … 100; 0: none are kept."""
    turn_rad: float = 0.5
    """Poses of neighbouring nodes that differ by more than this angle and less than
    `turn_radius_m` are joined by a turn on the spot."""
    turn_radius_m: float = 0.4
    turn_rate_rad_s: float = 0.5
    """Speed of such turns, for their length."""
    new_drive_s: float = 5.0
    """A longer time between two images begins another drive, joined only by loop closures."""
    closure: ClosureConfig = field(default_factory=ClosureConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        bounds: dict[str, tuple[float, float]] = {
            "spacing_steps": (0.5, 15.0),
            "min_steps": (1, 100),
            "max_steps": (self.min_steps, 100),
            "still_change": (0.0, 50.0),
            "picture_quality": (0, 100),
            "turn_rad": (0.1, 3.1),
            "turn_radius_m": (0.0, 10.0),
            "turn_rate_rad_s": (0.05, 3.0),
            "new_drive_s": (1.0, 3600.0),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be within [{low:g}, {high:g}]")


@dataclass
class BuilderCounts:
    """What became of the images of a drive.

    Attributes:
        taken: images that were used.
        without_newer_stamp: left out, as their stamp is not newer than that of the one before.
        stamp_s: the stamp of the newest image that was used.
        drives: drives that ended by a gap between stamps.
        jumps: (stamp [s], distance [m]) of each time at which the odometry moved further than a
            base can drive.
    """

    taken: int = 0
    without_newer_stamp: int = 0
    stamp_s: float = 0.0
    drives: int = 0
    jumps: list[tuple[float, float]] = field(default_factory=list)

    def stamp_fault(self) -> str:
        """What is wrong with the stamps, empty: nothing."""
        if not self.without_newer_stamp:
            return ""
        return (
            f"{self.without_newer_stamp} of {self.taken + self.without_newer_stamp} images have no "
            f"newer stamp ({self.stamp_s:.3f})"
        )


class DrivenPoses:
    """Puts the poses of a drive into frames in which they are continuous.

    Odometry that jumps was reset or corrected, the robot did not move: where the jump lies between
    two images that follow each other, the poses after it continue from those before. After a longer
    gap they are in a frame of their own, which is not compared with the others.
    """

    def __init__(self) -> None:
        """No pose yet."""
        self.frame = 0
        self._correction: Pose = (0.0, 0.0, 0.0)
        self._raw: Pose | None = None
        self._pose: Pose = (0.0, 0.0, 0.0)
        self._motion: Pose = (0.0, 0.0, 0.0)
        self._motion_s = 1.0
        self._stamp_s = 0.0
        self._speed_m_s = 0.0

    def add(self, raw: Pose, stamp_s: float) -> tuple[Pose, float | None]:
        """Take the pose of the next image.

        Args:
            raw: x [m], y [m], yaw [rad] as the odometry gives it.
            stamp_s: of the image.

        Returns:
            The pose in `frame`, and the distance of a jump [m]; None: there was none.
        """
        jump_m = None
        elapsed_s = stamp_s - self._stamp_s
        if self._raw is not None:
            near = 0.0 <= elapsed_s <= _CONTINUED_S
            # In a longer time a base may have driven far; how fast it is, it has shown before.
            speed = {} if near else {"max_speed_m_s": min(3.0, 1.5 * self._speed_m_s)}
            if is_jump(self._raw, raw, min(abs(elapsed_s), _COMPARED_S), **speed):
                jump_m = math.hypot(raw[0] - self._raw[0], raw[1] - self._raw[1])
                self._correction = (0.0, 0.0, 0.0)
                if near:
                    part = min(elapsed_s / self._motion_s, 3.0)
                    x, y, yaw = self._motion
                    expected = compose(self._pose, (part * x, part * y, part * yaw))
                    self._correction = compose(expected, inverse(raw))
                else:
                    self.frame += 1
            elif elapsed_s > 0.0:
                self._motion, self._motion_s = relative_pose(self._raw, raw), elapsed_s
                self._speed_m_s = max(
                    self._speed_m_s, math.hypot(*self._motion[:2]) / max(elapsed_s, 0.1)
                )
        self._raw, self._stamp_s = raw, stamp_s
        self._pose = compose(self._correction, raw)
        return self._pose, jump_m


class GrowingArray:
    """An array that rows are appended to, in constant time on average."""

    def __init__(self) -> None:
        """Empty; the first row decides the shape and dtype."""
        self._store: NDArray[Any] = np.empty(0)
        self._count = 0

    def append(self, row: Any) -> None:
        """Add a row."""
        value = np.asarray(row)
        if self._count == 0:
            self._store = np.empty((64, *value.shape), value.dtype)
        elif self._count == len(self._store):
            self._store = np.concatenate((self._store, np.empty_like(self._store)))
        self._store[self._count] = value
        self._count += 1

    @property
    def values(self) -> NDArray[Any]:
        """All rows; a view that the next `append` may leave behind."""
        return self._store[: self._count]


class MapBuilder:
    """Takes the images of a drive, keeps some as nodes, and finds where the drive meets itself."""

    def __init__(self, model: NavigationModel, config: BuilderConfig | None = None) -> None:
        """No node yet."""
        self._model = model
        self._config = config or BuilderConfig()
        self._period_s = 1.0 / model.spec.rate_hz
        self._context = FrameContext(model.preprocess, model.spec.context_size + 1, self._period_s)
        self._images: list[NDArray[np.uint8]] = []
        self._descriptors = GrowingArray()
        self._poses: list[NDArray[np.float64] | None] = []
        self._stamps_s: list[float] = []
        self._drives = GrowingArray()
        self._pictures: list[bytes] = []
        self._names: dict[str, int] = {}
        self._edges: list[Edge] = []
        self._along_m: list[float] = []
        self._steps_so_far = GrowingArray()
        self._next: dict[int, tuple[int, float]] = {}
        self._previous: dict[int, tuple[int, float]] = {}
        self._run = ClosureRun(self._config.closure)
        self._same_views: list[tuple[int, int]] = []
        self._drive = 0
        self._frames = GrowingArray()
        self._driven_poses = DrivenPoses()
        self._posed_drive = 0
        self._last_stamp_s: float | None = None
        self._last_step_s: float | None = None
        self._last_frame: NDArray[np.uint8] | None = None
        self._observation: ObservationCode | None = None
        self._driven_steps = 0.0
        self._has_gap = False
        self._closures = 0
        self.counts = BuilderCounts()

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self._images)

    @property
    def closures(self) -> int:
        """Number of closure edges found so far."""
        return self._closures

    def add(
        self,
        image: NDArray[np.uint8],
        stamp_s: float,
        pose: Pose | None = None,
    ) -> int | None:
        """Take a camera image of the drive.

        Args:
            image: native RGB, (H, W, 3) uint8.
            stamp_s: time of exposure [s]. An image that is not newer than the one before is left
                out; a gap, or a clock that was set back, begins another drive.
            pose: x [m], y [m], yaw [rad] of the robot in a fixed frame, where known. It may drift
                and jump.

        Returns:
            The id of the node that was made of it, or None.
        """
        last_s = self._last_stamp_s
        if last_s is not None and not (
            -_CLOCK_SET_BACK_S < stamp_s - last_s < self._config.new_drive_s
        ):
            self.end_drive()
            self.counts.drives += 1
        if not self._context.push(image, stamp_s):
            self.counts.without_newer_stamp += 1
            return None
        self.counts.taken += 1
        self.counts.stamp_s = self._last_stamp_s = stamp_s
        if pose is not None:
            pose, jump_m = self._driven_poses.add(pose, stamp_s)
            # That another drive begins elsewhere is no jump.
            if jump_m is not None and self._posed_drive == self._drive:
                self.counts.jumps.append((stamp_s, jump_m))
            self._posed_drive = self._drive
        elapsed_s = 0.0 if self._last_step_s is None else stamp_s - self._last_step_s
        if self._last_step_s is not None and elapsed_s < 0.9 * self._period_s:
            return None
        self._last_step_s = stamp_s
        frames = self._context.frames(pad=True)
        assert frames is not None
        current = frames[-1]
        observation = self._model.observe(frames)
        if self._observation is None:
            self._last_frame = current
            return self._make_node(image, current, observation, stamp_s, pose, None)
        assert self._last_frame is not None
        change = float(np.abs(current.astype(np.int16) - self._last_frame.astype(np.int16)).mean())
        self._last_frame = current
        if change < self._config.still_change:
            return None
        self._driven_steps += elapsed_s / self._period_s
        self._has_gap |= elapsed_s > 1.5 * self._period_s
        if round(self._driven_steps) < self._config.min_steps:
            return None
        distance = float(self._model.match(self._observation, current[None]).distances[0])
        near = distance < self._config.spacing_steps
        if near and round(self._driven_steps) < self._config.max_steps:
            return None
        return self._make_node(image, current, observation, stamp_s, pose, distance)

    def end_drive(self) -> None:
        """What comes next is another drive: no edge leads there unless a closure is found."""
        self._context.clear()
        self._observation = None
        self._last_stamp_s = self._last_step_s = None
        self._run = ClosureRun(self._config.closure)
        self._drive += 1

    def name_node(self, name: str, node: int | None = None) -> None:
        """Give a name to a node, by default the newest one.

        Raises:
            ValueError: the name cannot be one, or there is no node yet.
        """
        fault = new_name_fault(name) or ("" if len(self) else "a node first")
        if fault:
            raise ValueError(f"found the name {name!r}, expected {fault}")
        self._names[name] = len(self) - 1 if node is None else node

    def finish(self, name: str = "map", frame_id: str = "map") -> TopologicalMap:
        """The map of everything so far. More can be added afterwards.

        Raises:
            MapError: INVALID: no image came yet.
        """
        if not self._images:
            raise MapError(MapCode.INVALID, "map builder", "no image", "images of a drive")
        poses = None
        if all(pose is not None for pose in self._poses):
            poses = without_drift(
                np.stack([pose for pose in self._poses if pose is not None]),
                np.array(self._along_m),
                self._same_views,
            )
        edges = list(self._edges)
        if poses is not None:
            edges += turn_edges(poses, self._config, frames=self._frames.values)
        embeddings = None
        if self._model.spec.embedding_size:
            embeddings = self._descriptors.values.astype(np.float32)
        return TopologicalMap(
            model=MapModel.of(self._model.spec),
            images=np.stack(self._images),
            edges=edge_array(edges),
            embeddings=embeddings,
            poses=poses,
            stamps_s=np.array(self._stamps_s),
            drives=self._drives.values.astype(np.int32),
            names=dict(self._names),
            pictures=list(self._pictures),
            frame_id=frame_id,
            name=name,
        )

    def _make_node(
        self,
        image: NDArray[np.uint8],
        current: NDArray[np.uint8],
        observation: ObservationCode,
        stamp_s: float,
        pose: tuple[float, float, float] | None,
        distance: float | None,
    ) -> int:
        node = len(self._images)
        here = None if pose is None else np.array(pose, np.float64)
        frame = self._driven_poses.frame
        moved_m = 0.0
        before = self._poses[-1] if node and self._frames.values[-1] == frame else None
        if here is not None and before is not None:
            moved_m = math.hypot(*(here - before)[:2])
        self._images.append(current)
        self._descriptors.append(place_descriptors(self._model, current[None])[0])
        self._poses.append(here)
        self._stamps_s.append(stamp_s)
        self._drives.append(self._drive)
        self._frames.append(frame)
        if self._config.picture_quality:
            self._pictures.append(encode_picture(image, self._config.picture_quality))
        self._along_m.append((self._along_m[-1] if node else 0.0) + moved_m)
        steps = 0.0
        if distance is not None:
            steps = self._edge_steps(distance)
            self._link(node, steps)
        self._steps_so_far.append((self._steps_so_far.values[-1] if node else 0.0) + steps)
        self._observation = observation
        self._driven_steps = 0.0
        self._has_gap = False
        self._close_loop(node, observation)
        return node

    def _edge_steps(self, distance: float) -> float:
        """The network's distance, kept near the time that the drive took."""
        driven = self._driven_steps
        if self._has_gap:
            # Frames that are missing are replaced as if the robot had stood: the way looks longer.
            distance = 0.5 * (distance + driven)
        return float(np.clip(distance, max(driven / 3.0, _MIN_EDGE_STEPS), 1.5 * driven))

    def _link(self, node: int, steps: float) -> None:
        before = node - 1
        a, b = self._poses[before], self._poses[node]
        same_frame = self._frames.values[before] == self._frames.values[node]
        if a is not None and b is not None and same_frame and _is_turn(a, b, self._config):
            length = _turn_steps(a, b, self._config, self._period_s)
            self._edges.append((before, node, length, EdgeKind.TURN))
            self._edges.append((node, before, length, EdgeKind.TURN))
            return
        self._edges.append((before, node, steps, EdgeKind.CHAIN))
        self._next[before] = (node, steps)
        self._previous[node] = (before, steps)

    def _close_loop(self, node: int, observation: ObservationCode) -> None:
        config = self._config.closure
        apart = self._steps_so_far.values[node] - self._steps_so_far.values[:node]
        earlier = np.flatnonzero(
            (self._drives.values[:node] != self._drive) | (apart > config.apart_steps)
        )
        sighting = None
        proposals = self._proposals(node, earlier) if len(earlier) else []
        if proposals:
            sighting = find_sighting(
                self._model,
                observation,
                node,
                self._images,
                proposals,
                self._next.get,
                self._previous.get,
                config,
            )
        edges = self._run.add(sighting, self._next.get)
        same = find_same_view(self._model, node, self._images, proposals, config)
        if same is not None:
            other, steps = same
            if self._have_one_frame(other, node):
                # Odometry of another drive may be in a frame of its own, which is not drift.
                self._same_views.append((other, node))
            edges += [
                (node, other, steps, EdgeKind.CLOSURE),
                (other, node, steps, EdgeKind.CLOSURE),
            ]
        self._closures += len(edges)
        self._edges += edges

    def _have_one_frame(self, a: int, b: int) -> bool:
        frames, drives = self._frames.values, self._drives.values
        return bool(drives[a] == drives[b] and frames[a] == frames[b])

    def _proposals(self, node: int, others: NDArray[np.int64]) -> list[int]:
        config = self._config.closure
        similarity = (self._descriptors.values @ self._descriptors.values[node])[others]
        here = self._poses[node]
        proposals: list[int] = []
        for index in np.argsort(-similarity)[: 8 * config.proposals]:
            other = int(others[index])
            if similarity[index] < config.similarity or len(proposals) >= config.proposals:
                break
            there = self._poses[other]
            if (
                here is not None
                and there is not None
                and self._have_one_frame(other, node)
                and not may_be_same_place(
                    here, there, self._along_m[node] - self._along_m[other], config
                )
            ):
                continue
            # A neighbour of a proposal is tested with it.
            if any(abs(other - chosen) <= 1 for chosen in proposals):
                continue
            proposals.append(other)
        return proposals


def encode_picture(image: NDArray[np.uint8], quality: int) -> bytes:
    """RGB image (H, W, 3) uint8 → JPEG."""
    done, content = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return content.tobytes()


def without_drift(
    poses: NDArray[np.float64], along_m: NDArray[np.float64], same_views: list[tuple[int, int]]
) -> NDArray[np.float64]:
    """Poses of a drive, moved so that views of one place lie at one place.

    The error at a view that was seen before is spread over the way since then, in proportion to
    the way. Directions stay as they are: odometry knows them better than two alike views do.

    Args:
        poses: (N, 3) x, y [m], yaw [rad], as odometry gave them.
        along_m: (N,) way driven until each.
        same_views: pairs of an earlier and a later node.

    Returns:
        (N, 3) corrected poses.
    """
    shift = np.zeros((len(poses), 2))
    known = 0
    for earlier, later in sorted(same_views, key=lambda pair: pair[1]):
        error = poses[earlier, :2] + shift[earlier] - poses[later, :2] - shift[later]
        since = max(known, earlier)
        way_m = np.maximum(along_m - along_m[since], 0.0)
        share = np.clip(way_m / max(float(way_m[later]), 1e-6), 0.0, 1.0)
        shift += share[:, None] * error
        known = later
    return np.column_stack((poses[:, :2] + shift, poses[:, 2]))


def _is_turn(a: NDArray[np.float64], b: NDArray[np.float64], config: BuilderConfig) -> bool:
    apart = math.hypot(*(b - a)[:2])
    turned = abs(math.remainder(float(b[2] - a[2]), 2.0 * math.pi))
    return apart <= config.turn_radius_m and turned >= config.turn_rad


def _turn_steps(
    a: NDArray[np.float64], b: NDArray[np.float64], config: BuilderConfig, period_s: float
) -> float:
    turned = abs(math.remainder(float(b[2] - a[2]), 2.0 * math.pi))
    return max(_MIN_EDGE_STEPS, turned / config.turn_rate_rad_s / period_s)


def turn_edges(
    poses: NDArray[np.float64],
    config: BuilderConfig,
    period_s: float = 0.25,
    frames: NDArray[Any] | None = None,
) -> list[Edge]:
    """Turns on the spot between views of one place, found by their poses.

    Args:
        poses: (N, 3) x, y [m], yaw [rad].
        config: radius, angle and speed of turns.
        period_s: of a model step.
        frames: (N,) only poses with the same number can be compared; None: all can.

    Returns:
        For each node at most one edge to another view of its place per direction of looking, and
        the same back.
    """
    cell_m = max(config.turn_radius_m, 1e-3)
    cells: dict[tuple[int, int], list[int]] = {}
    keys = np.floor(poses[:, :2] / cell_m).astype(int)
    for node, (column, row) in enumerate(keys.tolist()):
        cells.setdefault((column, row), []).append(node)
    edges: list[Edge] = []
    for node, (column, row) in enumerate(keys.tolist()):
        # Nearest view per sector: two drives through one place are else joined only by chance.
        nearest: dict[int, tuple[float, int]] = {}
        for dx, dy in itertools.product((-1, 0, 1), repeat=2):
            for other in cells.get((column + dx, row + dy), ()):
                if frames is not None and frames[other] != frames[node]:
                    continue
                turned = math.remainder(float(poses[other, 2] - poses[node, 2]), 2.0 * math.pi)
                # Views nearer in angle are on the same way.
                if abs(turned) <= _LEAST_TURN_RAD or not _is_turn(
                    poses[node], poses[other], config
                ):
                    continue
                sector = round(turned / _TURN_SECTOR_RAD) % _TURN_SECTORS
                apart = math.hypot(*(poses[other] - poses[node])[:2])
                nearest[sector] = min(nearest.get(sector, (math.inf, -1)), (apart, other))
        for _, other in nearest.values():
            steps = _turn_steps(poses[node], poses[other], config, period_s)
            edges.append((node, other, steps, EdgeKind.TURN))
            edges.append((other, node, steps, EdgeKind.TURN))
    return edges
