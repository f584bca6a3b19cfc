"""Reads the drives that `collect` writes and draws training batches from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from policy_training.dataset import DatasetError, read_index, read_shard
from policy_training.gnm.labels import HORIZON, MAX_DISTANCE_STEPS, RouteTable, label

SCHEMA_VERSION = 1
_OPPOSITE_RAD = 1.75
"""Two images of the same place whose directions differ by this show different things."""


class DriveDataError(DatasetError):
    """A dataset directory that cannot be used."""


@dataclass(frozen=True, eq=False)
class Drives:
    """Frames of all drives, one row each, in order of drive and time.

    Attributes:
        image: (N, h, w, 3) uint8, as the network sees them.
        pose: (N, 3) float32 x, y [m], yaw [rad] in the world.
        arc_m: (N,) float32 length of the route at the pose.
        route: (N,) index into `table`.
        drive: (N,) index into `first` and `clean`.
        shard: (N,) index of the (world, robot) pair.
        first: (D + 1,) first row of each drive, and N.
        clean: (D,) whether the driver kept close to the route, as for a map.
        route_drives: drives of each route.
        spacing_m, max_turn_rad, on_the_spot: (S,) per shard, see `labels.label`.
        world: (S,) number of the world of each shard.
        shard_rows: (S + 1,) first row of each shard, and N.
        table: all routes.
        robots: (S,) names.
        command: how the data were made.
    """

    image: NDArray[np.uint8]
    pose: NDArray[np.float32]
    arc_m: NDArray[np.float32]
    route: NDArray[np.int64]
    drive: NDArray[np.int64]
    shard: NDArray[np.int64]
    first: NDArray[np.int64]
    clean: NDArray[np.bool_]
    route_drives: tuple[NDArray[np.int64], ...]
    spacing_m: NDArray[np.float64]
    max_turn_rad: NDArray[np.float64]
    on_the_spot: NDArray[np.bool_]
    world: NDArray[np.int64]
    shard_rows: NDArray[np.int64]
    table: RouteTable
    robots: tuple[str, ...]
    command: str

    def __len__(self) -> int:
        return len(self.pose)

    def labels(
        self, rows: NDArray[np.int64], goal_arc_m: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distance (n,) and waypoints (n, T, 4) from rows (n,) to points of the same routes."""
        shard = self.shard[rows]
        return label(
            self.pose[rows],
            self.arc_m[rows],
            self.route[rows],
            goal_arc_m,
            self.spacing_m[shard],
            self.table,
            self.max_turn_rad[shard],
            self.on_the_spot[shard],
        )

    def context_rows(self, rows: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
        """(n, frames) rows of the context, oldest first; before its start a drive stood still."""
        offsets = np.arange(1 - frames, 1)
        return np.maximum(rows[:, None] + offsets, self.first[self.drive[rows]][:, None])

    def nearest_row(self, drive: int, arc_m: float) -> int:
        """The row of a drive whose place on the route is nearest to `arc_m`."""
        start, end = self.first[drive], self.first[drive + 1]
        return int(start + np.argmin(np.abs(self.arc_m[start:end] - arc_m)))


def load_drives(paths: Sequence[str | Path], robots: Sequence[str] = ()) -> Drives:
    """Read datasets into memory.

    Args:
        paths: Directories with `dataset.json`, of different worlds. One that is still being
            collected gives what it has.
        robots: Only these; empty for all.

    Raises:
        DatasetError: There is no dataset, it is damaged, two have a drive in common, or nothing of
            them was asked for.
    """
    folders = [Path(path) for path in paths]
    indices = [_read_index(folder) for folder in folders]
    chosen = [
        {**shard, "path": folder / shard["file"]}
        for folder, index in zip(folders, indices, strict=True)
        for shard in index["shards"]
        if not robots or shard["robot"] in robots
    ]
    where = ", ".join(map(str, folders))
    if not chosen:
        raise DriveDataError(f"{where}: found no drive of robots {robots}")
    names = [shard["file"] for shard in chosen]
    if len(set(names)) != len(names):
        doubled = next(name for name in names if names.count(name) > 1)
        raise DriveDataError(f"{where}: found {doubled} twice, expected different worlds")
    columns: dict[str, list[NDArray[Any]]] = {
        key: [] for key in ("image", "pose", "arc_m", "route", "drive", "shard", "points")
    }
    offsets: list[NDArray[np.int64]] = []
    clean: list[bool] = []
    route_count = drive_count = point_count = 0
    for number, shard in enumerate(chosen):
        tensors = read_shard(shard["path"])
        rows = len(tensors["pose"])
        for key in ("image", "pose", "arc_m"):
            columns[key].append(tensors[key])
        columns["route"].append(tensors["route"].astype(np.int64) + route_count)
        columns["drive"].append(tensors["drive"].astype(np.int64) + drive_count)
        columns["shard"].append(np.full(rows, number, np.int64))
        columns["points"].append(tensors["route_points_m"])
        offsets.append(tensors["route_offsets"][:-1] + point_count)
        clean += [record["noise"] < 0.5 for record in shard["drives"]]
        route_count += len(tensors["route_offsets"]) - 1
        drive_count += len(shard["drives"])
        point_count += len(tensors["route_points_m"])
    joined = {key: np.concatenate(values) for key, values in columns.items()}
    starts = np.flatnonzero(np.diff(joined["drive"], prepend=-1))
    if len(starts) != drive_count:
        raise DriveDataError(f"{where}: found {len(starts)} drives, expected {drive_count}")
    drive_route = joined["route"][starts]
    seeds = [(shard["world"]["kind"], shard["world"]["seed"]) for shard in chosen]
    numbers = {seed: number for number, seed in enumerate(dict.fromkeys(seeds))}
    shard_sizes = [0, *(len(values) for values in columns["pose"])]
    return Drives(
        image=joined["image"],
        pose=joined["pose"],
        arc_m=joined["arc_m"],
        route=joined["route"],
        drive=joined["drive"],
        shard=joined["shard"],
        first=np.append(starts, len(joined["pose"])),
        clean=np.array(clean),
        route_drives=tuple(np.flatnonzero(drive_route == route) for route in range(route_count)),
        spacing_m=np.array([shard["spacing_m"] for shard in chosen]),
        max_turn_rad=np.array([shard["max_turn_rad"] for shard in chosen]),
        on_the_spot=np.array([shard["turns_on_the_spot"] for shard in chosen]),
        world=np.array([numbers[seed] for seed in seeds]),
        shard_rows=np.cumsum(shard_sizes),
        table=RouteTable(
            joined["points"].astype(np.float64),
            np.append(np.concatenate(offsets), point_count),
            float(indices[0]["route_step_m"]),
        ),
        robots=tuple(shard["robot"] for shard in chosen),
        command="; ".join(index["command"] for index in indices),
    )


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = read_index(folder / "dataset.json")
    except FileNotFoundError:
        raise DriveDataError(f"{folder}: found no dataset.json; expected a dataset") from None
    version = index.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DriveDataError(f"{folder}: found schema version {version}, expected {SCHEMA_VERSION}")
    return index


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images; all of them consistent within context and goals.

    Attributes:
        mirror: Share of samples seen in a mirror.
        zoom_share: Share of samples cut out and enlarged: another field of view and pitch.
        zoom: Largest magnification.
        gain: Largest relative change of brightness, shared by context and goals.
        own_gain: The same for the difference between context and each goal.
        channel_gain: Largest relative change of one colour.
        offset: Largest added brightness in grey levels.
        dropped_frame: Share of samples in which one past frame is lost and another repeated.
        standing: Share of samples whose past frames are all the current one.
    """

    mirror: float = 0.5
    zoom_share: float = 0.6
    zoom: float = 1.3
    gain: float = 0.25
    own_gain: float = 0.1
    channel_gain: float = 0.06
    offset: float = 12.0
    dropped_frame: float = 0.15
    standing: float = 0.07


NO_AUGMENTATION = Augmentation(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Batch:
    """B observations with K goals each, and P pairs of images of the same place.

    Attributes:
        context: (B, h, w, 3·frames) uint8, oldest first.
        goals: (B·K, h, w, 3) uint8.
        context_colour, goal_colour: (B, 3·frames, 2), (B·K, 3, 2) float32 gain and offset to apply.
        distance: (B·K,) float32 model steps; NaN where the goal's distance is not known.
        waypoints: (B·K, T, 4) float32, NaN where there are none.
        places: (2·P, h, w, 3) uint8, anchors and then their positives.
        place_colour: (2·P, 3, 2) float32.
        place_near: (P, P) whether positive j also shows the place of anchor i.
    """

    context: NDArray[np.uint8]
    goals: NDArray[np.uint8]
    context_colour: NDArray[np.float32]
    goal_colour: NDArray[np.float32]
    distance: NDArray[np.float32]
    waypoints: NDArray[np.float32]
    places: NDArray[np.uint8]
    place_colour: NDArray[np.float32]
    place_near: NDArray[np.bool_]


@dataclass(frozen=True)
class BatchSizes:
    """How a batch is made up.

    Attributes:
        observations: B.
        ahead: Goals ahead on the same route, up to the largest distance.
        far: Goals on the same route that lie behind or too far ahead.
        elsewhere: Goals in the same world on other routes or facing the other way.
        other_world: Goals in another world.
        places: P.
        place_shards: Number of (world, robot) pairs that these come from.
    """

    observations: int = 24
    ahead: int = 5
    far: int = 1
    elsewhere: int = 1
    other_world: int = 1
    places: int = 32
    place_shards: int = 2

    @property
    def goals(self) -> int:
        """K."""
        return self.ahead + self.far + self.elsewhere + self.other_world


class BatchSource:
    """Draws batches; the same seed and step give the same batch.

    Args:
        drives: The data.
        frames: Images per observation.
        sizes: Make-up of a batch.
        augmentation: Random changes.
        seed: Of everything drawn.
    """

    def __init__(
        self,
        drives: Drives,
        frames: int,
        sizes: BatchSizes,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._drives = drives
        self._frames = frames
        self._sizes = sizes
        self._augmentation = augmentation
        self._seed = seed
        self._clean_share = 0.75

    def batch(self, step: int) -> Batch:
        """The batch of a training step."""
        rng = np.random.default_rng([self._seed, step])
        drives, sizes = self._drives, self._sizes
        rows = rng.integers(0, len(drives), sizes.observations)
        goal_rows = np.concatenate([self.goal_rows(int(row), rng) for row in rows])
        frame_rows = np.repeat(rows, sizes.goals)
        distance, waypoints = self.label_pairs(frame_rows, goal_rows)
        context, goals, mirrored = self._images(rows, goal_rows, rng)
        # Seen in a mirror, left is right.
        flipped = np.repeat(mirrored, sizes.goals)
        waypoints[flipped] *= np.array([1.0, -1.0, 1.0, -1.0], np.float32)
        context_colour, goal_colour = self._colours(rng)
        places, place_colour, near = self._places(rng)
        return Batch(
            context,
            goals,
            context_colour,
            goal_colour,
            distance,
            waypoints,
            places,
            place_colour,
            near,
        )

    def label_pairs(
        self, rows: NDArray[np.int64], goals: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels of (frame, goal) pairs: distance (n,), waypoints (n, T, 4), NaN where unknown.

        Goals on other routes count as far, unless they are near and face the same way: then the
        route between is not known.
        """
        drives = self._drives
        distance = np.full(len(rows), MAX_DISTANCE_STEPS, np.float32)
        waypoints = np.full((len(rows), HORIZON, 4), np.nan, np.float32)
        same = drives.route[rows] == drives.route[goals]
        if same.any():
            goal_arc = drives.arc_m[goals[same]]
            steps, path = drives.labels(rows[same], goal_arc)
            spacing = drives.spacing_m[drives.shard[rows[same]]]
            ahead = goal_arc - drives.arc_m[rows[same]] > -0.5 * spacing
            path[~(ahead & (steps < MAX_DISTANCE_STEPS))] = np.nan
            distance[same], waypoints[same] = steps, path
        spacing = drives.spacing_m[drives.shard[rows]]
        offset = drives.pose[goals] - drives.pose[rows]
        turned = np.abs((offset[:, 2] + np.pi) % (2 * np.pi) - np.pi)
        near = np.hypot(offset[:, 0], offset[:, 1]) < MAX_DISTANCE_STEPS * spacing
        same_world = drives.world[drives.shard[rows]] == drives.world[drives.shard[goals]]
        distance[~same & same_world & near & (turned < _OPPOSITE_RAD)] = np.nan
        return distance, waypoints

    def goal_rows(self, row: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Rows (K,) of goals for the observation at `row`."""
        drives, sizes = self._drives, self._sizes
        route, shard = drives.route[row], drives.shard[row]
        spacing, arc = drives.spacing_m[shard], drives.arc_m[row]
        start, end = drives.shard_rows[shard], drives.shard_rows[shard + 1]
        goals = []
        for _ in range(sizes.ahead):
            steps = rng.uniform(-1.0, 1.0) if rng.random() < 0.08 else 21.0 * rng.random() ** 1.2
            goals.append(drives.nearest_row(self._drive_of(route, rng), arc + steps * spacing))
        for _ in range(sizes.far):
            behind = rng.random() < 0.5
            steps = -rng.uniform(2.5, 25.0) if behind else rng.uniform(20.0, 45.0)
            goals.append(drives.nearest_row(self._drive_of(route, rng), arc + steps * spacing))
        goals += [int(goal) for goal in rng.integers(start, end, sizes.elsewhere)]
        goals += [int(goal) for goal in rng.integers(0, len(drives), sizes.other_world)]
        return np.array(goals)

    def _drive_of(self, route: int, rng: np.random.Generator) -> int:
        """A drive of the route; more often a clean one, as those that maps are made of."""
        drives = self._drives.route_drives[route]
        clean = drives[self._drives.clean[drives]]
        pool = clean if len(clean) and rng.random() < self._clean_share else drives
        return int(pool[rng.integers(len(pool))])

    def _images(
        self, rows: NDArray[np.int64], goal_rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
        images, options = self._drives.image, self._augmentation
        context_rows = self._drives.context_rows(rows, self._frames)
        count, (height, width) = self._sizes.goals, images.shape[1:3]
        context = np.empty((len(rows), height, width, 3 * self._frames), np.uint8)
        goals = images[goal_rows]
        mirrored = rng.random(len(rows)) < options.mirror
        for index, chosen in enumerate(context_rows):
            if rng.random() < options.dropped_frame:
                lost = rng.integers(0, self._frames - 1)
                chosen = chosen.copy()
                chosen[: lost + 1] = np.append(chosen[1 : lost + 1], chosen[lost + 1])
            if rng.random() < options.standing:
                chosen = np.full_like(chosen, chosen[-1])
            own_goals = goals[index * count : (index + 1) * count]
            views = [images[row] for row in chosen] + list(own_goals)
            if rng.random() < options.zoom_share:
                views = _zoomed(views, rng.uniform(1.0, options.zoom), rng)
            stacked = cv2.merge(views[: self._frames])
            own = views[self._frames :]
            if mirrored[index]:
                stacked, own = cv2.flip(stacked, 1), [cv2.flip(view, 1) for view in own]
            context[index], own_goals[:] = stacked, own
        return context, goals, mirrored

    def _colours(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        options, count, goals = self._augmentation, self._sizes.observations, self._sizes.goals
        shared = self._colour(rng, count, options.gain)
        context = np.tile(shared, (1, self._frames, 1))
        goal = np.repeat(shared, goals, axis=0)
        own = self._colour(rng, count * goals, options.own_gain)
        goal[..., 0] *= own[..., 0]
        goal[..., 1] += 0.5 * own[..., 1]
        return context, goal

    def _colour(self, rng: np.random.Generator, count: int, largest: float) -> NDArray[np.float32]:
        options = self._augmentation
        gain = np.exp(rng.uniform(-largest, largest, (count, 1)))
        gain = gain * np.exp(rng.uniform(-1, 1, (count, 3)) * options.channel_gain)
        offset = np.broadcast_to(rng.uniform(-1, 1, (count, 1)) * options.offset, (count, 3))
        return np.stack([gain, offset], axis=-1).astype(np.float32)

    def _places(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        drives, sizes = self._drives, self._sizes
        share = sizes.places // max(1, sizes.place_shards)
        anchors, positives = [], []
        for shard in rng.integers(0, len(drives.robots), sizes.place_shards):
            for row in rng.integers(drives.shard_rows[shard], drives.shard_rows[shard + 1], share):
                steps = rng.uniform(-2.0, 2.0)
                arc = drives.arc_m[row] + steps * drives.spacing_m[shard]
                anchors.append(row)
                positives.append(drives.nearest_row(self._drive_of(drives.route[row], rng), arc))
        rows = np.array(anchors + positives, np.int64)
        images = drives.image[rows]
        for index in range(len(images)):
            if rng.random() < self._augmentation.zoom_share:
                zoom = rng.uniform(1.0, 1.0 + 0.4 * (self._augmentation.zoom - 1.0))
                images[index] = _zoomed([images[index]], zoom, rng)[0]
        if rng.random() < self._augmentation.mirror:
            images = images[:, :, ::-1].copy()
        near = same_place(drives, rows[: len(anchors), None], rows[None, len(anchors) :])
        np.fill_diagonal(near, True)
        return images, self._colour(rng, len(rows), self._augmentation.gain), near


def same_place(
    drives: Drives, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether two frames (rows, broadcast) show nearly the same: the same world, within 4 steps
    or 1 m, and within 45 degrees."""
    offset = drives.pose[second] - drives.pose[first]
    turned = np.abs((offset[..., 2] + np.pi) % (2 * np.pi) - np.pi)
    limit = np.maximum(4.0 * drives.spacing_m[drives.shard[first]], 1.0)
    world = drives.world[drives.shard[first]] == drives.world[drives.shard[second]]
    close = np.hypot(offset[..., 0], offset[..., 1]) < limit
    return np.asarray(world & close & (turned < 0.785))


def _zoomed(
    views: list[NDArray[np.uint8]], zoom: float, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Cut the same window out of all views and enlarge it; at random heights, hardly sideways."""
    height, width = views[0].shape[:2]
    rows, columns = max(8, round(height / zoom)), max(8, round(width / zoom))
    top = int(rng.integers(0, height - rows + 1))
    left = (width - columns) // 2
    return [
        np.asarray(
            cv2.resize(
                view[top : top + rows, left : left + columns],
                (width, height),
                interpolation=cv2.INTER_LINEAR,
            ),
            np.uint8,
        )
        for view in views
    ]
