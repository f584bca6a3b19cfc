import io
import os
import warnings

import numpy as np
import pytest
import reference_networks as reference
import torch
from policy_training.gnm.checkpoint import (
    CheckpointError,
    load_strictly,
    read_checkpoint,
    read_weights,
)
from policy_training.gnm.networks import Gnm
from policy_training.gnm.nomad import Nomad
from policy_training.gnm.vint import Vint
from policy_training.rounding import check_outputs, expected_outputs
from published_weights import as_module, random_weights, save_with_foreign_classes
from torch import nn
from torch.optim import lr_scheduler

NETWORKS = {"gnm": Gnm, "vint": Vint, "nomad": Nomad}


def training_state(weights, root_class, parallel=False, optimizer="adam", scheduler=None):
    """As the original training loop saves it after some steps."""
    network = as_module(weights, root_class)
    # Without a step there is no state in an optimizer; with a rate of 0 the weights stay.
    floats = [p for p in network.parameters() if p.is_floating_point()]
    stepped = OPTIMIZERS[optimizer](floats)
    for parameter in floats[:40]:
        parameter.grad = torch.ones_like(parameter)
    made = SCHEDULERS[scheduler](stepped)
    stepped.step()
    stepped.zero_grad()
    if scheduler == "plateau":
        made.step(0.3)
    elif made is not None:
        made.step()
    return {
        "epoch": 11,
        "model": nn.DataParallel(network) if parallel else network,
        "optimizer": stepped,
        "avg_total_test_loss": np.mean([0.25, 0.5]),
        "scheduler": made,
    }


class GradualWarmup(lr_scheduler.LRScheduler):
    """Of a package that is gone when the file is read: a scheduler that holds another one."""

    def __init__(self, optimizer, after_scheduler):
        self.__dict__["after_scheduler"] = after_scheduler
        lr_scheduler.LRScheduler.__init__(self, optimizer)

    def get_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.0, betas=(0.9, 0.98)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.0),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.0, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.0, momentum=0.9),
}
SCHEDULERS = {
    None: lambda o: None,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=3),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.0, 0.0, step_size_up=5, cycle_momentum=False),
    "steps": lambda o: lr_scheduler.MultiStepLR(o, [3, 5]),
    "warm-up": lambda o: GradualWarmup(o, lr_scheduler.CosineAnnealingLR(o, T_max=10)),
}
CONTAINERS = {
    "training state": lambda w, c: training_state(w, c),
    "training state of several GPUs": lambda w, c: training_state(w, c, parallel=True),
    "bare module": lambda w, c: as_module(w, c),
    "bare module of several GPUs": lambda w, c: nn.DataParallel(as_module(w, c)),
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


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_and_schedulers_do_not_get_into_the_way(tmp_path, optimizer, scheduler):
    weights = dict(list(random_weights("gnm", seed=1).items())[:60])
    path = tmp_path / "latest.pth"
    save_with_foreign_classes(
        lambda root: training_state(weights, root, optimizer == "adamw", optimizer, scheduler),
        path,
        "vint_train.models.of_nobody",
        others=(GradualWarmup,),
    )
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path)
    found = read_weights(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert list(found) == list(weights)


def test_files_from_before_torch_1_6_are_read(tmp_path):
    weights = dict(list(random_weights("gnm", seed=1).items())[:60])
    path = tmp_path / "old.pth"
    torch.save({"model": weights}, path, _use_new_zipfile_serialization=False)
    found = read_weights(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_a_pickled_module_tells_what_its_weights_do_not(tmp_path):
    weights = {"layer.self_attn.in_proj_weight": torch.ones(6, 2)}

    def made(root):
        module = as_module(weights, root)
        module.context_size, module.learn_angle, module.len_trajectory_pred = 2, False, 7
        module.layer.self_attn.num_heads = 8
        return {"model": nn.DataParallel(module)}

    path = tmp_path / "latest.pth"
    save_with_foreign_classes(made, path, "vint_train.models.of_nobody")
    assert read_checkpoint(path).settings == {
        "context_size": 2,
        "learn_angle": False,
        "len_traj_pred": 7,
        "mha_num_attention_heads": 8,
    }


def test_raw_and_averaged_weights_are_told_apart(tmp_path):
    path = tmp_path / "both.pth"
    raw, averaged = {"a.weight": torch.zeros(2)}, {"a.weight": torch.ones(2)}
    torch.save({"model": raw, "ema_model": averaged, "epoch": 3}, path)
    for asked, value in ((None, 1.0), (True, 1.0), (False, 0.0)):
        found = read_checkpoint(path, asked)
        assert float(found.weights["a.weight"][0]) == value
        assert found.averaged is (asked is not False)
    torch.save({"ema_model": averaged}, path)
    assert read_checkpoint(path).averaged is True
    with pytest.raises(CheckpointError, match="holds averaged weights only, expected raw"):
        read_checkpoint(path, averaged=False)
    torch.save(raw, path)
    assert read_checkpoint(path, averaged=True).averaged is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1).state_dict(), "of an optimizer"),
        ({"shadow_params": [torch.ones(2)], "decay": 0.9}, "without their names"),
        ({"epoch": 3, "loss": 0.1}, r"holds no network; found \['epoch', 'loss'\]"),
        ([torch.ones(2)], "holds no network; found list"),
    ],
)
def test_what_holds_no_network_is_refused_in_words(tmp_path, content, said):
    path = tmp_path / "optimizer_latest.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(path)


def test_compiled_programs_are_refused(tmp_path):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(CheckpointError, match="compiled TorchScript"):
        read_checkpoint(path)


class _Named:
    """Pickles as a call of a function that it only knows by name."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("old_format", [False, True])
def test_no_function_that_a_file_names_is_called(tmp_path, old_format):
    mark = tmp_path / "mark"
    inner = io.BytesIO()
    torch.save(_Named(os.mkdir, str(mark)), inner)
    path = tmp_path / "hostile.pth"
    torch.save(
        {
            "model": {"a.weight": torch.ones(2)},
            "system": _Named(os.system, f"mkdir {mark}"),
            "eval": _Named(eval, f"__import__('os').mkdir({str(mark)!r})"),
            "attribute": _Named(getattr, _Named(__import__, "os"), "mkdir"),
            "nested": _Named(torch.storage._load_from_bytes, inner.getvalue()),
        },
        path,
        _use_new_zipfile_serialization=not old_format,
    )
    assert set(read_weights(path)) == {"a.weight"}
    assert not mark.exists()


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


def compare(function, weights, inputs, found):
    """Equal to the independent network as far as float32 can know it."""
    check_outputs("ours", found, expected_outputs(reference.AsModule(function, weights), inputs))


@pytest.mark.parametrize("kind", ["gnm", "vint"])
def test_gnm_and_vint_are_the_published_networks(kind):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(3, 6, 3, 64, 85, generator=generator)
    goals = torch.randn(3, 3, 64, 85, generator=generator)
    network, weights = network_with(kind, 0)
    with torch.no_grad():
        distance, waypoints = network(frames.flatten(1, 2) if kind == "gnm" else frames, goals)
    assert distance.std() > 1e-2
    found = {"distance": distance, "waypoints": waypoints}
    compare(getattr(reference, kind), weights, [frames, goals], found)


def test_nomad_is_the_published_network():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 4, 3, 96, 96, generator=generator)
    goals = torch.randn(2, 3, 96, 96, generator=generator)
    noisy = torch.randn(4, 8, 2, generator=generator)
    network, weights = network_with("nomad", 0)
    with torch.no_grad():
        tokens = network.encode_frames(frames.flatten(0, 1)).reshape(2, 4, -1)
        distance, context = network.match(tokens, network.encode_goals(frames[:, -1], goals))
        free = network.explore(tokens)
        contexts = context[:1].expand(4, -1)
        noise = {
            f"noise of step {step}": network.noise_pred_net(
                noisy, torch.full((4,), float(step)), contexts
            )
            for step in (0, 4, 9)
        }
    assert context.std() > 0.1

    def whole(w, frames, goals):
        context = reference.nomad_context(w, frames, goals, mask_goal=False)
        free = reference.nomad_context(w, frames, goals, mask_goal=True)
        return reference.nomad_distance(w, context), context, free

    found = {"distance": distance, "context": context, "context without a goal": free}
    compare(whole, weights, [frames, goals], found)

    def denoised(w, noisy, contexts):
        return tuple(reference.nomad_noise(w, noisy, step, contexts) for step in (0, 4, 9))

    compare(denoised, weights, [noisy, contexts], noise)
