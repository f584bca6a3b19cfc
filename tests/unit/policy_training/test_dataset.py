from __future__ import annotations

import dataclasses
import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from policy_training import dataset as dataset_module
from policy_training.collect import write_demonstrations
from policy_training.dataset import (
    DatasetError,
    DatasetWriter,
    average_down,
    load_dataset,
)


def test_round_trip_over_several_shards(make_dataset, monkeypatch):
    monkeypatch.setattr(dataset_module, "SHARD_ROWS", 30)
    path = make_dataset(episodes=12)
    assert len(list(path.glob("shard-*.safetensors"))) > 2
    data = load_dataset(path, verify=True)
    rows = data.transition_rows()
    assert len(rows) == sum(e.length for e in data.episodes)
    # The observation after every action belongs to the same episode and the next step.
    assert (data.image[rows + 1, 0, 0, 0] == data.image[rows, 0, 0, 0]).all()
    assert (data.image[rows + 1, 0, 0, 1] == data.image[rows, 0, 0, 1] + 1).all()
    assert (data.episode == data.image[:, 0, 0, 0]).all()
    np.testing.assert_allclose(data.executed_action[rows], data.action[rows] * 0.5)
    assert [data.spec.task_names[t] for t in data.task[data.step == 0]] == [
        e.task for e in data.episodes
    ]
    assert set(data.steps_to_end()[rows][data.step[rows] == 0]) == {e.length for e in data.episodes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update(images=e["images"][:-1]), "images: found"),
        (lambda e: e.update(actions=e["actions"].astype(np.float64)), "actions: found float64"),
        (lambda e: e["states"].__setitem__((0, 0), np.nan), "states: found NaN"),
        (lambda e: e.update(task="wash_dishes"), "expected one of open_drawer"),
    ],
)
def test_bad_episode_is_refused_and_not_half_added(tmp_path, spec, change, message):
    episode = {
        "images": np.zeros((5, 32, 32, 3), np.uint8),
        "states": np.zeros((5, 7), np.float32),
        "actions": np.zeros((4, 7), np.float32),
        "executed": np.zeros((4, 7), np.float32),
        "task": "open_drawer",
        "seed": 0,
        "success": True,
    }
    good = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in episode.items()}
    change(episode)
    with DatasetWriter(tmp_path / "d", spec) as writer:
        with pytest.raises(DatasetError, match=message):
            writer.add_episode(**episode)
        writer.add_episode(**good)
    assert len(load_dataset(tmp_path / "d").step) == 5


def test_damage_is_named(make_dataset):
    path = make_dataset()
    shard = path / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"shard-00000.*SHA-256"):
        load_dataset(path, verify=True)
    shard.unlink()
    with pytest.raises(DatasetError, match=r"shard-00000\.safetensors is missing"):
        load_dataset(path)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def _edit_index(file: Path, change) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("shard-00000.safetensors", _cut, r"shard-00000.*cut or damaged"),
        ("shard-00000.safetensors", lambda f: f.write_bytes(b""), r"shard-00000.*cut or damaged"),
        (
            "shard-00000.safetensors",
            lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
            r"shard-00000.*git lfs pull",
        ),
        ("dataset.json", _cut, r"dataset\.json is damaged"),
        ("dataset.json", lambda f: f.write_text("[1]"), r"dataset\.json is damaged"),
        ("dataset.json", lambda f: _edit_index(f, lambda d: d.pop("shards")), "shards"),
        (
            "dataset.json",  # an index that knows of fewer episodes than the shards hold
            lambda f: _edit_index(f, lambda d: d["episodes"].pop()),
            "names 11 episodes",
        ),
        (
            "dataset.json",  # the same number, and every episode after the first is another one
            lambda f: _edit_index(f, lambda d: d["episodes"].append(d["episodes"].pop(0))),
            "of other lengths",
        ),
        (
            "dataset.json",
            lambda f: _edit_index(f, lambda d: d["action_high"].__setitem__(1, -0.06)),
            "action dy: found the range -0.05 … -0.06",
        ),
    ],
)
def test_damaged_files_are_refused_by_name(make_dataset, name, damage, message):
    path = make_dataset()
    damage(path / name)
    with pytest.raises(DatasetError, match=message):
        load_dataset(path)


def test_a_recording_that_ends_early_keeps_what_it_has(tmp_path, spec, monkeypatch, caplog):
    monkeypatch.setattr(dataset_module, "SHARD_ROWS", 10)
    rng = np.random.default_rng(5)

    def add(writer: DatasetWriter, seed: int) -> None:
        images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
        zeros = np.zeros((4, 7), np.float32)
        writer.add_episode(
            images, np.zeros((5, 7), np.float32), zeros, zeros, "open_drawer", seed, True
        )

    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path / "stopped", spec) as writer:
        for seed in range(3):
            add(writer, seed)
        raise KeyboardInterrupt
    killed = DatasetWriter(tmp_path / "killed", spec)  # nobody closes it
    for seed in range(3):
        add(killed, seed)
    for name, episodes in (("stopped", 3), ("killed", 2)):
        caplog.clear()
        data = load_dataset(tmp_path / name, verify=True)
        assert [e.seed for e in data.episodes] == list(range(episodes))
        assert f"ended early; it has {episodes} episodes" in caplog.text
    killed.close()
    caplog.clear()
    assert len(load_dataset(tmp_path / "killed").episodes) == 3
    assert not caplog.text


def test_one_demonstration_that_fails_is_left_out_and_three_end_the_collection(tmp_path, spec):
    def future(seed: int, error: Exception | None = None, velocity: float = 0.0):
        result: Future[Any] = Future()
        zeros = np.zeros((4, 7), np.float32)
        states = np.full((5, 7), velocity, np.float32)
        if error is None:
            images = np.full((5, 32, 32, 3), seed, np.uint8)
            result.set_result(SimpleNamespace(
                images=images, states=states, actions=zeros, executed=zeros, success=seed != 4
            ))  # fmt: skip
        else:
            result.set_exception(error)
        return ("open_drawer", seed, 50), result

    broken = RuntimeError("the arm is inside the table")
    futures = [future(0), future(1, broken), future(2), future(3, velocity=np.nan), future(4)]
    with DatasetWriter(tmp_path / "one", spec) as writer:
        assert write_demonstrations(writer, ["open_drawer"], futures) == {"open_drawer": 2}
    assert [e.seed for e in load_dataset(tmp_path / "one").episodes] == [0, 2, 4]
    futures = [future(0), *(future(seed, broken) for seed in range(1, 5))]
    with (
        pytest.raises(DatasetError, match=r"seed 3 failed: RuntimeError: the arm.*1 episodes"),
        DatasetWriter(tmp_path / "all", spec) as writer,
    ):
        write_demonstrations(writer, ["open_drawer"], futures)
    assert [e.seed for e in load_dataset(tmp_path / "all").episodes] == [0]


def test_unfinished_and_existing_directories_are_refused(tmp_path: Path, spec, make_dataset):
    with pytest.raises(DatasetError, match="never closed"):
        load_dataset(tmp_path)
    path = make_dataset()
    with pytest.raises(DatasetError, match="already holds"):
        DatasetWriter(path, spec)
    with pytest.raises(DatasetError, match="no episode"):
        DatasetWriter(tmp_path / "empty", dataclasses.replace(spec)).close()


def test_average_down_is_the_rounded_block_mean():
    images = np.random.default_rng(3).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    found = average_down(images, (3, 4))
    blocks = images.reshape(2, 4, 2, 3, 4, 3).astype(float).mean(axis=(2, 4))
    assert np.abs(found - blocks).max() <= 0.5
