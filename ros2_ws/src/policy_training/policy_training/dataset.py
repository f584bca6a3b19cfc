"""Demonstration datasets on disk: `dataset.json` beside `shard-*.safetensors`.

The module needs no training framework, so that recorders and simulators can write datasets.

A shard holds whole episodes one after another. An episode of T actions fills T + 1 rows: the last
row is the final observation and has NaN actions, so that the observation after every action exists.

| array           | dtype   | shape          | content                                            |
|-----------------|---------|----------------|----------------------------------------------------|
| image           | uint8   | (N, h, w, 3)   | RGB                                                |
| state           | float32 | (N, S)         | proprioception, units in `dataset.json`            |
| action          | float32 | (N, A)         | label in physical units (without exploration noise)|
| executed_action | float32 | (N, A)         | what the robot was actually told to do             |
| episode         | int32   | (N,)           | index into `episodes` of `dataset.json`            |
| step            | int32   | (N,)           | 0 … T                                              |
| task            | int32   | (N,)           | index into `task_names` of `dataset.json`          |
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from policy_server.git_lfs import FETCH_ADVICE, is_pointer
from policy_server.safetensors_file import write_safetensors
from safetensors import SafetensorError
from safetensors.numpy import load_file

SCHEMA_VERSION = 1
_LOGGER = logging.getLogger(__name__)
SHARD_ROWS = 4096
"""Rows after which a shard is written; 200 MB of 128x128 images."""


class DatasetError(ValueError):
    """A dataset on disk, or an episode offered to a writer, is not what it should be."""


@dataclass(frozen=True)
class DatasetSpec:
    """What all episodes of a dataset have in common.

    Attributes:
        robot: Robot model, e.g. `wx250s`.
        control_hz: Rate of the actions in Hz.
        image_size: (width, height) in pixels.
        action_names: Name of each action dimension, in order.
        action_low: Smallest value of each action dimension in physical units.
        action_high: Largest value of each action dimension in physical units.
        state_names: Name of each dimension of the proprioceptive state, in order.
        task_names: Task names; a task's id is its index.
        instructions: Task name → language instruction.
        command_line: The command that produced the dataset.

    Raises:
        DatasetError: The limits of the actions are not one range for each dimension. A range that
            is a single value is taken: that dimension does not move.
    """

    robot: str
    control_hz: float
    image_size: tuple[int, int]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    state_names: tuple[str, ...]
    task_names: tuple[str, ...]
    instructions: dict[str, str] = field(default_factory=dict)
    command_line: str = ""

    def __post_init__(self) -> None:
        low, high = np.array(self.action_low, float), np.array(self.action_high, float)
        expected = (len(self.action_names),)
        if low.shape != expected or high.shape != expected:
            raise DatasetError(
                f"found {low.size} action_low and {high.size} action_high, "
                f"expected one for each of {', '.join(self.action_names)}"
            )
        for name, smallest, largest in zip(self.action_names, low, high, strict=True):
            if not (np.isfinite([smallest, largest]).all() and smallest <= largest):
                raise DatasetError(
                    f"action {name}: found the range {smallest:g} … {largest:g}, "
                    "expected finite limits, the smaller one first"
                )


@dataclass(frozen=True)
class Episode:
    """One demonstration: its task, seed, outcome and number of actions."""

    task: str
    seed: int
    success: bool
    length: int


@dataclass
class Dataset:
    """A dataset in memory; arrays are described in the module's documentation.

    Attributes:
        spec: What all episodes have in common.
        episodes: One record per episode, indexed by `episode`.
    """

    spec: DatasetSpec
    episodes: list[Episode]
    image: NDArray[np.uint8]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    executed_action: NDArray[np.float32]
    episode: NDArray[np.int32]
    step: NDArray[np.int32]
    task: NDArray[np.int32]

    def transition_rows(self) -> NDArray[np.int64]:
        """Rows that hold an action; the observation after row i is row i + 1."""
        return np.flatnonzero(~np.isnan(self.action[:, 0]))

    def steps_to_end(self) -> NDArray[np.int32]:
        """Actions left in the episode from each row on, (N,); 0 on the final observation."""
        lengths = np.array([episode.length for episode in self.episodes], dtype=np.int32)
        return lengths[self.episode] - self.step


class DatasetWriter:
    """Writes a dataset episode by episode. Use it as a context manager or call `close`.

    A recording that ends early keeps what it has: `dataset.json` is written anew with every shard
    and, where the context manager ends with an error, with the episodes up to it. `complete` in it
    is true after `close` alone.
    """

    def __init__(self, path: str | Path, spec: DatasetSpec) -> None:
        """Create the directory.

        Args:
            path: Directory to create.
            spec: What all episodes have in common.

        Raises:
            DatasetError: `path` already holds a dataset or part of one.
        """
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)
        present = sorted(p.name for p in self._path.glob("*") if _is_dataset_file(p))
        if present:
            raise DatasetError(
                f"{self._path} already holds {present[0]} ({len(present)} dataset files); "
                "choose another directory or remove it"
            )
        self._spec = spec
        self._episodes: list[Episode] = []
        self._pending: list[dict[str, NDArray[Any]]] = []
        self._pending_rows = 0
        self._shards: list[dict[str, Any]] = []

    @property
    def episode_count(self) -> int:
        """Episodes that were added so far."""
        return len(self._episodes)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif self._episodes:
            self._finish(complete=False)

    def add_episode(
        self,
        images: NDArray[np.uint8],
        states: NDArray[np.float32],
        actions: NDArray[np.float32],
        executed: NDArray[np.float32],
        task: str,
        seed: int,
        success: bool,
    ) -> None:
        """Append one episode of T actions.

        Args:
            images: uint8 (T + 1, h, w, 3), RGB.
            states: float32 (T + 1, S).
            actions: Labels, float32 (T, A), physical units.
            executed: Actions sent to the robot, float32 (T, A), physical units.
            task: Name of the task; one of the spec's `task_names`.
            seed: Seed of the scene.
            success: Whether the task was accomplished.

        Raises:
            DatasetError: Shapes, dtypes, ranges or the task name disagree with the spec. Nothing
                is added then.
        """
        spec = self._spec
        length = len(actions)
        width, height = spec.image_size
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...], type]] = {
            "images": (images, (length + 1, height, width, 3), np.uint8),
            "states": (states, (length + 1, len(spec.state_names)), np.float32),
            "actions": (actions, (length, len(spec.action_names)), np.float32),
            "executed": (executed, (length, len(spec.action_names)), np.float32),
        }
        for name, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype:
                raise DatasetError(
                    f"{name}: found {array.dtype} {array.shape}, "
                    f"expected {np.dtype(dtype)} {shape} for {length} actions"
                )
            if dtype is np.float32 and not np.isfinite(array).all():
                raise DatasetError(f"{name}: found NaN or infinite values, expected finite ones")
        if length == 0:
            raise DatasetError("found an episode without actions, expected at least one")
        if task not in spec.task_names:
            raise DatasetError(f"found task {task!r}, expected one of {', '.join(spec.task_names)}")
        blank = np.full((1, len(spec.action_names)), np.nan, dtype=np.float32)
        self._pending.append(
            {
                "image": images,
                "state": states,
                "action": np.concatenate([actions, blank]),
                "executed_action": np.concatenate([executed, blank]),
                "episode": np.full(length + 1, len(self._episodes), dtype=np.int32),
                "step": np.arange(length + 1, dtype=np.int32),
                "task": np.full(length + 1, spec.task_names.index(task), dtype=np.int32),
            }
        )
        self._pending_rows += length + 1
        self._episodes.append(Episode(task, int(seed), bool(success), length))
        if self._pending_rows >= SHARD_ROWS:
            self._write_shard()

    def close(self) -> None:
        """Write the last shard and `dataset.json`.

        Raises:
            DatasetError: No episode was added.
        """
        if not self._episodes:
            raise DatasetError(f"{self._path}: no episode was added, expected at least one")
        self._finish(complete=True)

    def _finish(self, complete: bool) -> None:
        if self._pending:
            self._write_shard()
        self._write_index(complete)

    def _write_index(self, complete: bool) -> None:
        document = {
            "schema_version": SCHEMA_VERSION,
            "complete": complete,
            **dataclasses.asdict(self._spec),
            "episodes": [dataclasses.asdict(episode) for episode in self._episodes],
            "shards": self._shards,
        }
        part = self._path / "dataset.json.part"
        part.write_text(json.dumps(document, indent=1) + "\n")
        part.replace(self._path / "dataset.json")

    def _write_shard(self) -> None:
        name = f"shard-{len(self._shards):05d}.safetensors"
        arrays = {
            key: np.concatenate([episode[key] for episode in self._pending])
            for key in self._pending[0]
        }
        write_safetensors(self._path / name, arrays)
        self._shards.append(
            {"file": name, "rows": self._pending_rows, "sha256": _sha256(self._path / name)}
        )
        self._pending = []
        self._pending_rows = 0
        self._write_index(complete=False)


def load_dataset(
    path: str | Path, image_size: tuple[int, int] | None = None, verify: bool = False
) -> Dataset:
    """Read a dataset into memory.

    Args:
        path: Directory with `dataset.json`.
        image_size: (width, height) to which images are averaged down while reading; both must
            divide the stored size. None keeps the stored size.
        verify: Compare the SHA-256 of every shard with the recorded one.

    Returns:
        The dataset; `spec.image_size` is the size of the images returned.

    Raises:
        DatasetError: The dataset is missing, unfinished, of another schema version or damaged.
    """
    root = Path(path)
    index = root / "dataset.json"
    if not index.is_file():
        raise DatasetError(f"{index} is missing: not a dataset, or its writer was never closed")
    document = read_index(index)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DatasetError(f"{index}: found schema_version {version}, expected {SCHEMA_VERSION}")
    spec = _spec_from(document)
    width, height = image_size or spec.image_size
    if spec.image_size[0] % width or spec.image_size[1] % height:
        raise DatasetError(
            f"found images of {spec.image_size}, expected a multiple of the size {(width, height)}"
        )
    try:
        episodes = [Episode(**record) for record in document["episodes"]]
        records = [
            (record["file"], record["rows"], record["sha256"]) for record in document["shards"]
        ]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{index}: expected lists of episodes and shards ({error})") from error
    if not document.get("complete", True):
        _LOGGER.warning("%s: the recording ended early; it has %d episodes", root, len(episodes))
    shards: list[dict[str, NDArray[Any]]] = []
    for name, rows, sha256 in records:
        file = root / name
        if not file.is_file():
            raise DatasetError(f"{file} is missing although {index} names it")
        if verify and (found := _sha256(file)) != sha256:
            raise DatasetError(f"{file}: found SHA-256 {found}, expected {sha256}")
        arrays = read_shard(file)
        if len(arrays["step"]) != rows:
            raise DatasetError(f"{file}: found {len(arrays['step'])} rows, expected {rows}")
        arrays["image"] = average_down(arrays["image"], (width, height))
        shards.append(arrays)
    columns = {key: np.concatenate([shard[key] for shard in shards]) for key in shards[0]}
    lengths = np.bincount(columns["episode"], minlength=len(episodes))
    expected = [episode.length + 1 for episode in episodes]
    if lengths.tolist() != expected:
        raise DatasetError(
            f"{index}: names {len(episodes)} episodes with {sum(expected)} observations, "
            f"and the shards hold {len(lengths)} with {lengths.sum()}, or of other lengths"
        )
    return Dataset(
        spec=dataclasses.replace(spec, image_size=(width, height)), episodes=episodes, **columns
    )


def read_index(path: Path) -> dict[str, Any]:
    """The content of a `dataset.json`.

    Raises:
        DatasetError: It is no JSON object.
        FileNotFoundError: It is missing.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged: expected a JSON object ({error})") from error


def read_shard(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a shard.

    Raises:
        DatasetError: It is no whole safetensors file.
        FileNotFoundError: It is missing.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        with path.open("rb") as stream:
            pointer = is_pointer(stream.read(24))
        found = FETCH_ADVICE if pointer else f"a cut or damaged file ({error}); copy it again"
        raise DatasetError(f"{path}: expected a safetensors file, found {found}") from error


def average_down(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Average blocks of pixels, rounding to the nearest level.

    Args:
        images: uint8 (N, h, w, 3).
        size: (width, height) of the result; must divide (w, h).

    Returns:
        uint8 (N, size[1], size[0], 3).
    """
    count, height, width, channels = images.shape
    if (width, height) == size:
        return images
    rows, columns = height // size[1], width // size[0]
    total = np.zeros((count, size[1], size[0], channels), dtype=np.uint16)
    for row in range(rows):
        for column in range(columns):
            total += images[:, row::rows, column::columns]
    area = rows * columns
    return ((total + area // 2) // area).astype(np.uint8)


def _is_dataset_file(path: Path) -> bool:
    return path.name == "dataset.json" or path.suffix == ".safetensors"


def _spec_from(document: dict[str, Any]) -> DatasetSpec:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(DatasetSpec):
        if item.name not in document:
            raise DatasetError(f"dataset.json: {item.name} is missing")
        value = document[item.name]
        values[item.name] = tuple(value) if isinstance(value, list) else value
    return DatasetSpec(**values)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
