"""Exports are judged by what float32 can know, on any processor; wrong ones are still refused."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from calibrated_networks import CONFIGS, calibrated_network, smooth_images
from policy_training.gnm import export
from policy_training.gnm.bundle_writer import StageExport, export_onnx, largest_difference
from policy_training.gnm.networks import normalise
from policy_training.gnm.stages import EmbedStage, MatchStage, ObserveStage, fold_batch_norm
from policy_training.rounding import MARGIN, ExportError, check_outputs, expected_outputs

INSTRUCTION_SETS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "machine": {},
}


def main():
    """Export a small network; prints name → largest error in spreads. Run in a subprocess."""
    worst = {}

    def recorded(where, found, expected):
        for (name, value), wanted in zip(found.items(), expected, strict=True):
            excess = np.abs(np.asarray(value, np.float64) - wanted.value) / wanted.spread
            key = f"{where.split(':')[0]}/{name}"
            worst[key] = max(worst.get(key, 0.0), float(excess.max()))
        return check_outputs(where, found, expected)

    from policy_training.gnm import bundle_writer

    export.check_outputs = bundle_writer.check_outputs = recorded
    network = calibrated_network(CONFIGS["mobilenet"])
    export.export_gnm(network, str(Path(sys.argv[1]) / "exported"))
    print(json.dumps(worst))


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_exports_are_accepted_whatever_the_processor_can(instructions, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in INSTRUCTION_SETS["avx2"]}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=environment | INSTRUCTION_SETS[instructions],
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0
    worst = json.loads(done.stdout.splitlines()[-1])
    print(instructions, worst)
    assert max(worst.values()) < MARGIN
    # A check that everything passes would not be one.
    assert min(worst.values()) > MARGIN / 1000


@pytest.fixture(scope="module")
def folded():
    return fold_batch_norm(calibrated_network(CONFIGS["mobilenet"]))


@pytest.fixture(scope="module")
def examples(folded):
    config = folded.config
    context, goals = smooth_images(config.frames, 1), smooth_images(3, 2)
    with torch.no_grad():
        encoding, stem = ObserveStage(folded)(context)
    return {
        "observe": {"context": context},
        "match": {"encoding": encoding, "stem": stem, "goals": goals},
        "embed": {"images": goals},
    }


def stage_of(name, network, examples):
    module, outputs = {
        "observe": (ObserveStage, ("encoding", "stem")),
        "match": (MatchStage, ("distance", "waypoints")),
        "embed": (EmbedStage, ("embedding",)),
    }[name]
    return StageExport(name, module(network), examples[name], outputs)


def permuted(network):
    weight = network.compress_goal[0].weight
    weight.data = weight.data.roll(1, 0)


def swapped_channels(network):
    weight = network.compress_observation[0].weight
    weight.data[[0, 1]] = weight.data[[1, 0]]


def half_precision(network):
    network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})


WRONG = {
    "match": {
        "permuted weight": permuted,
        "weights in half precision": half_precision,
        "waypoint scaled by 1.0001": lambda n: n.action_predictor[0].weight.data.mul_(1.0001),
    },
    "observe": {"two channels swapped": swapped_channels},
    "embed": {"two channels swapped": swapped_channels},
}


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, changes in WRONG.items() for change in changes]
)
def test_a_wrong_export_is_refused(name, change, folded, examples):
    wrong = copy.deepcopy(folded)
    WRONG[name][change](wrong)
    content = export_onnx(stage_of(name, wrong, examples))
    right = stage_of(name, folded, examples)
    with pytest.raises(ExportError, match=rf"{name}: ONNX Runtime: .* differs .* times") as refusal:
        largest_difference(right, content, [examples[name]])
    print(refusal.value)


class Unnormalised(MatchStage):
    """Forgets that stems take raw pictures."""

    def forward(self, encoding, stem, goals):
        return super().forward(encoding, stem, (goals / 255.0).round().to(torch.uint8))


def other_epsilon(network, epsilon):
    other = copy.deepcopy(network)
    for module in other.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = epsilon
    return other


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_split_is_refused(name):
    network = calibrated_network(CONFIGS[name])
    context, goals = smooth_images(network.config.frames, 3), smooth_images(4, 4)

    def check(changed, match=MatchStage, order=slice(None)):
        folded = fold_batch_norm(changed)
        export._check_split(
            network, ObserveStage(folded), match(folded), context, goals[order].contiguous()
        )

    check(network)
    # 1e-5 is the right one; EfficientNet's is 1e-3.
    for epsilon in (1e-3, 3e-5):
        with pytest.raises(ExportError, match="after splitting") as refusal:
            check(other_epsilon(network, epsilon))
        print(epsilon, refusal.value)
    with pytest.raises(ExportError, match="after splitting"):
        check(network, Unnormalised)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    module = torch.nn.Linear(4, 3)
    inputs = [torch.ones(2, 4)]
    expected = expected_outputs(module, inputs)
    found = module(*inputs).detach().numpy()
    assert check_outputs("layer", {"y": found}, expected)["y"] < 1e-6
    found[1, 2] = value
    with pytest.raises(ExportError, match="layer: y differs"):
        check_outputs("layer", {"y": found}, expected)


def test_short_vectors_excuse_only_their_own_direction():
    """What rounding leaves of one heading says nothing about the others."""

    class Direction(torch.nn.Module):
        def forward(self, pairs):
            difference = pairs @ torch.tensor([[1.0, 0.3], [-1.0, 0.7]], dtype=pairs.dtype)
            return torch.nn.functional.normalize(difference - difference.mean(), dim=-1)

    # The second row is next to the mean of all numbers: hardly anything of it is left.
    pairs = torch.tensor([[900.0, 100.0], [485.6475, 199.9725], [3.0, 4.0]])
    (expected,) = expected_outputs(Direction(), [pairs])
    spread = expected.spread.max(1)
    assert spread[1] > 30 * max(spread[0], spread[2]), (spread, expected.value)


def test_the_reference_is_the_network_in_double_precision():
    network = calibrated_network(CONFIGS["mobilenet"])
    images = smooth_images(2, 5)
    (expected,) = expected_outputs(EmbedStage(network), [images])
    exact = copy.deepcopy(network).double()
    raw = images.movedim(-1, -3).double() / 255
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        repeated = ((raw - mean) / std).repeat(1, network.config.frames, 1, 1)
        vector = exact.encode_observation(repeated)
    wanted = torch.nn.functional.normalize(vector, dim=-1)
    np.testing.assert_allclose(expected.value, wanted, atol=1e-13)
    assert torch.get_default_dtype() == torch.float32
    assert normalise(images).dtype == torch.float32


if __name__ == "__main__":
    main()
