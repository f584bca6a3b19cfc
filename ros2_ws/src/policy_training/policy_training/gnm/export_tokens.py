"""Export a ViNT or a NoMaD as a bundle, split where work repeats.

`observe` encodes single images, each once in its life; `goal` encodes goals, with the current
image unless the network fuses late; `match` judges them against the observation. NoMaD also has
`explore`, a context without a goal, and `denoise`, which makes waypoints of a context and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from policy_training.gnm.bundle_writer import StageExport, trace_onnx, write_bundle
from policy_training.gnm.export import (
    MAX_DISTANCE_STEPS,
    RATE_HZ,
    VALIDATION_PASSES,
    camera_observation,
    smooth_images,
    waypoint_action,
)
from policy_training.gnm.networks import normalise
from policy_training.gnm.nomad import Nomad, Sampler
from policy_training.gnm.unrolled import unroll
from policy_training.gnm.vint import Vint

Examples = dict[str, list[dict[str, Tensor]]]


class _Observe(nn.Module):
    """uint8 (N, H, W, 3) → tokens (N, D), and as unit vectors."""

    def __init__(self, network: Vint | Nomad) -> None:
        super().__init__()
        self.network = network

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.network.encode_frames(normalise(context))
        return tokens, nn.functional.normalize(tokens, dim=-1)


class _Goal(nn.Module):
    """uint8 (1, H, W, 3), (K, H, W, 3) → goal tokens (K, D)."""

    def __init__(self, network: Vint | Nomad) -> None:
        super().__init__()
        self.network = network

    def forward(self, current: Tensor, goals: Tensor) -> Tensor:
        return self.network.encode_goals(normalise(current), normalise(goals))


class _LateGoal(nn.Module):
    """uint8 (K, H, W, 3) → goal tokens (K, D)."""

    def __init__(self, network: Vint) -> None:
        super().__init__()
        self.network = network

    def forward(self, goals: Tensor) -> Tensor:
        images = normalise(goals)
        return self.network.encode_goals(images[:1], images)


class _Match(nn.Module):
    """Tokens (F, D) and (K, D) → distance (K, 1), waypoints (K, T, 4) or contexts (K, D)."""

    def __init__(self, network: Vint | Nomad) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame_tokens: Tensor, goal_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.match(frame_tokens[None], goal_tokens)


class _Explore(nn.Module):
    """Tokens (F, D) → context (1, D)."""

    def __init__(self, network: Nomad) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame_tokens: Tensor) -> Tensor:
        return self.network.explore(frame_tokens[None])


class _DenoisingStep(nn.Module):
    """The step of a `Sampler` with the noise of all steps, and the index of its own."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        contexts: Tensor,
        index: Tensor,
        encoding: Tensor,
        factors: Tensor,
    ) -> Tensor:
        fresh = noise.index_select(1, index)[:, 0]
        return self.sampler.advance(x, fresh, contexts, encoding, factors)


class _Waypoints(nn.Module):
    """The end of a `Sampler`."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(self, x: Tensor) -> Tensor:
        return self.sampler.waypoints(x)


def _denoising_model(sampler: Sampler, example: Mapping[str, Tensor]) -> onnx.ModelProto:
    schedule = sampler.schedule.float()
    constants = [
        {
            "index": torch.tensor([min(index, len(schedule) - 2)]),
            "encoding": sampler.encoding(step).detach(),
            "factors": schedule[step],
        }
        for index, step in enumerate(reversed(range(len(schedule))))
    ]
    step = StageExport(
        "denoise",
        _DenoisingStep(sampler),
        {
            "x": example["start"],
            "noise": example["noise"],
            "contexts": example["contexts"],
            **constants[0],
        },
        ("next_x",),
        frozenset({"x", "noise", "contexts", "next_x"}),
    )
    free = frozenset({"x", "waypoints"})
    last = StageExport(
        "waypoints", _Waypoints(sampler), {"x": example["start"]}, ("waypoints",), free
    )
    return unroll(
        trace_onnx(step),
        ("x", "next_x"),
        [{name: value.numpy() for name, value in entry.items()} for entry in constants],
        trace_onnx(last),
        "start",
    )


def export_token_network(
    network: Vint | Nomad,
    out: str,
    policy: Mapping[str, Any] | None = None,
    max_distance_steps: float = MAX_DISTANCE_STEPS,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the bundle; see `write_bundle` for what is raised.

    Args:
        network: In evaluation mode or not; it is exported in evaluation mode.
        out: Directory, whose name becomes the bundle's.
        policy: Entries for `deployment.policy`: algorithm, trained_on, command, results, settings.
        max_distance_steps: Largest distance of the training, the label of unrelated goals.
        report: See `write_bundle`.

    Returns:
        The deployment section.
    """
    network.eval()
    # The fused kernel of the attention has no ONNX counterpart.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return _export(network, out, policy or {}, max_distance_steps, report)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def _export(
    network: Vint | Nomad,
    out: str,
    policy: Mapping[str, Any],
    max_distance_steps: float,
    report: Callable[[str], None],
) -> dict[str, Any]:
    config = network.config
    late_fusion = isinstance(network, Vint) and network.config.late_fusion
    modules: dict[str, nn.Module] = {
        "observe": _Observe(network),
        "goal": _LateGoal(network) if isinstance(network, Vint) and late_fusion else _Goal(network),
        "match": _Match(network),
    }
    if isinstance(network, Nomad):
        modules["explore"] = _Explore(network)
        modules["denoise"] = Sampler(network.noise_pred_net, network.config)
    examples = _examples(network, modules, late_fusion)
    frames = config.frames
    second = "waypoints" if isinstance(network, Vint) else "contexts"
    layouts: dict[str, tuple[tuple[str, ...], frozenset[str], dict[str, int]]] = {
        "observe": (
            ("tokens", "embedding"),
            frozenset({"context", "tokens", "embedding"}),
            dict.fromkeys(("context", "tokens", "embedding"), frames),
        ),
        "goal": (("goal_tokens",), frozenset({"goals", "goal_tokens"}), {}),
        "match": (
            ("distance", second),
            frozenset({"goal_tokens", "distance", second}),
            {},
        ),
        "explore": (("contexts",), frozenset(), {}),
        "denoise": (
            ("waypoints",),
            frozenset({"start", "noise", "contexts", "waypoints"}),
            {},
        ),
    }
    models = {}
    if isinstance(network, Nomad):
        sampler = cast("Sampler", modules["denoise"])
        models["denoise"] = partial(_denoising_model, sampler, examples["denoise"][0])
    stages = [
        StageExport(name, module, examples[name][0], *layouts[name], make_model=models.get(name))
        for name, module in modules.items()
    ]
    data_flow = {
        "observe/tokens": ["match/frame_tokens"],
        "goal/goal_tokens": ["match/goal_tokens"],
    }
    if isinstance(network, Nomad):
        data_flow["observe/tokens"].append("explore/frame_tokens")
        data_flow["match/contexts"] = ["denoise/contexts"]
    deployment = _deployment(network, late_fusion, policy)
    deployment["navigation"]["max_distance_steps"] = max_distance_steps
    return write_bundle(out, stages, data_flow, deployment, examples, RATE_HZ, report)


def _examples(
    network: Vint | Nomad, modules: Mapping[str, nn.Module], late_fusion: bool
) -> Examples:
    config = network.config
    generator = torch.Generator().manual_seed(0)
    examples: Examples = {name: [] for name in modules}
    for index in range(VALIDATION_PASSES):
        context = smooth_images(config.frames, config.image_size, generator)
        goals = smooth_images(index + 2, config.image_size, generator)
        goal_inputs = {"goals": goals} if late_fusion else {"current": context[-1:], "goals": goals}
        with torch.no_grad():
            tokens, _ = modules["observe"](context)
            goal_tokens = modules["goal"](*goal_inputs.values())
            _, contexts = modules["match"](tokens, goal_tokens)
        # A free axis needs an example of at least two.
        examples["observe"].append({"context": torch.cat([context, goals])})
        examples["goal"].append(goal_inputs)
        examples["match"].append({"frame_tokens": tokens, "goal_tokens": goal_tokens})
        if isinstance(network, Nomad):
            shape = (len(goals), network.config.horizon, 2)
            steps = network.config.denoising_steps - 1
            examples["explore"].append({"frame_tokens": tokens})
            examples["denoise"].append(
                {
                    "start": torch.randn(shape, generator=generator),
                    "noise": torch.randn((shape[0], steps, *shape[1:]), generator=generator),
                    "contexts": contexts,
                }
            )
    return examples


def _deployment(
    network: Vint | Nomad, late_fusion: bool, policy: Mapping[str, Any]
) -> dict[str, Any]:
    config = network.config
    nomad = isinstance(network, Nomad)
    camera = camera_observation(config.image_size)
    observations = [
        {"name": "context", "tensor": "observe/context", **camera, "history": config.frames},
        {"name": "goals", "tensor": "goal/goals", **camera, "history": 1},
    ]
    if not late_fusion:
        observations.append({"name": "current", "tensor": "goal/current", **camera, "history": 1})
    roles = ["observe", "goal", "match", *(["explore", "denoise"] if nomad else [])]
    return {
        "schema_version": 1,
        "policy": {
            "kind": "nomad" if nomad else "vint",
            "version": "1",
            "licence": "Apache-2.0",
            **policy,
        },
        "control": {"rate_hz": RATE_HZ, "horizon": config.horizon},
        "robot": "any",
        "action": (
            waypoint_action("match/waypoints", network.config.waypoint_size)
            if isinstance(network, Vint)
            else waypoint_action("denoise/waypoints", 2)
        ),
        "observations": observations,
        "navigation": {
            "distance": "match/distance",
            "embedding": "observe/embedding",
            "can_explore": nomad,
        },
        "stages": {role: role for role in roles} | {"embed": "observe"},
    }
