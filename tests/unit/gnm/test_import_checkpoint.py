"""From a published file to the runtime: the numbers of independently built networks come out."""

import numpy as np
import pytest
import reference_networks as reference
import torch
from policy_server.bundle import load_bundle
from policy_server.navigation_model import NotSupportedError, load_navigation_model
from policy_training.gnm.checkpoint import CheckpointError
from policy_training.gnm.import_checkpoint import import_checkpoint, main
from policy_training.rounding import check_outputs, expected_outputs
from published_weights import as_module, random_weights, save_with_foreign_classes


@pytest.fixture(scope="module", params=["gnm", "vint", "nomad"])
def written(request, tmp_path_factory):
    """Kind, weights, and the bundle's directory."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    weights = random_weights(kind, seed=3)
    path = folder / ("ema_29.pth" if kind == "nomad" else "latest.pth")
    config = folder / f"{kind}.yaml"
    waypoints = 8 if kind == "nomad" else 5
    config.write_text(f"model_type: {kind}\nlen_traj_pred: {waypoints}\nlr: 1e-4\n")
    if kind == "nomad":
        torch.save(weights, path)
    else:
        save_with_foreign_classes(
            lambda root: {"epoch": 29, "model": as_module(weights, root)}, path, "vint_train.models"
        )
    bundle = folder / f"published_{kind}"
    arguments = ["--config", str(config), "--checkpoint", str(path), "--out", str(bundle)]
    assert main(arguments) == 0
    return kind, weights, bundle


@pytest.fixture(scope="module")
def imported(written):
    """Kind, weights, and the loaded bundle."""
    kind, weights, bundle = written
    return kind, weights, load_navigation_model(bundle)


def smooth(generator, count, size):
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (size[1], size[0]), mode="bicubic")
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def normalised(images):
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    return ((images / 255.0 - mean) / std).permute(0, 3, 1, 2)


def gnm_or_vint(kind):
    def network(weights, frames, goals):
        batch = normalised(frames)[None].expand(len(goals), -1, -1, -1, -1)
        distance, waypoints = getattr(reference, kind)(weights, batch, normalised(goals))
        return distance[:, 0], waypoints

    return network


def nomad(weights, frames, goals, start, noise):
    """Distances, three waypoint samples to each goal, and three without a goal."""
    batch = normalised(frames)[None].expand(len(goals), -1, -1, -1, -1)
    steps = [*noise.unbind(1), torch.zeros_like(start)]

    def waypoints(context):
        return reference.nomad_waypoints(weights, context.expand(3, -1), start, steps)

    contexts = reference.nomad_context(weights, batch, normalised(goals), mask_goal=False)
    masked = reference.nomad_context(weights, batch, normalised(goals), mask_goal=True)
    return (
        reference.nomad_distance(weights, contexts)[:, 0],
        torch.stack([waypoints(context) for context in contexts]),
        waypoints(masked[0]),
    )


@pytest.mark.parametrize("seed", range(2))
def test_distances_and_waypoints_equal_the_independent_network(imported, seed):
    kind, weights, model = imported
    generator = torch.Generator().manual_seed(seed)
    size = model.spec.image_size
    frames = smooth(generator, model.spec.context_size + 1, size)
    goals = smooth(generator, 1 + seed, size)
    observation = model.observe(list(frames))
    match = model.match(observation, goals)
    images = [torch.from_numpy(frames), torch.from_numpy(goals)]
    if kind == "nomad":
        # The noise that the seed stands for.
        random = np.random.default_rng(seed)
        start = random.standard_normal((3, 8, 2), dtype=np.float32)
        noise = random.standard_normal((3, 9, 8, 2), dtype=np.float32)
        inputs = [*images, torch.from_numpy(start), torch.from_numpy(noise)]
        expected = expected_outputs(reference.AsModule(nomad, weights), inputs)
        samples = [
            model.waypoints(match, index, seed=seed, num_samples=3)[..., :2]
            for index in range(len(goals))
        ]
        explored = model.explore(observation, seed=seed, num_samples=3)[..., :2]
        found = {"distance": match.distances, "waypoints": np.stack(samples), "explored": explored}
    else:
        expected = expected_outputs(reference.AsModule(gnm_or_vint(kind), weights), images)
        waypoints = [model.waypoints(match, index)[0] for index in range(len(goals))]
        found = {"distance": match.distances, "waypoints": np.stack(waypoints)}
    check_outputs("bundle", found, expected)


def test_what_was_told_and_what_was_assumed_is_in_the_bundle(written):
    kind, _, bundle = written
    deployment = load_bundle(bundle / f"{bundle.name}.yaml").deployment
    settings = deployment.policy.settings
    assert settings["len_traj_pred"] == deployment.horizon
    assert "len_traj_pred" not in settings["assumed"]
    assert {"image_size", "context_size", "distance.max_dist_cat"} <= set(settings["assumed"])
    if kind != "gnm":
        assert settings["mha_num_attention_heads"] == 4
        assert "mha_num_attention_heads" in settings["assumed"]
    told = {"nomad": "moving average (ema)"}
    assert settings["weights"] == told.get(kind, "of the last step")


@pytest.mark.parametrize(("name", "averaged"), [("latest.pth", True), ("ema_7.pth", False)])
def test_a_name_that_says_otherwise_than_the_option_is_refused(name, averaged, tmp_path):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="by its name holds"):
        import_checkpoint("nomad", tmp_path / name, tmp_path / "out", averaged=averaged)


def test_progress_and_assumptions_are_told(tmp_path, capsys):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "1.pth")
    arguments = ["--kind", "nomad", "--checkpoint", str(tmp_path / "1.pth"), "--out", "x"]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert "reading" in told
    assert "assumed, as published: mha_num_attention_heads 4" in told
    assert "weights: of the last step (raw)" in told
    assert "error: " in told
    assert "not the weights of a Nomad" in told


@torch.inference_mode()
def test_a_sliding_context_gives_what_a_fresh_one_gives(imported):
    _, _, model = imported
    generator = torch.Generator().manual_seed(11)
    images = smooth(generator, model.spec.context_size + 5, model.spec.image_size)
    goals = smooth(generator, 4, model.spec.image_size)
    length = model.spec.context_size + 1
    slid = [model.observe(list(images[i : i + length])) for i in range(5)]
    model.observe(list(images[:length]))
    last = model.observe(list(images[4 : 4 + length]))
    np.testing.assert_allclose(
        model.match(slid[-1], goals).distances, model.match(last, goals).distances, atol=1e-5
    )
    first, second = (model.match(slid[i], goals).distances for i in (0, 4))
    assert np.abs(first - second).max() > 1e-3


def test_embeddings_are_unit_vectors_that_tell_images_apart(imported):
    _, _, model = imported
    images = smooth(torch.Generator().manual_seed(5), 6, model.spec.image_size)
    embeddings = model.embed(images)
    assert embeddings.shape == (6, model.spec.embedding_size)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(model.embed(images[2:3]), embeddings[2:3], atol=1e-4)
    assert np.unique(embeddings.round(5), axis=0).shape[0] == 6


def test_only_nomad_explores(imported):
    kind, _, model = imported
    images = smooth(
        torch.Generator().manual_seed(0), model.spec.context_size + 1, model.spec.image_size
    )
    observation = model.observe(list(images))
    assert model.spec.can_explore == (kind == "nomad")
    if kind != "nomad":
        with pytest.raises(NotSupportedError):
            model.explore(observation)
        return
    same = [model.explore(observation, seed=4, num_samples=2) for _ in range(2)]
    other = model.explore(observation, seed=5, num_samples=2)
    np.testing.assert_array_equal(*same)
    assert np.abs(same[0] - other).max() > 1e-3


def test_late_fusion_keeps_goal_tokens(tmp_path):
    from policy_training.gnm.vint import Vint, VintConfig

    torch.manual_seed(2)
    network = Vint(VintConfig(context_size=0, late_fusion=True)).eval()
    path = tmp_path / "late.pth"
    torch.save({"model": network.state_dict()}, path)
    import_checkpoint("vint_late_fusion", path, tmp_path / "late")
    model = load_navigation_model(tmp_path / "late")
    generator = torch.Generator().manual_seed(0)
    goals = smooth(generator, 5, model.spec.image_size)
    for round_ in range(3):
        frame = smooth(generator, 1, model.spec.image_size)
        chosen = goals[round_ : round_ + 3]
        match = model.match(model.observe(list(frame)), chosen)
        context = normalised(torch.from_numpy(frame))[None].expand(3, -1, -1, -1, -1)
        (expected, _) = expected_outputs(network, [context, normalised(torch.from_numpy(chosen))])
        check_outputs("bundle", {"distance": match.distances[:, None]}, [expected])


def test_a_refused_file_leaves_the_bundle_as_it_was(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.yaml").write_text("kept")
    path = tmp_path / "wrong.pth"
    torch.save(random_weights("nomad", 0), path)
    with pytest.raises(CheckpointError, match="not the weights"):
        import_checkpoint("gnm", path, bundle)
    assert [p.name for p in bundle.iterdir()] == ["bundle.yaml"]
