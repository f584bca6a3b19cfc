"""The `deployment:` section of a bundle: what a policy sees, commands and was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from node_common.strict_yaml import BundleError, Section, did_you_mean
from numpy.typing import NDArray

SCHEMA_VERSIONS = (1, 2)
STAGE_ROLES = (
    "encoder",
    "policy",
    "critic_encoder",
    "critic",
    "affordance",
    "distance",
    "observe",
    "match",
    "embed",
    "goal",
    "explore",
    "denoise",
)
IMU_UNITS = {
    **dict.fromkeys(("angular_velocity_x", "angular_velocity_y", "angular_velocity_z"), "rad/s"),
    **dict.fromkeys(
        ("linear_acceleration_x", "linear_acceleration_y", "linear_acceleration_z"), "m/s^2"
    ),
    **dict.fromkeys(("gravity_x", "gravity_y", "gravity_z"), "1"),
    **dict.fromkeys(("roll", "pitch", "yaw"), "rad"),
}
"""What an IMU tells, in the frame of its body; gravity is the unit vector that points down."""
VELOCITY_UNITS = {"vx": "m/s", "vy": "m/s", "wz": "rad/s"}
"""A commanded velocity of a base: forward, left, counter-clockwise."""
QUANTITY_UNITS = {
    "position": ("rad", "m"),
    "velocity": ("rad/s", "m/s"),
    "effort": ("N*m", "N", "mA"),
}
"""What a joint state tells of each joint."""
STATE_KINDS = ("end_effector_state", "joint_state", "imu", "commanded_velocity", "last_action")
"""Kinds of observations that are vectors of named numbers."""
OBSERVATION_KINDS: Mapping[int, tuple[str, ...]] = {
    1: ("camera", "end_effector_state", "task_one_hot"),
    2: ("camera", *STATE_KINDS, "goal_image", "task_one_hot", "language_embedding"),
}
"""Kinds of observations of each schema."""
NAVIGATION_KINDS = ("gnm", "vint", "nomad")
"""Our kinds that drive to a goal image; like those of other packages they need `navigation`."""
RESIZE_FILTERS = {"squash": "area", "crop_4_3": "bicubic"}
"""Each rule of fitting an image to the network's size has its one filter."""
MAX_HISTORY = 64
INFERENCE = ("between_steps", "background")
"""When the next chunk is computed: while the robot waits for it, or while it executes this one."""
OBSERVATION_AGE_S = 0.4
"""Oldest observation of the first step of a bundle that does not say its own [s]."""
UNITS = ("m", "rad", "m/s", "rad/s", "m/s^2", "N*m", "N", "mA", "opening", "1")
MAX_RATE_HZ = 200.0
MAX_HORIZON = 100_000


@dataclass(frozen=True)
class PolicyRecord:
    """What the policy is and how it came about.

    `results`, `settings` and `trained_on` are for people; nothing is decided on them.
    """

    kind: str
    version: str
    licence: str
    algorithm: str
    trained_on: str
    command: str
    results: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class ChunkSpec:
    """How the steps of an action chunk are executed.

    Attributes:
        execute_steps: after so many steps the next chunk is computed.
        in_background: whether that happens while the steps that are left are executed. The new
            chunk then joins where these have got to.
        ensemble_decay: see `policy_server.chunk_player.ChunkPlayer`; None: no ensemble.
    """

    execute_steps: int = 1
    in_background: bool = False
    ensemble_decay: float | None = None


@dataclass(frozen=True)
class ActionSpec:
    """The action that the policy returns.

    Attributes:
        tensor: `node/output` that holds it; its last axis has one entry per name.
        names, units: one per entry; names decide the order.
        low, high: bounds, float64, shape (A,), read-only.
        frame: frame in which deltas are expressed.
        space: name of the action space, e.g. end_effector_delta.
        gripper_closed, gripper_open: values of the entry named "gripper", if there is one.
        chunk: how the steps of a tensor (…, H, A) are executed.
        max_observation_age_s: how old the observation behind a step may be when the step is
            executed [s].
    """

    tensor: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    frame: str
    space: str
    gripper_closed: float | None
    gripper_open: float | None
    chunk: ChunkSpec
    max_observation_age_s: float


@dataclass(frozen=True)
class CameraObservation:
    """An RGB image of `size` = (width, height) pixels.

    `resize` names what fits it to that size: `squash` (by area averaging, the aspect ratio not
    kept) or `crop_4_3` (`preprocessing.crop_bicubic`). As a value: uint8, shape
    (height, width, 3), or (history, height, width, 3), oldest first, if `history` is above 1.
    """

    name: str
    tensors: tuple[str, ...]
    camera: str
    size: tuple[int, int]
    kind: str = "camera"
    resize: str = "squash"
    history: int = 1

    @property
    def tensor(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of the models' inputs."""
        return "uint8", (self.history, self.size[1], self.size[0], 3)


@dataclass(frozen=True)
class StateObservation:
    """A vector of named numbers, not normalised.

    As a value: float32, shape (len(names),), or (history, len(names)), oldest first, if `history`
    is above 1.

    Attributes:
        kind: one of `STATE_KINDS`.
        quantity: of a joint state: `position`, `velocity` or `effort`; else empty.
    """

    name: str
    tensors: tuple[str, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    kind: str = "end_effector_state"
    quantity: str = ""
    history: int = 1

    @property
    def tensor(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of the models' inputs."""
        return "float32", (self.history, len(self.names))


@dataclass(frozen=True)
class GoalImageObservation:
    """The image of the goal, which comes with the task; `size` and `resize` as of a camera."""

    name: str
    tensors: tuple[str, ...]
    size: tuple[int, int]
    resize: str = "squash"
    kind: str = "goal_image"

    @property
    def tensor(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of the models' inputs."""
        return "uint8", (1, self.size[1], self.size[0], 3)


@dataclass(frozen=True)
class TaskObservation:
    """The task as a one-hot vector of `size` entries; made by the policy from the task's name."""

    name: str
    tensors: tuple[str, ...]
    size: int
    kind: str = "task_one_hot"

    @property
    def tensor(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of the models' inputs."""
        return "float32", (1, self.size)


@dataclass(frozen=True)
class EmbeddingObservation:
    """The task's instruction as a vector of `size` numbers, made by the model called `encoder`."""

    name: str
    tensors: tuple[str, ...]
    size: int
    encoder: str
    kind: str = "language_embedding"

    @property
    def tensor(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of the models' inputs."""
        return "float32", (1, self.size)


@dataclass(frozen=True)
class NavigationRecord:
    """What a policy that drives to a goal image returns beside waypoints.

    Attributes:
        distance: `node/output` with the distance to each goal in model steps.
        max_distance_steps: largest distance it was trained on; also the label of unrelated goals.
        embedding: `node/output` with place descriptors (unit vectors), "" for none.
        can_explore: whether it can drive without a goal.
    """

    distance: str
    max_distance_steps: float
    embedding: str
    can_explore: bool


ObservationSpec = (
    CameraObservation
    | StateObservation
    | GoalImageObservation
    | TaskObservation
    | EmbeddingObservation
)


@dataclass(frozen=True)
class Deployment:
    """The whole `deployment:` section, checked in itself (not yet against the models).

    Attributes:
        tasks: task name → id, in order of id; empty when the policy knows no tasks.
        instructions: task name → the task in words.
        stages: role → node.
        files: file name → SHA-256, hexadecimal.
        validation_passes: how many inputs the exported files were compared on with the original.
        validation_max_abs_error: largest difference seen.
        navigation: of what drives to a goal image.
    """

    policy: PolicyRecord
    rate_hz: float
    horizon: int
    robot: str
    action: ActionSpec
    observations: tuple[ObservationSpec, ...]
    tasks: Mapping[str, int]
    instructions: Mapping[str, str]
    stages: Mapping[str, str]
    files: Mapping[str, str]
    validation_passes: int
    validation_max_abs_error: float
    navigation: NavigationRecord | None = None

    @property
    def cameras(self) -> tuple[CameraObservation, ...]:
        """The camera observations."""
        return tuple(o for o in self.observations if isinstance(o, CameraObservation))

    @property
    def states(self) -> tuple[StateObservation, ...]:
        """The observations that are vectors of named numbers."""
        return tuple(o for o in self.observations if isinstance(o, StateObservation))

    @property
    def sensed(self) -> tuple[CameraObservation | StateObservation, ...]:
        """The observations that have a new value at every tick."""
        return (*self.cameras, *self.states)

    def needs(self, kind: str) -> bool:
        """Whether the policy has an observation of a kind, e.g. `goal_image`."""
        return any(observation.kind == kind for observation in self.observations)


def parse_deployment(section: Section) -> Deployment:
    """Read and check the section.

    Raises:
        BundleError: naming the field, what it holds and what it may hold.
    """
    version = section.value("schema_version")
    if version not in SCHEMA_VERSIONS or isinstance(version, bool):
        raise section.error("schema_version", f"one of {list(SCHEMA_VERSIONS)}")
    control = section.section("control")
    rate_hz = control.number("rate_hz", 0.1, MAX_RATE_HZ)
    tasks, instructions = _parse_tasks(section)
    validation = section.section("validation")
    policy = _parse_policy(section.section("policy"))
    navigates = "navigation" in section
    if policy.kind in NAVIGATION_KINDS and not navigates:
        raise section.error("navigation", f"a mapping, which the kinds {NAVIGATION_KINDS} need")
    deployment = Deployment(
        policy=policy,
        rate_hz=rate_hz,
        horizon=control.integer("horizon", 1, MAX_HORIZON),
        robot=section.string("robot"),
        action=_parse_action(section.section("action"), int(version), rate_hz),
        observations=_parse_observations(section, tasks, int(version), navigates),
        tasks=tasks,
        instructions=instructions,
        stages=_parse_stages(section.section("stages")),
        files=_parse_files(section),
        validation_passes=validation.integer("passes", 1, 1_000_000),
        validation_max_abs_error=validation.number("max_abs_error", 0.0, 1e3),
        navigation=_parse_navigation(section.section("navigation")) if navigates else None,
    )
    for part in (control, validation, section):
        part.finish()
    return deployment


def _parse_policy(section: Section) -> PolicyRecord:
    record = PolicyRecord(
        kind=section.string("kind"),
        version=section.string("version"),
        licence=section.string("licence"),
        algorithm=section.text("algorithm"),
        trained_on=section.text("trained_on"),
        command=section.text("command"),
        results=section.mapping("results") if "results" in section else {},
        settings=section.mapping("settings") if "settings" in section else {},
    )
    section.finish()
    return record


def _parse_action(section: Section, version: int, rate_hz: float) -> ActionSpec:
    names = _unique(section, "names")
    units = _parse_units(section, names)
    low = np.array(section.numbers("low"))
    high = np.array(section.numbers("high"))
    for key, bound in (("low", low), ("high", high)):
        if len(bound) != len(names):
            raise section.error(key, f"{len(names)} numbers, one per name")
        bound.setflags(write=False)
    if not np.all(low <= high):  # the same: a dimension that the policy does not move
        raise section.error("high", "no bound below the same entry of `low`")
    closed = opened = None
    if ("gripper" in section) != ("gripper" in names):
        raise section.error("gripper", 'a mapping exactly when `names` contains "gripper"')
    if "gripper" in section:
        gripper = section.section("gripper")
        index = names.index("gripper")
        closed = gripper.number("closed", low[index], high[index])
        opened = gripper.number("open", low[index], high[index])
        gripper.finish()
        if closed == opened:
            raise gripper.error("open", "a value different from `closed`")
    chunk, max_observation_age_s = _parse_chunk(section, version, rate_hz)
    spec = ActionSpec(
        tensor=_parse_tensor(section, "tensor", section.value("tensor")),
        names=names,
        units=units,
        low=low,
        high=high,
        frame=section.string("frame"),
        space=section.string("space"),
        gripper_closed=closed,
        gripper_open=opened,
        chunk=chunk,
        max_observation_age_s=max_observation_age_s,
    )
    section.finish()
    return spec


def _parse_chunk(section: Section, version: int, rate_hz: float) -> tuple[ChunkSpec, float]:
    """Return how chunks are executed, and how old the observation behind a step may be [s]."""
    if version == 1:
        steps = section.integer("execute_steps", 1, 1000) if "execute_steps" in section else 1
        return ChunkSpec(steps), OBSERVATION_AGE_S + (steps - 1) / rate_hz
    chunk = ChunkSpec()
    if "chunk" in section:
        item = section.section("chunk")
        in_background = item.string("inference", INFERENCE) == "background"
        decay = item.number("ensemble_decay", 0.0, 10.0) if "ensemble_decay" in item else None
        if decay is not None and not in_background:
            raise item.error("ensemble_decay", "inference: background beside it")
        chunk = ChunkSpec(item.integer("execute_steps", 1, 1000), in_background, decay)
        item.finish()
    max_observation_age_s = section.number("max_observation_age_s", 0.02, 100.0)
    last_step_s = (chunk.execute_steps - 1) / rate_hz
    if max_observation_age_s <= last_step_s:
        raise section.error(
            "max_observation_age_s",
            f"more than {last_step_s:g}: step {chunk.execute_steps} is executed so long after the "
            "observation",
        )
    return chunk, max_observation_age_s


def _parse_navigation(section: Section) -> NavigationRecord:
    can_explore = section.value("can_explore")
    if not isinstance(can_explore, bool):
        raise section.error("can_explore", "true or false")
    embedding = section.optional("embedding")
    record = NavigationRecord(
        distance=_parse_tensor(section, "distance", section.value("distance")),
        max_distance_steps=section.number("max_distance_steps", 1.0, 10_000.0),
        embedding=_parse_tensor(section, "embedding", embedding) if embedding is not None else "",
        can_explore=can_explore,
    )
    section.finish()
    return record


def _parse_observations(
    section: Section, tasks: Mapping[str, int], version: int, navigates: bool
) -> tuple[ObservationSpec, ...]:
    entries = section.value("observations")
    if not isinstance(entries, list) or not entries:
        raise section.error("observations", "a non-empty list")
    observations: list[ObservationSpec] = []
    for index, entry in enumerate(entries):
        item = Section(section.file, f"{section.field('observations')}[{index}]", entry)
        observation = _parse_observation(item, len(tasks), version, navigates)
        item.finish()
        if observation.name in [other.name for other in observations]:
            raise item.error("name", "a name that no other observation has")
        if isinstance(observation, TaskObservation) and not tasks:
            raise item.error("kind", f"{section.field('tasks')} to name the tasks")
        observations.append(observation)
    bound = [tensor for observation in observations for tensor in observation.tensors]
    for tensor in bound:
        if bound.count(tensor) > 1:
            raise BundleError(
                section.file,
                section.field("observations"),
                f"{tensor} bound {bound.count(tensor)} times",
                "each tensor bound once",
            )
    return tuple(observations)


def _parse_observation(
    item: Section, num_tasks: int, version: int, navigates: bool
) -> ObservationSpec:
    name = item.string("name")
    kind = item.string("kind", OBSERVATION_KINDS[version])
    if ("tensor" in item) == ("tensors" in item):
        raise BundleError(
            item.file,
            item.path,
            "both" if "tensor" in item else "neither",
            "exactly one of `tensor` and `tensors`",
        )
    if "tensor" in item:
        tensors: tuple[str, ...] = (_parse_tensor(item, "tensor", item.value("tensor")),)
    else:
        tensors = tuple(_parse_tensor(item, "tensors", t) for t in item.strings("tensors"))
    if kind == "task_one_hot":
        return TaskObservation(name, tensors, num_tasks)
    if kind == "language_embedding":
        width = item.integer("size", 1, 65_536)
        return EmbeddingObservation(name, tensors, width, item.string("encoder"))
    if kind == "goal_image":
        return GoalImageObservation(name, tensors, *_parse_image(item, any_rule=True))
    if kind == "camera" and name.startswith("goal") and not navigates:
        # What is there now would be compared with itself.
        raise item.error("kind", "goal_image (schema 2): a camera shows what is there now")
    has_history = version > 1 or (navigates and kind == "camera")
    history = item.integer("history", 1, MAX_HISTORY if has_history else 1)
    if kind == "camera":
        camera = item.string("camera")
        size, resize = _parse_image(item, any_rule=version > 1 or navigates)
        return CameraObservation(name, tensors, camera, size, resize=resize, history=history)
    names = _unique(item, "names")
    units = _parse_units(item, names)
    quantity = item.string("quantity", QUANTITY_UNITS) if kind == "joint_state" else ""
    known = {"imu": IMU_UNITS, "commanded_velocity": VELOCITY_UNITS}.get(kind, {})
    for entry, unit in zip(names, units, strict=True):
        if known and entry not in known:
            raise item.error("names", f"names out of {list(known)}{did_you_mean(entry, known)}")
        expected = QUANTITY_UNITS.get(quantity, (known.get(entry, unit),))
        if unit not in expected:
            raise item.error("units", f"{' or '.join(expected)} for {entry}")
    return StateObservation(name, tensors, names, units, kind, quantity, history)


def _parse_image(item: Section, any_rule: bool) -> tuple[tuple[int, int], str]:
    """Return the size (width, height) of a network's image and the rule that makes it so."""
    item.string("channels", ["rgb"])
    resize = item.string("resize", RESIZE_FILTERS if any_rule else ["squash"])
    item.string("filter", [RESIZE_FILTERS[resize]])
    size = item.value("size")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(v, int) and 1 <= v <= 4096 for v in size)
    ):
        raise item.error("size", "[width, height] in pixels, each from 1 to 4096")
    return (size[0], size[1]), resize


def _parse_tasks(section: Section) -> tuple[dict[str, int], dict[str, str]]:
    if "tasks" not in section:
        return {}, {}
    tasks = section.section("tasks")
    names = tasks.section("names")
    ids = {name: names.integer(name, 0, 10_000) for name in names.keys()}  # noqa: SIM118
    if sorted(ids.values()) != list(range(len(ids))):
        raise tasks.error("names", "the ids 0, 1, 2 … each once")
    instructions = tasks.string_map("instructions") if "instructions" in tasks else {}
    for name in instructions:
        if name not in ids:
            raise BundleError(
                section.file,
                f"{tasks.field('instructions')}.{name}",
                "a task without id",
                f"one of {sorted(ids)}",
            )
    tasks.finish()
    return dict(sorted(ids.items(), key=lambda item: item[1])), instructions


def _parse_stages(section: Section) -> dict[str, str]:
    stages = {}
    for role in section.keys():  # noqa: SIM118
        if role not in STAGE_ROLES:
            raise BundleError(
                section.file,
                section.field(role),
                "an unknown stage role",
                f"one of {list(STAGE_ROLES)}",
            )
        stages[role] = section.string(role)
    return stages


def _parse_files(section: Section) -> dict[str, str]:
    files = section.string_map("files")
    for name, digest in files.items():
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise BundleError(
                section.file,
                f"{section.field('files')}.{name}",
                digest,
                "a SHA-256: 64 lower-case hexadecimal digits",
            )
    return files


def _parse_units(section: Section, names: tuple[str, ...]) -> tuple[str, ...]:
    units = section.strings("units")
    if len(units) != len(names):
        raise section.error("units", f"{len(names)} units, one per name")
    for unit in units:
        if unit not in UNITS:
            raise section.error("units", f"units out of {list(UNITS)}")
    return units


def _parse_tensor(section: Section, key: str, value: object) -> str:
    if not isinstance(value, str) or value.count("/") != 1 or value.strip("/") != value:
        raise section.error(key, "a tensor written as node/name")
    return value


def _unique(section: Section, key: str) -> tuple[str, ...]:
    names = section.strings(key)
    if len(set(names)) != len(names):
        raise section.error(key, "names that occur once")
    return names
