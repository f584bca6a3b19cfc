from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from policy_training import dataset as dataset_module
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
