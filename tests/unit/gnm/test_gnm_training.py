"""Batches from drives, and a training that learns, resumes and exports."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_training.algorithms import DivergenceError
from policy_training.checkpoint import CheckpointError
from policy_training.dataset import DatasetError
from policy_training.gnm.drives import (
    NO_AUGMENTATION,
    Augmentation,
    BatchSizes,
    BatchSource,
    DriveDataError,
    load_drives,
)
from policy_training.gnm.export import main as export_main
from policy_training.gnm.networks import GnmConfig
from policy_training.gnm.train import (
    RunOptions,
    Trainer,
    TrainingOptions,
    contrastive_loss,
    load_network,
    prepare,
    train,
)
from safetensors.numpy import save_file

FRAMES = 60
SPACING = 0.1
SIZES = BatchSizes(observations=4, ahead=4, places=6)


def _write_dataset(folder, seeds=(0, 1), robots=("locobot", "jackal"), complete=True):
    """Straight routes along x; every image is a colour ramp that tells place and direction."""
    folder.mkdir()
    shards = []
    for seed in seeds:
        for robot in robots:
            images, poses, arcs = [], [], []
            for route in range(2):
                heading = np.pi * route
                for repeat in range(2):
                    arc = np.arange(FRAMES) * SPACING
                    x = arc if route == 0 else FRAMES * SPACING - arc
                    side = np.full(FRAMES, 0.05 * repeat)
                    poses.append(np.stack([x, side, np.full(FRAMES, heading)], -1))
                    arcs.append(arc)
                    image = np.zeros((FRAMES, 64, 85, 3), np.uint8)
                    image[..., 0] = (40 * seed + 4 * np.arange(FRAMES))[:, None, None] % 256
                    image[..., 1] = np.linspace(0, 255, 85).astype(np.uint8)[:: 1 - 2 * route]
                    image[:, :32, :, 2] = 200 * (robot == "jackal")
                    images.append(image)
            points = np.arange(0, FRAMES * SPACING + 0.05, 0.05)
            line = np.stack([points, np.zeros_like(points)], -1)
            file = f"indoor-{seed:05d}-{robot}.safetensors"
            save_file(
                {
                    "image": np.concatenate(images),
                    "pose": np.concatenate(poses).astype(np.float32),
                    "arc_m": np.concatenate(arcs).astype(np.float32),
                    "route": np.repeat([0, 0, 1, 1], FRAMES).astype(np.int32),
                    "drive": np.repeat(np.arange(4), FRAMES).astype(np.int32),
                    "step": np.tile(np.arange(FRAMES), 4).astype(np.int32),
                    "route_points_m": np.concatenate([line, line[::-1]]).astype(np.float32),
                    "route_offsets": np.array([0, len(line), 2 * len(line)]),
                },
                folder / file,
            )
            shards.append(
                {
                    "file": file,
                    "world": {"kind": "indoor", "seed": seed},
                    "robot": robot,
                    "spacing_m": SPACING,
                    "max_turn_rad": 0.3,
                    "turns_on_the_spot": True,
                    "frames": 4 * FRAMES,
                    "drives": [{"noise": noise} for noise in (0.3, 1.0, 0.3, 1.0)],
                }
            )
    index = {
        "schema_version": 1,
        "route_step_m": 0.05,
        "command": "made by a test",
        "complete": complete,
        "shards": shards,
    }
    (folder / "dataset.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return _write_dataset(tmp_path_factory.mktemp("data") / "drives")


@pytest.fixture(scope="module")
def drives(dataset):
    return load_drives([dataset])


def test_labels_of_pairs_follow_from_where_they_were_taken(drives):
    source = BatchSource(drives, 6, SIZES, NO_AUGMENTATION, 0)
    start = 10
    other_drive, opposite = FRAMES + 15, 3 * FRAMES - 10
    other_world = 2 * 4 * FRAMES + 15
    goals = np.array([start + 5, other_drive, start + 35, start - 9, opposite, other_world])
    distance, waypoints = source.label_pairs(np.full(6, start), goals)
    # Five frames ahead on either drive; too far; behind; here but backwards; in another world.
    assert distance.tolist() == pytest.approx([5, 5, 20, 20, 20, 20], abs=0.1)
    assert np.isfinite(waypoints[:, 0, 0]).tolist() == [True, True, False, False, False, False]
    np.testing.assert_allclose(waypoints[0, :, 0], [1, 2, 3, 4, 5], atol=0.1)
    np.testing.assert_allclose(waypoints[0, :, 1], 0, atol=0.1)


def test_near_place_on_another_route_has_no_label(drives):
    # The same way round: nobody knows how far an expert would have to drive.
    routes = drives.route.copy()
    routes[FRAMES : 2 * FRAMES] = 1
    changed = type(drives)(**{**drives.__dict__, "route": routes})
    source = BatchSource(changed, 6, SIZES, NO_AUGMENTATION, 0)
    distance, _ = source.label_pairs(np.array([10]), np.array([FRAMES + 12]))
    assert np.isnan(distance[0])


def test_context_starts_with_the_drive(drives):
    rows = drives.context_rows(np.array([FRAMES + 2, FRAMES + 30]), 6)
    assert rows[0].tolist() == [FRAMES, FRAMES, FRAMES, FRAMES, FRAMES + 1, FRAMES + 2]
    assert rows[1].tolist() == list(range(FRAMES + 25, FRAMES + 31))


def test_same_seed_and_step_give_the_same_batch(drives):
    def draw(seed, step):
        return BatchSource(drives, 6, SIZES, Augmentation(), seed).batch(step)

    first, again, other = draw(1, 7), draw(1, 7), draw(1, 8)
    for key in ("context", "goals", "distance", "waypoints", "places"):
        np.testing.assert_array_equal(getattr(first, key), getattr(again, key))
    assert (first.context != other.context).any()


def test_mirrored_samples_turn_the_other_way(drives):
    bent = drives.pose.copy()
    bent[:, 2] += 0.4
    turned = type(drives)(**{**drives.__dict__, "pose": bent})
    plain = BatchSource(turned, 6, SIZES, NO_AUGMENTATION, 3).batch(0)
    always = replace(NO_AUGMENTATION, mirror=1.0)
    mirrored = BatchSource(turned, 6, SIZES, always, 3).batch(0)
    np.testing.assert_array_equal(plain.context[:, :, ::-1], mirrored.context)
    np.testing.assert_array_equal(plain.goals[:, :, ::-1], mirrored.goals)
    np.testing.assert_array_equal(plain.distance, mirrored.distance)
    known = np.isfinite(plain.waypoints[:, 0, 0])
    assert np.abs(plain.waypoints[known, :, 1]).max() > 0.1
    np.testing.assert_allclose(plain.waypoints[known, :, 1], -mirrored.waypoints[known, :, 1])
    np.testing.assert_allclose(plain.waypoints[known, :, 0], mirrored.waypoints[known, :, 0])


def test_frames_stay_in_order_through_augmentation(drives):
    """The red channel counts frames: zooming and stacking must not mix them up."""
    zoomed = Augmentation(0.0, 1.0, 1.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    batch = BatchSource(drives, 6, SIZES, zoomed, 5).batch(2)
    red = batch.context[:, 32, 40, 0::3].astype(int)
    steps = np.diff(red, axis=1) % 256
    assert set(np.unique(steps)) <= {0, 4}
    assert (steps == 4).any()


def test_prepare_scales_each_channel_as_the_exported_graph():
    from policy_training.gnm.networks import normalise

    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6), np.uint8)
    colour = np.zeros((3, 6, 2), np.float32)
    colour[..., 0] = 1.0
    found = prepare(images, colour).float()
    expected = torch.cat([normalise(torch.from_numpy(images[..., k : k + 3])) for k in (0, 3)], 1)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.01)


def test_contrastive_loss_ignores_other_views_of_the_same_place():
    embedding = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 0.1], [0.1, 1]]))
    own = torch.eye(2, dtype=torch.bool)
    apart = contrastive_loss(embedding, own, 0.1)
    same = contrastive_loss(embedding[[0, 0, 2, 2]], torch.ones(2, 2, dtype=torch.bool), 0.1)
    mixed = contrastive_loss(embedding[[0, 0, 2, 2]], own, 0.1)
    assert float(apart) < 0.01
    assert float(same) == pytest.approx(0.0, abs=1e-6)
    assert float(mixed) > 0.5


CONFIG = GnmConfig(
    residual_channels=(8, 8),
    observation_encoding=16,
    goal_encoding=16,
    goal_hidden=16,
    trunk=(16, 8),
    last_channels=16,
    place_embedding=8,
)


def _options(steps):
    return TrainingOptions(steps=steps, sizes=SIZES, warmup_steps=2)


def test_training_learns(drives):
    trainer = Trainer(CONFIG, TrainingOptions(steps=1000, sizes=SIZES, warmup_steps=5), 0)
    source = BatchSource(drives, 6, SIZES, NO_AUGMENTATION, 0)
    losses = [trainer.update(source.batch(step))["loss"] for step in range(120)]
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:20])


def _finite(network):
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())


@pytest.mark.parametrize("unknown", [("waypoints",), ("distance",), ("waypoints", "distance")])
def test_a_batch_without_a_label_spoils_nothing(drives, unknown):
    trainer = Trainer(CONFIG, _options(10), 0)
    batch = BatchSource(drives, 6, SIZES, NO_AUGMENTATION, 0).batch(0)
    nothing = {name: np.full_like(getattr(batch, name), np.nan) for name in unknown}
    assert np.isfinite(trainer.update(replace(batch, **nothing))["loss"])
    assert _finite(trainer.network) and _finite(trainer.average)


def test_a_training_that_diverges_stops_and_keeps_its_last_checkpoint(dataset, tmp_path):
    options = replace(_options(6), learning_rate=1e25)
    run = RunOptions((dataset,), tmp_path / "run", save_every=1)
    with pytest.raises(DivergenceError, match="expected finite ones"):
        train(CONFIG, options, run)
    saved = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert 0 < saved["step"] < 6
    network, _ = load_network(tmp_path / "run/checkpoint.pt")
    assert _finite(network)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of it"])
def test_a_damaged_checkpoint_is_named(content, dataset, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt.*cut or damaged"):
        train(CONFIG, _options(2), RunOptions((dataset,), tmp_path / "run", resume=True))
    export = ["--checkpoint", str(tmp_path / "run/checkpoint.pt"), "--out", str(tmp_path / "b")]
    assert export_main(export) == 1
    assert "cut or damaged" in capsys.readouterr().err


def test_a_damaged_shard_is_named(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    shard = sorted(copy.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=f"{shard.name}.*cut or damaged"):
        load_drives([copy])
    (copy / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
        load_drives([copy])


def test_resumed_run_equals_an_unbroken_one(dataset, tmp_path):
    whole = RunOptions((dataset,), tmp_path / "whole", save_every=3)
    expected, _ = load_network(train(CONFIG, _options(6), whole))
    broken = RunOptions((dataset,), tmp_path / "broken", save_every=3)
    original = Trainer.update

    def stop_after_four(self, batch):
        if self.step == 4:
            raise KeyboardInterrupt
        return original(self, batch)

    Trainer.update = stop_after_four
    try:
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, _options(6), broken)
    finally:
        Trainer.update = original
    resumed = RunOptions((dataset,), tmp_path / "broken", save_every=3, resume=True)
    found, policy = load_network(train(CONFIG, _options(6), resumed))
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value)
    assert found.config == CONFIG
    assert "locobot" in policy["trained_on"]
    with pytest.raises(DriveDataError, match="--resume"):
        train(CONFIG, _options(6), whole)


def test_robots_can_be_chosen_and_worlds_must_differ(dataset, tmp_path):
    chosen = load_drives([dataset], ["jackal"])
    assert set(chosen.robots) == {"jackal"}
    assert (chosen.image[:, 0, 0, 2] == 200).all()
    with pytest.raises(DriveDataError, match="no drive"):
        load_drives([dataset], ["go2"])
    with pytest.raises(DriveDataError, match="twice"):
        load_drives([dataset, dataset])
    more = _write_dataset(tmp_path / "more", seeds=(7,), complete=False)
    both = load_drives([dataset, more])
    assert len(both) == 1.5 * len(load_drives([dataset]))
    assert sorted(set(both.world)) == [0, 1, 2]
    with pytest.raises(DriveDataError, match=r"dataset\.json"):
        load_drives([tmp_path])
