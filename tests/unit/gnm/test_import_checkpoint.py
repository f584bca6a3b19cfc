"""From a published file to the runtime: the numbers of independently built networks come out."""

import numpy as np
import pytest
import reference_networks as reference
import torch
from policy_server.navigation_model import NotSupportedError, load_navigation_model
from policy_training.gnm.checkpoint import CheckpointError
from policy_training.gnm.import_checkpoint import import_checkpoint, main
from published_weights import as_module, random_weights, save_with_foreign_classes

TOLERANCE = 1e-4
HEADING_TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=["gnm", "vint", "nomad"])
def imported(request, tmp_path_factory):
    """Kind, weights, and the loaded bundle."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    weights = random_weights(kind, seed=3)
    path = folder / "published.pth"
    if kind == "nomad":
        torch.save(weights, path)
    else:
        save_with_foreign_classes(
            lambda root: {"epoch": 29, "model": as_module(weights, root)}, path, "vint_train.models"
        )
    bundle = folder / f"published_{kind}"
    assert main(["--kind", kind, "--checkpoint", str(path), "--out", str(bundle)]) == 0
    return kind, weights, load_navigation_model(bundle)


def smooth(generator, count, size):
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (size[1], size[0]), mode="bicubic")
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def normalised(images):
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(images) / 255.0 - mean) / std).permute(0, 3, 1, 2)


def equal(found, expected):
    """Equal to 1e-4, of the value where it is above 1: random weights give waypoints beyond 6."""
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_distances_and_waypoints_equal_the_independent_network(imported, seed):
    kind, weights, model = imported
    generator = torch.Generator().manual_seed(seed)
    size = model.spec.image_size
    frames = smooth(generator, model.spec.context_size + 1, size)
    goals = smooth(generator, 1 + seed, size)
    match = model.match(model.observe(list(frames)), goals)
    batch = normalised(frames)[None].expand(len(goals), -1, -1, -1, -1)
    if kind == "nomad":
        context = reference.nomad_context(weights, batch, normalised(goals), mask_goal=False)
        expected = reference.nomad_distance(weights, context)
        equal(match.distances, expected[:, 0])
        masked = reference.nomad_context(weights, batch, normalised(goals), mask_goal=True)
        for index in range(len(goals)):
            found = model.waypoints(match, index, seed=seed, num_samples=3)
            equal(found[..., :2], diffused(weights, context[index], seed))
        explored = model.explore(model.observe(list(frames)), seed=seed, num_samples=3)
        equal(explored[..., :2], diffused(weights, masked[0], seed))
        return
    expected_distance, expected_waypoints = getattr(reference, kind)(
        weights, batch, normalised(goals)
    )
    equal(match.distances, expected_distance[:, 0])
    for index in range(len(goals)):
        waypoints = torch.from_numpy(model.waypoints(match, index)[0])
        equal(waypoints[:, :2], expected_waypoints[index, :, :2])
        # Directions of vectors that are short with random weights: float32 knows no more of them.
        np.testing.assert_allclose(
            waypoints[:, 2:], expected_waypoints[index, :, 2:], atol=HEADING_TOLERANCE
        )


def diffused(weights, context, seed):
    """Waypoints of three samples with the noise that the seed stands for."""
    generator = np.random.default_rng(seed)
    start = torch.from_numpy(generator.standard_normal((3, 8, 2), dtype=np.float32))
    noise = torch.from_numpy(generator.standard_normal((3, 9, 8, 2), dtype=np.float32))
    steps = [*noise.unbind(1), torch.zeros(3, 8, 2)]
    return reference.nomad_waypoints(weights, context.expand(3, -1), start, steps)


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
        with torch.inference_mode():
            distance, _ = network(
                normalised(frame)[None].expand(3, -1, -1, -1, -1), normalised(chosen)
            )
        equal(match.distances, distance[:, 0])


def test_a_refused_file_leaves_the_bundle_as_it_was(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.yaml").write_text("kept")
    path = tmp_path / "wrong.pth"
    torch.save(random_weights("nomad", 0), path)
    with pytest.raises(CheckpointError, match="not the weights"):
        import_checkpoint("gnm", path, bundle)
    assert [p.name for p in bundle.iterdir()] == ["bundle.yaml"]
