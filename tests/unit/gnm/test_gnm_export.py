"""GNM: the published layout, the exact split of its stem, and the exported bundle."""

import csv
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from calibrated_networks import CONFIGS, calibrated_network, smooth_images
from node_common.strict_yaml import BundleError
from policy_server.engine import InferenceError
from policy_server.navigation_model import (
    NavigationModel,
    NotSupportedError,
    load_navigation_model,
    with_path_heading,
)
from policy_training.gnm.export import export_gnm
from policy_training.gnm.networks import Gnm, normalise
from policy_training.gnm.stages import EmbedStage, MatchStage, ObserveStage, fold_batch_norm
from policy_training.rounding import Expected, check_outputs, expected_outputs

LAYOUT = Path(__file__).parent / "published_layouts" / "gnm.tsv"


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request, tmp_path_factory):
    network = calibrated_network(CONFIGS[request.param])
    out = tmp_path_factory.mktemp("bundles") / f"tiny_{request.param}"
    export_gnm(network, str(out))
    return network, out


def test_names_and_shapes_are_those_of_the_published_weights():
    with LAYOUT.open() as file:
        published = [
            (row["key"], json.loads(row["shape"])) for row in csv.DictReader(file, delimiter="\t")
        ]
    assert len(published) == 638
    found = [(key, list(value.shape)) for key, value in Gnm().state_dict().items()]
    assert found == published


@pytest.mark.parametrize("name", CONFIGS)
def test_split_network_equals_the_stacked_one(name):
    config = CONFIGS[name]
    # In double precision the algebra is exact; in single, a random network amplifies rounding.
    network = calibrated_network(config).double()
    frames, pictures = smooth_images(config.frames, 1), smooth_images(4, 2)
    context = normalise(frames).flatten(0, 1)[None].double()
    goals = normalise(pictures).double()
    stacked = torch.cat([context.expand(4, -1, -1, -1), goals], dim=1)
    with torch.no_grad():
        features = network.goal_mobilenet(stacked).mean((2, 3))
        encoding = network.encode_observation(context).expand(4, -1)
        trunk = network.linear_layers(torch.cat([encoding, network.compress_goal(features)], 1))
        split = network.match(
            network.encode_observation(context),
            network.observation_stem(context),
            network.goal_stem(goals),
        )
        folded = fold_batch_norm(network)
        without_norm = folded(context.expand(4, -1, -1, -1), goals)
        stages = MatchStage(folded)(*ObserveStage(folded)(frames), pictures)
    expected = network.waypoints_from(network.action_predictor(trunk))
    # Pictures are normalised in single precision everywhere.
    for (distance, waypoints), steps_tol, waypoint_tol in (
        (split, 1e-9, 1e-8),
        (without_norm, 1e-9, 1e-8),
        (stages, 1e-4, 1e-4),
    ):
        torch.testing.assert_close(
            distance, network.dist_predictor(trunk), atol=steps_tol, rtol=steps_tol
        )
        torch.testing.assert_close(waypoints, expected, atol=waypoint_tol, rtol=waypoint_tol)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


def test_waypoints_are_summed_and_headings_normalised():
    network = Gnm(CONFIGS["residual"])
    raw = torch.zeros(1, 20)
    raw[0] = torch.tensor([1.0, 0.5, 3.0, 4.0] * 5)
    waypoints = network.waypoints_from(raw)[0]
    np.testing.assert_allclose(waypoints[:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_allclose(waypoints[:, 1], [0.5, 1, 1.5, 2, 2.5])
    np.testing.assert_allclose(waypoints[:, 2:], [[0.6, 0.8]] * 5, rtol=1e-6)


def test_bundle_equals_torch_on_inputs_that_matter(exported):
    network, out = exported
    model = load_navigation_model(out)
    assert isinstance(model, NavigationModel)
    config = network.config
    context, goals = smooth_images(config.frames, 7), smooth_images(9, 8)
    frames = normalise(context)

    def distance_of(frames):
        observation = frames.flatten(0, 1).expand(9, -1, -1, -1)
        with torch.no_grad():
            return network(observation, normalise(goals))[0]

    # Otherwise equality would say nothing about the order of frames and goals.
    assert distance_of(frames).std() > 0.05
    assert (distance_of(frames) - distance_of(frames.flip(0))).abs().max() > 0.05
    match = model.match(model.observe(list(context.numpy())), goals.numpy())
    waypoints = np.concatenate([model.waypoints(match, index) for index in range(9)])
    whole = expected_outputs(Whole(network), [context, goals])
    found = {"distance": match.distances[:, None], "waypoints": waypoints}
    check_outputs("bundle", found, whole)
    embedded = {"embedding": model.embed(goals.numpy())}
    check_outputs("bundle", embedded, expected_outputs(EmbedStage(network), [goals]))
    single = model.match(model.observe(list(context.numpy())), goals.numpy()[4:5])
    one = Expected(whole[0].value[4:5], whole[0].spread[4:5])
    check_outputs("one goal", {"distance": single.distances[:, None]}, [one])


class Whole(torch.nn.Module):
    """The network on the images that a bundle takes."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, context, goals):
        observation = normalise(context).flatten(0, 1).expand(len(goals), -1, -1, -1)
        return self.network(observation, normalise(goals))


def test_specification_of_the_bundle(exported):
    network, out = exported
    model = load_navigation_model(out)
    spec = model.spec
    assert (spec.kind, spec.name, spec.image_size) == ("gnm", out.name, (85, 64))
    assert (spec.context_size, spec.horizon, spec.rate_hz) == (5, 5, 4.0)
    assert (spec.max_distance_steps, spec.embedding_size) == (20.0, network.embedding_size)
    with pytest.raises(NotSupportedError):
        model.explore(model.observe(list(smooth_images(6, 0).numpy())), seed=0, num_samples=1)


@pytest.mark.parametrize("exported", ["residual"], indirect=True)
def test_fingerprint_follows_the_weights(exported, tmp_path):
    network, out = exported
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    (moved / f"{out.name}.yaml").rename(moved / "moved.yaml")
    changed = tmp_path / "changed"
    with torch.no_grad():
        network.dist_predictor[0].bias.add_(0.5)
        export_gnm(network, str(changed))
        network.dist_predictor[0].bias.sub_(0.5)
    own = load_navigation_model(out).spec.fingerprint
    assert load_navigation_model(moved).spec.fingerprint == own
    assert load_navigation_model(changed).spec.fingerprint != own


def test_wrong_inputs_are_refused_with_what_was_expected(exported):
    _, out = exported
    model = load_navigation_model(out)
    frames = list(smooth_images(6, 0).numpy())
    with pytest.raises(ValueError, match="found 5 images, expected 6"):
        model.observe(frames[1:])
    code = model.observe(frames)
    with pytest.raises(InferenceError, match="at least one"):
        model.match(code, np.empty((0, 64, 85, 3), np.uint8))
    with pytest.raises(InferenceError, match="goals"):
        model.match(code, np.zeros((2, 85, 64, 3), np.uint8))
    assert model.embed(np.empty((0, 64, 85, 3), np.uint8)).shape == (0, model.spec.embedding_size)


def _change(out, change):
    file = out / f"{out.name}.yaml"
    document = yaml.safe_load(file.read_text())
    change(document)
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def test_damaged_bundles_are_refused(exported, tmp_path):
    out = tmp_path / "damaged"
    shutil.copytree(exported[1], out)
    (out / f"{exported[1].name}.yaml").rename(out / "damaged.yaml")
    original = (out / "damaged.yaml").read_text()
    changes = {
        r"deployment\.navigation": lambda d: d["deployment"].pop("navigation"),
        r"stages\.match": lambda d: d["deployment"]["stages"].pop("match"),
        r"filter": lambda d: d["deployment"]["observations"][0].update(filter="area"),
        r"navigation\.distance": lambda d: d["deployment"]["navigation"].update(distance="match/x"),
        r"history|context": lambda d: d["deployment"]["observations"][0].update(history=5),
        r"policy\.kind": lambda d: (
            d["deployment"]["policy"].update(kind="ptr"),
            d["deployment"].pop("navigation"),
            [
                o.update(name=f"a_{o['name']}", resize="squash", filter="area")
                for o in d["deployment"]["observations"]
            ],
            d["deployment"]["observations"].pop(0),
        ),
    }
    for field, change in changes.items():
        (out / "damaged.yaml").write_text(original)
        _change(out, change)
        with pytest.raises(BundleError, match=field):
            load_navigation_model(out)
    (out / "damaged.yaml").write_text(original)
    content = bytearray((out / "match.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "match.onnx").write_bytes(bytes(content))
    with pytest.raises(BundleError, match="SHA-256"):
        load_navigation_model(out)


def test_path_gives_headings_where_the_network_has_none():
    positions = np.array([[[1.0, 0.0], [2.0, 1.0], [2.0, 1.0], [2.0, 3.0]]], np.float32)
    trajectory = with_path_heading(positions)
    root = np.sqrt(0.5)
    np.testing.assert_allclose(
        trajectory[0, :, 2:], [[1, 0], [root, root], [root, root], [0, 1]], atol=1e-6
    )
    np.testing.assert_array_equal(trajectory[..., :2], positions)


def test_threads_sleep_between_ticks(exported):
    """Spinning threads would take a core each from the robot's other nodes."""
    _, out = exported
    model = load_navigation_model(out, threads=2)
    frames = list(smooth_images(6, 0).numpy())
    for _ in range(3):
        model.match(model.observe(frames), smooth_images(8, 1).numpy())
    before_s = time.process_time()
    time.sleep(0.6)
    assert time.process_time() - before_s < 0.3
