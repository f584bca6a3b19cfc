import numpy as np
import pytest
import reference_networks as reference
import torch
from policy_training.gnm.checkpoint import CheckpointError, load_strictly, read_weights
from policy_training.gnm.networks import Gnm
from policy_training.gnm.nomad import Nomad
from policy_training.gnm.vint import Vint
from published_weights import as_module, random_weights, save_with_foreign_classes
from torch import nn

NETWORKS = {"gnm": Gnm, "vint": Vint, "nomad": Nomad}


def training_state(weights, root_class, parallel):
    network = as_module(weights, root_class)
    floats = [p for p in network.parameters() if p.is_floating_point()]
    optimizer = torch.optim.Adam(floats)
    return {
        "epoch": 11,
        "model": nn.DataParallel(network) if parallel else network,
        "optimizer": optimizer,
        "avg_total_test_loss": np.float32(0.25),
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
    }


CONTAINERS = {
    "training state": lambda w, c: training_state(w, c, parallel=False),
    "training state of several GPUs": lambda w, c: training_state(w, c, parallel=True),
    "bare module": lambda w, c: as_module(w, c),
    "state_dict": lambda w, c: w,
    "state_dict of several GPUs": lambda w, c: {f"module.{k}": v for k, v in w.items()},
    "state_dict in a dict": lambda w, c: {"epoch": 3, "model": w},
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_container_of_the_weights_is_read(tmp_path, kind, container):
    weights = random_weights(kind, seed=len(container))
    path = tmp_path / "published.pth"
    save_with_foreign_classes(
        lambda root: CONTAINERS[container](weights, root), path, "vint_train.models.of_nobody"
    )
    found = read_weights(path)
    assert set(found) == set(weights)
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor), name


class _Runs:
    ran = False

    def __reduce__(self):
        return (_mark, ())


def _mark():
    _Runs.ran = True
    return 0


def test_code_in_a_file_does_not_run(tmp_path):
    path = tmp_path / "hostile.pth"
    weights = random_weights("nomad", 0)
    torch.save({"model": weights, "extra": _Runs()}, path)
    assert set(read_weights(path)) == set(weights)
    assert not _Runs.ran


def broken(kind, change):
    weights = random_weights(kind, 1)
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("dist_predictor.0.bias"), "1 tensors missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 not expected"),
        (lambda w: w.update({"dist_predictor.0.bias": torch.zeros(2)}), "has shape"),
        (lambda w: w["dist_predictor.0.bias"].fill_(torch.nan), "not finite"),
        (lambda w: w["decoder.positional_encoding.pos_enc"].mul_(1.1), "sinusoidal"),
    ],
)
def test_wrong_weights_are_refused_and_nothing_is_copied(change, said):
    network = Vint()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        load_strictly(network, broken("vint", change), "file")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_another_networks_weights_are_refused():
    with pytest.raises(CheckpointError, match="not the weights of a Gnm"):
        load_strictly(Gnm(), random_weights("vint", 0), "file")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x05\x06" + 18 * b"\0"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_weights(path)


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "some.pth"
    torch.save(random_weights("nomad", 0), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError):
        read_weights(path)


def network_with(kind, seed):
    weights = random_weights(kind, seed)
    network = NETWORKS[kind]()
    load_strictly(network, weights, "random weights")
    return network.eval(), weights


@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_gnm_and_vint_are_the_published_networks(seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(3, 6, 3, 64, 85, generator=generator)
    goals = torch.randn(3, 3, 64, 85, generator=generator)
    network, weights = network_with("gnm", seed)
    distance, waypoints = network(frames.flatten(1, 2), goals)
    expected_distance, expected_waypoints = reference.gnm(weights, frames, goals)
    assert distance.std() > 1e-2
    torch.testing.assert_close(distance, expected_distance, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(waypoints, expected_waypoints, atol=1e-4, rtol=1e-4)

    network, weights = network_with("vint", seed)
    distance, waypoints = network(frames, goals)
    expected_distance, expected_waypoints = reference.vint(weights, frames, goals)
    assert distance.std() > 1e-2
    torch.testing.assert_close(distance, expected_distance, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(waypoints, expected_waypoints, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_nomad_is_the_published_network(seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, 4, 3, 96, 96, generator=generator)
    goals = torch.randn(2, 3, 96, 96, generator=generator)
    network, weights = network_with("nomad", seed)
    tokens = network.encode_frames(frames.flatten(0, 1)).reshape(2, 4, -1)
    distance, context = network.match(tokens, network.encode_goals(frames[:, -1], goals))
    expected = reference.nomad_context(weights, frames, goals, mask_goal=False)
    assert context.std() > 0.1
    torch.testing.assert_close(context, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        distance, reference.nomad_distance(weights, expected), atol=1e-4, rtol=1e-4
    )
    expected = reference.nomad_context(weights, frames, goals, mask_goal=True)
    torch.testing.assert_close(network.explore(tokens), expected, atol=1e-4, rtol=1e-4)
    noisy = torch.randn(4, 8, 2, generator=generator)
    for step in (0, 4, 9):
        contexts = context[:1].expand(4, -1)
        found = network.noise_pred_net(noisy, torch.full((4,), float(step)), contexts)
        torch.testing.assert_close(
            found, reference.nomad_noise(weights, noisy, step, contexts), atol=1e-4, rtol=1e-4
        )
