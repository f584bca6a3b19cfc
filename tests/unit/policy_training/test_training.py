from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import yaml

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.training

from policy_server.bundle import load_bundle  # noqa: E402
from policy_training.algorithms import DivergenceError  # noqa: E402
from policy_training.augmentation import augment, random_shift  # noqa: E402
from policy_training.checkpoint import CheckpointError, load_policy  # noqa: E402
from policy_training.config import (  # noqa: E402
    AugmentationOptions,
    ConfigError,
    MixingOptions,
    config_from,
    config_to,
)
from policy_training.dataset import load_dataset  # noqa: E402
from policy_training.export import ExportError, export_bundle  # noqa: E402
from policy_training.hindsight import hindsight_labels  # noqa: E402
from policy_training.sampling import BatchSource, TransitionPool, task_index  # noqa: E402
from policy_training.train import RunOptions, train  # noqa: E402

ENCODER = {
    "image_size": 32,
    "average_pool": 2,
    "stem_channels": 8,
    "stem_kernel": 5,
    "stages": [[1, 8, 1]],
    "embedding": 16,
    "film": True,
}


def configuration(algorithm: str, **changes):
    document = {
        "algorithm": algorithm,
        "network": {"encoder": ENCODER, "hidden": [32, 32], "normalise_state": True},
        "augmentation": {"shift_px": 1},
        "optimisation": {"steps": 6, "batch_size": 8, "actor_learning_rate": 1e-3},
        "cql": {"clip_target": True, "bc_weight": 1.0},
        "auxiliary_weight": 0.5,
        "validation_share": 0.2,
        "log_every": 2,
        "checkpoint_every": 3,
    }
    return config_from(document | changes)


@pytest.mark.parametrize("algorithm", ["bc", "cql"])
def test_resumed_run_equals_an_uninterrupted_one(algorithm, make_dataset, tmp_path):
    data = (make_dataset(),)
    config = configuration(algorithm)
    whole = train(config, RunOptions(tmp_path / "whole", data, seed=3))
    half = dataclasses.replace(
        config, optimisation=dataclasses.replace(config.optimisation, steps=3)
    )
    train(half, RunOptions(tmp_path / "parts", data, seed=3))
    with pytest.raises(CheckpointError, match="--resume"):
        train(config, RunOptions(tmp_path / "parts", data, seed=3))
    parts = train(config, RunOptions(tmp_path / "parts", data, seed=3, resume=True))
    expected, found = load_policy(whole), load_policy(parts)
    assert found.spec.step == expected.spec.step == 6
    for key, value in expected.actor.state_dict().items():
        torch.testing.assert_close(found.actor.state_dict()[key], value)
    if algorithm == "cql":
        for key, value in expected.critic.state_dict().items():
            torch.testing.assert_close(found.critic.state_dict()[key], value)


def test_cloning_learns_a_constant_action_and_starts_cql(make_dataset, tmp_path):
    data = (make_dataset(),)
    config = configuration("bc", optimisation={"steps": 60, "actor_learning_rate": 3e-3})
    last = train(config, RunOptions(tmp_path / "bc", data, seed=0))
    lines = [json.loads(x) for x in (tmp_path / "bc/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["bc/huber"] < lines[0]["bc/huber"]
    assert load_policy(tmp_path / "bc/checkpoint-0").spec.algorithm == "untrained"
    start = train(
        configuration("cql", optimisation={"steps": 0}),
        RunOptions(tmp_path / "cql", data, seed=1, init=last),
    )
    cloned, started = load_policy(last), load_policy(start)
    for key, value in cloned.actor.encoder.state_dict().items():
        assert torch.equal(started.critic.encoder.state_dict()[key], value)


def test_actor_ignores_the_critic_until_it_has_been_trained(make_dataset, tmp_path):
    data = (make_dataset(),)
    actors = []
    for index, weight in enumerate([0.0, 100.0, 100.0]):
        start = 0 if index == 2 else 99
        config = configuration(
            "cql", cql={"bc_weight": 1.0, "q_weight": weight, "q_start_step": start}
        )
        last = train(config, RunOptions(tmp_path / f"run{index}", data, seed=0))
        actors.append(load_policy(last).actor.mean.weight)
    assert torch.equal(actors[0], actors[1])
    assert not torch.equal(actors[1], actors[2])


def test_divergence_stops_the_run_and_says_why(make_dataset, tmp_path):
    config = configuration("cql", cql={"reward_scale": 1.0, "divergence_margin": -20.0})
    with pytest.raises(DivergenceError, match="average Q"):
        train(config, RunOptions(tmp_path / "run", (make_dataset(),), seed=0))


@pytest.mark.parametrize("algorithm", ["bc", "cql"])
def test_an_action_that_never_changes_is_learnt_and_exported(
    algorithm, make_dataset, spec, tmp_path
):
    low, high = list(spec.action_low), list(spec.action_high)
    low[3:5] = high[3:5] = 0.0, 0.125  # a robot without these two joints
    fixed = dataclasses.replace(spec, action_low=tuple(low), action_high=tuple(high))
    data = make_dataset(spec=fixed)
    checkpoint = train(configuration(algorithm), RunOptions(tmp_path / "run", (data,), seed=0))
    policy = load_policy(checkpoint)
    action = policy.act(np.zeros((32, 32, 3), np.uint8), np.zeros(7, np.float32), "open_drawer")
    assert np.isfinite(action).all()
    assert action[3:5].tolist() == [0.0, 0.125]
    export_bundle(policy, tmp_path / "fixed")
    assert load_bundle(tmp_path / "fixed/fixed.yaml").deployment.action.high[4] == 0.125


def test_a_gradient_that_is_not_finite_changes_no_weight(make_dataset, tmp_path):
    config = configuration("bc", optimisation={"steps": 6, "actor_learning_rate": 1e30})
    config = dataclasses.replace(config, checkpoint_every=1)
    with pytest.raises(DivergenceError, match="expected finite ones"):
        train(config, RunOptions(tmp_path / "run", (make_dataset(),), seed=0))
    for path in (tmp_path / "run").glob("checkpoint-*"):
        weights = load_policy(path).actor.state_dict()
        assert all(bool(torch.isfinite(value).all()) for value in weights.values()), path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("policy.safetensors", lambda content: content[:-100], "cut or damaged"),
        ("policy.safetensors", lambda content: b"", "cut or damaged"),
        ("policy.safetensors", lambda _: b"version https://git-lfs.github.com", "git lfs pull"),
        ("policy.json", lambda content: content[:100], "is damaged"),
        ("policy.json", lambda content: content.replace(b'"embedding": 16', b'"embedding": 8'),
         "do not fit"),
        ("trainer.pt", lambda content: content[: len(content) // 2], "cut or damaged"),
        ("trainer.pt", lambda content: b"", "cut or damaged"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named(name, change, message, make_dataset, tmp_path):
    run = RunOptions(tmp_path / "run", (make_dataset(),), seed=0, resume=True)
    last = train(configuration("bc"), dataclasses.replace(run, resume=False))
    file = last / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CheckpointError, match=f"run/checkpoint-6.*{message}"):
        train(configuration("bc"), run)


def test_batches_are_balanced_over_tasks_and_mix_prior_and_target_data(make_dataset):
    few, many = "open_drawer", "put_red_cube_in_pot"
    prior = load_dataset(make_dataset("prior", 12, tasks=(few, many, many, many)))
    target = load_dataset(make_dataset("target", 10, 5, tasks=("put_red_cube_on_plate",)))
    tasks = task_index([prior, target])
    config = configuration("bc", optimisation={"batch_size": 64}, augmentation={"shift_px": 0})
    config = dataclasses.replace(
        config,
        mixing=MixingOptions(target_start_step=10),
        augmentation=AugmentationOptions(shift_px=0, colour_probability=0.0),
    )
    pools = [TransitionPool(d, tasks, config, validation=False) for d in (prior, target)]
    source = BatchSource(pools[0], pools[1], config, seed=0)
    assert source.split(9) == (64, 0)
    assert source.split(10) == (57, 7)
    batch = source.batch(10)
    task = batch.task.argmax(dim=1)
    assert (task == tasks.index("put_red_cube_on_plate")).sum() == 7
    draws = torch.cat([source.batch(step).task for step in range(10)]).mean(dim=0)
    assert abs(draws[tasks.index(few)] - draws[tasks.index(many)]) < 0.1
    same_episode = batch.next_image[:, 0, 0, 0] == batch.image[:, 0, 0, 0]
    assert same_episode.all()
    assert (batch.next_image[:, 0, 0, 1] == batch.image[:, 0, 0, 1] + 1).all()
    assert torch.equal(source.batch(3).label, source.batch(3).label)


def test_hindsight_labels_point_at_where_the_gripper_closed_and_opened(make_dataset):
    data = load_dataset(make_dataset())
    labels = hindsight_labels(data)
    contact = np.flatnonzero(data.step == 3)  # the fixture closes at step 3
    target = labels.target[:, :2]
    xy = data.state[contact][:, :2]
    np.testing.assert_allclose(
        np.corrcoef(target[contact].ravel(), (xy - xy.mean(0)).ravel())[0, 1], 1.0, atol=0.05
    )
    assert labels.weight[contact, 0].all() and not labels.weight[contact + 1, 0].any()
    for episode, row in enumerate(np.flatnonzero(data.step == 0)):
        release = data.episodes[episode].length - 1
        assert labels.weight[row + release, 2] == 1 and labels.weight[row + release + 1, 2] == 0


def test_augmentation_shifts_with_repeated_edges_and_keeps_colours_close():
    generator = torch.Generator().manual_seed(0)
    ramp = torch.arange(16, dtype=torch.uint8)[None, None, :, None].expand(32, 16, 16, 3)
    shifted = random_shift(ramp, 2, generator)
    assert {int(x) for x in shifted[:, 8, 8, 0]} == {6, 7, 8, 9, 10}
    assert shifted.max() == 15
    images = torch.full((64, 8, 8, 3), 128, dtype=torch.uint8)
    images[..., 1] = 90
    changed = augment(images, AugmentationOptions(shift_px=0), generator).float()
    spread = (changed - images).abs()
    assert spread.max() < 60 and spread.mean() > 3
    untouched = (changed == images).all(dim=(1, 2, 3)).float().mean()
    assert 0.05 < untouched < 0.4


def test_exported_bundle_runs_as_its_yaml_says(make_dataset, tmp_path):
    last = train(configuration("cql"), RunOptions(tmp_path / "run", (make_dataset(),), seed=0))
    policy = load_policy(last)
    deployment = export_bundle(policy, tmp_path / "tiny")
    document = yaml.safe_load((tmp_path / "tiny/tiny.yaml").read_text())
    assert document["deployment"] == deployment
    assert {p.name for p in (tmp_path / "tiny").iterdir()} == {*deployment["files"], "tiny.yaml"}
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    state = rng.normal(size=7).astype(np.float32)
    task = "put_red_cube_on_plate"
    one_hot = np.zeros((1, 3), np.float32)
    one_hot[0, deployment["tasks"]["names"][task]] = 1.0
    session = {
        role: onnxruntime.InferenceSession(
            tmp_path / "tiny" / document["models"][node]["parameters"]["model_path"]
        )
        for role, node in deployment["stages"].items()
    }
    (embedding,) = session["encoder"].run(["embedding"], {"image": image[None], "task": one_hot})
    (action,) = session["policy"].run(
        ["action"], {"embedding": embedding, "state": state[None], "task": one_hot}
    )
    np.testing.assert_allclose(action[0], policy.act(image, state, task), atol=1e-5)
    (embedding,) = session["critic_encoder"].run(None, {"image": image[None], "task": one_hot})
    candidate = rng.uniform(-1, 1, (1, 7)).astype(np.float32)
    (q,) = session["critic"].run(
        ["q"], {"embedding": embedding, "action": candidate, "task": one_hot}
    )
    with torch.no_grad():
        expected = policy.critic(
            torch.from_numpy(image[None]), torch.from_numpy(candidate[None]), torch.tensor(one_hot)
        )[:, 0, 0]
    np.testing.assert_allclose(q, expected, atol=1e-4)


def test_export_refuses_a_name_that_leapp_cannot_use(make_dataset, tmp_path):
    last = train(
        configuration("bc", optimisation={"steps": 0}),
        RunOptions(tmp_path / "run", (make_dataset(),), seed=0),
    )
    with pytest.raises(ExportError, match="identifier"):
        export_bundle(load_policy(last), tmp_path / "not-a-name")
    assert not (tmp_path / "not-a-name").exists()


def test_configuration_round_trip_and_refusals():
    config = configuration("cql")
    assert config_from(config_to(config)) == config
    with pytest.raises(ConfigError, match="unknown key 'learning_rate'"):
        config_from({"optimisation": {"learning_rate": 1}})
    with pytest.raises(ConfigError, match="expected one of bc, cql"):
        config_from({"algorithm": "iql"})
    with pytest.raises(ConfigError, match="batch_size: found 'big', expected int"):
        config_from({"optimisation": {"batch_size": "big"}})
