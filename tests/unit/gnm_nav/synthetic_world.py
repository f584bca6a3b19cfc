"""A synthetic world: images encode the camera's pose, and a network that reads them.

Nothing is passed on beside the images: the network decodes poses from noisy pixels and derives
distances, waypoints and embeddings from what it decoded, so a test fails when the code under test
compares the wrong images.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from gnm_nav.path_follower import leads_back

NATIVE = (120, 160)
SIZE_M = 40.0
"""Images tell positions from −20 m to 20 m apart."""
SPACING_M = 0.125


def wrap(angle):
    return (np.asarray(angle) + math.pi) % (2.0 * math.pi) - math.pi


def render(pose, rng=None, noise=6.0, shape=NATIVE):
    """The image at a pose (x, y, yaw): eight bands of which each encodes one value.

    Coarse and fine parts of x and y, cosine and sine of yaw; noise in every pixel.
    """
    x, y, yaw = pose
    values = []
    for value in (x, y):
        whole = (value + SIZE_M / 2.0) / SIZE_M
        fine = (value / 2.5) * 2.0 * math.pi
        values += [whole, 0.5 + 0.5 * math.cos(fine), 0.5 + 0.5 * math.sin(fine)]
    values += [0.5 + 0.5 * math.cos(yaw), 0.5 + 0.5 * math.sin(yaw)]
    height, width = shape
    bands = np.array([20.0 + 215.0 * value for value in values])
    rows = np.arange(height) * len(bands) // height
    image = np.repeat(bands[rows][:, None], width, axis=1)[:, :, None].repeat(3, axis=2)
    if rng is not None:
        image = image + rng.normal(0.0, noise, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def decode(images):
    """(N, 3) poses out of (N, h, w, 3) images; the inverse of `render`, as good as the noise."""
    height = images.shape[1]
    rows = np.arange(height) * 8 // height
    inner = np.stack(
        [
            # Without the borders, which resizing mixes.
            np.median(images[:, np.flatnonzero(rows == band)[1:-1]], axis=(1, 2, 3))
            for band in range(8)
        ],
        axis=1,
    )
    values = (inner.astype(float) - 20.0) / 215.0
    position = []
    for first in (0, 3):
        coarse = values[:, first] * SIZE_M - SIZE_M / 2.0
        phase = np.arctan2(2.0 * values[:, first + 2] - 1.0, 2.0 * values[:, first + 1] - 1.0)
        fine = phase / (2.0 * math.pi) * 2.5
        position.append(fine + 2.5 * np.rint((coarse - fine) / 2.5))
    yaw = np.arctan2(2.0 * values[:, 7] - 1.0, 2.0 * values[:, 6] - 1.0)
    return np.stack([*position, yaw], axis=1)


@dataclass(frozen=True)
class Spec:
    kind: str = "gnm"
    name: str = "synthetic"
    fingerprint: str = "f" * 64
    image_size: tuple = (85, 64)
    context_size: int = 5
    rate_hz: float = 4.0
    horizon: int = 5
    max_distance_steps: float = 20.0
    has_heading: bool = True
    embedding_size: int = 24
    can_explore: bool = False


@dataclass
class Match:
    distances: np.ndarray
    relative: np.ndarray


class SyntheticModel:
    """A network of the protocol `NavigationModel`, with errors of its own."""

    def __init__(self, seed=0, distance_noise=0.7, embedding_size=24, kind="gnm"):
        self.spec = Spec(embedding_size=embedding_size, kind=kind)
        self._rng = np.random.default_rng(seed)
        self._noise = distance_noise
        projection = np.random.default_rng(7)
        self._directions = projection.normal(0.0, 1.0, (3, embedding_size))
        self._phases = projection.uniform(0.0, 2.0 * math.pi, embedding_size)
        self.observed = 0
        self.batches = []

    def preprocess(self, image):
        width, height = self.spec.image_size
        rows = (np.arange(height) * image.shape[0] / height).astype(int)
        columns = (np.arange(width) * image.shape[1] / width).astype(int)
        return np.ascontiguousarray(image[rows][:, columns])

    def observe(self, frames):
        assert len(frames) == self.spec.context_size + 1
        self.observed += 1
        return decode(np.asarray(frames[-1])[None])[0]

    def match(self, observation, goals):
        self.batches.append(len(goals))
        goals = decode(np.asarray(goals))
        x, y, yaw = observation
        dx, dy = goals[:, 0] - x, goals[:, 1] - y
        forward = math.cos(yaw) * dx + math.sin(yaw) * dy
        left = -math.sin(yaw) * dx + math.cos(yaw) * dy
        turn = wrap(goals[:, 2] - yaw)
        way = np.hypot(forward, left)
        steps = way / SPACING_M + 3.0 * np.abs(turn)
        aside = np.abs(left) > 0.8 * np.maximum(forward, 0.0) + 0.8
        behind = (forward < -0.5 * SPACING_M) | aside
        steps = np.where(behind | (np.abs(turn) > 1.8), 20.0, steps)
        steps = steps + self._rng.normal(0.0, self._noise, len(steps))
        relative = np.stack([forward, left, turn], axis=1)
        return Match(np.clip(steps, 0.0, 20.0).astype(np.float32), relative)

    def waypoints(self, match, index, *, seed=None, num_samples=1):
        forward, left, turn = match.relative[index]
        way = max(math.hypot(forward, left), 1e-6)
        reach = np.minimum(SPACING_M * np.arange(1, 6), way)
        bearing = math.atan2(left, max(forward, 0.05))
        path = np.stack(
            [
                reach * math.cos(bearing) / SPACING_M,
                reach * math.sin(bearing) / SPACING_M,
                np.full(5, math.cos(turn)),
                np.full(5, math.sin(turn)),
            ],
            axis=1,
        )
        return path[None].astype(np.float32)

    def embed(self, images):
        poses = decode(np.asarray(images))
        features = np.stack([poses[:, 0] / 1.5, poses[:, 1] / 1.5, 0.0 * poses[:, 2]], axis=1)
        waves = np.cos(features @ self._directions + self._phases)
        turned = np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=1) * 2.0
        waves = np.concatenate([waves[:, :-2], turned], axis=1)
        return (waves / np.linalg.norm(waves, axis=1, keepdims=True)).astype(np.float32)

    def explore(self, observation, *, seed, num_samples):
        raise NotImplementedError


def along(points, spacing_m=0.5):
    """Poses along a polyline, every `spacing_m`, facing forwards."""
    poses = []
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        length = math.hypot(bx - ax, by - ay)
        yaw = math.atan2(by - ay, bx - ax)
        for s in np.arange(0.0, length - 1e-9, spacing_m):
            poses.append((ax + s * math.cos(yaw), ay + s * math.sin(yaw), yaw))
    return np.array(poses)


def rounded(points, radius_m=1.0, parts=8):
    """The polyline with its corners rounded off."""
    result = [points[0]]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        before, corner, after = map(np.array, (before, corner, after))
        first = corner + (before - corner) / np.linalg.norm(before - corner) * radius_m
        last = corner + (after - corner) / np.linalg.norm(after - corner) * radius_m
        for t in np.linspace(0.0, 1.0, parts):
            point = (1 - t) ** 2 * first + 2 * t * (1 - t) * corner + t**2 * last
            result.append(tuple(point.tolist()))
    return [*result, points[-1]]


def driven(points, radius_m=1.0):
    """Poses of a drive at 4 Hz and nominal speed along a rounded polyline."""
    return along(rounded(points, radius_m), SPACING_M)


def build(model, *drives, seed=0, with_poses=True, config=None):
    """A map of drives, each an (n, 3) array of poses; and the true pose of each node."""
    from gnm_nav.map_building import MapBuilder

    rng = np.random.default_rng(seed)
    builder = MapBuilder(model, config)
    truth = []
    for drive in drives:
        for index, pose in enumerate(drive):
            taken = builder.add(
                render(pose, rng), 0.25 * index, tuple(pose) if with_poses else None
            )
            if taken is not None:
                truth.append(pose)
        builder.end_drive()
    return builder.finish(), np.array(truth)


def navigate(core, robot, ticks, started_s=0.0):
    """Run a core and a robot until the goal is reached or given up; all decisions."""
    decisions = []
    for tick in range(ticks):
        now_s = started_s + 0.25 * tick
        core.push_frame(robot.image(), now_s)
        decision = core.tick(now_s)
        decisions.append(decision)
        if decision.reached or decision.code is not None:
            break
        robot.follow(decision)
    return decisions


class Robot:
    """A kinematic robot in the plane; `walls` are callables that forbid positions."""

    def __init__(self, pose, seed=0, walls=()):
        self.pose = np.array(pose, float)
        self.walls = list(walls)
        self._rng = np.random.default_rng(seed)

    def image(self):
        return render(self.pose, self._rng)

    def follow(self, decision, dt_s=0.25):
        x, y, yaw = self.pose
        if decision.turn_rate_rad_s is not None:
            self.pose[2] = wrap(yaw + decision.turn_rate_rad_s * dt_s)
        elif decision.waypoints_m is not None:
            target = decision.waypoints_m[2]
            turn = np.clip(math.atan2(target[1], max(target[0], 1e-3)), -0.3, 0.3)
            step = min(SPACING_M, math.hypot(target[0], target[1]) / 3.0) * math.cos(turn)
            if leads_back(decision.waypoints_m):
                step, turn = -step, 0.0
            yaw = float(wrap(yaw + turn))
            moved = (x + step * math.cos(yaw), y + step * math.sin(yaw))
            self.pose[2] = yaw
            if not any(wall(*moved) for wall in self.walls):
                self.pose[:2] = moved
