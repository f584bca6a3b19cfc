"""Published networks computed straight from their named tensors, without the project's classes."""

import math

import torch
import torch.nn.functional as F

_EFFICIENTNET = [
    # kernel, stride, pads (left, right) of a 224-pixel design, one row per block
    (3, 1, (1, 1)),
    (3, 2, (0, 1)),
    (3, 1, (1, 1)),
    (5, 2, (1, 2)),
    (5, 1, (2, 2)),
    (3, 2, (0, 1)),
    (3, 1, (1, 1)),
    (3, 1, (1, 1)),
    (5, 1, (2, 2)),
    (5, 1, (2, 2)),
    (5, 1, (2, 2)),
    (5, 2, (1, 2)),
    (5, 1, (2, 2)),
    (5, 1, (2, 2)),
    (5, 1, (2, 2)),
    (3, 1, (1, 1)),
]
_MOBILENET_STRIDES = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]


def _norm(w, name, x, eps):
    if f"{name}.running_mean" not in w:
        groups = x.shape[1] // 16
        return F.group_norm(x, groups, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
    return F.batch_norm(
        x,
        w[f"{name}.running_mean"],
        w[f"{name}.running_var"],
        w[f"{name}.weight"],
        w[f"{name}.bias"],
        eps=eps,
    )


def _linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _waypoints(raw):
    raw = raw.reshape(-1, 5, 4)
    xy = torch.stack([raw[:, : t + 1, :2].sum(1) for t in range(5)], 1)
    heading = raw[..., 2:]
    return torch.cat([xy, heading / heading.norm(dim=-1, keepdim=True).clamp(min=1e-12)], -1)


def mobilenet(w, prefix, x):
    """(B, C, H, W) → (B, 1280)."""

    def conv(name, x, stride=1, padding=0, groups=1):
        return F.conv2d(x, w[f"{prefix}.{name}.weight"], None, stride, padding, 1, groups)

    def norm(name, x):
        return _norm(w, f"{prefix}.{name}", x, 1e-5)

    x = F.hardtanh(norm("0.1", conv("0.0", x, 2, 1)), 0, 6)
    for index, stride in enumerate(_MOBILENET_STRIDES, start=1):
        y, at = x, 0
        if index > 1:
            y = F.hardtanh(norm(f"{index}.conv.0.1", conv(f"{index}.conv.0.0", y)), 0, 6)
            at = 1
        depthwise = f"{index}.conv.{at}"
        y = conv(f"{depthwise}.0", y, stride, 1, y.shape[1])
        y = F.hardtanh(norm(f"{depthwise}.1", y), 0, 6)
        y = norm(f"{index}.conv.{at + 2}", conv(f"{index}.conv.{at + 1}", y))
        x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
    return F.hardtanh(norm("18.1", conv("18.0", x)), 0, 6).mean((2, 3))


def efficientnet(w, prefix, x):
    """(B, C, H, W) → (B, 1280)."""

    def conv(name, x, stride=1, pads=(0, 0), groups=1):
        bias = w.get(f"{prefix}.{name}.bias")
        x = F.pad(x, (*pads, *pads))
        return F.conv2d(x, w[f"{prefix}.{name}.weight"], bias, stride, 0, 1, groups)

    def norm(name, x):
        return _norm(w, f"{prefix}.{name}", x, 1e-3)

    x = F.silu(norm("_bn0", conv("_conv_stem", x, 2, (0, 1))))
    for index, (_, stride, pads) in enumerate(_EFFICIENTNET):
        block = f"_blocks.{index}"
        y = x
        if index > 0:
            y = F.silu(norm(f"{block}._bn0", conv(f"{block}._expand_conv", y)))
        y = F.silu(
            norm(f"{block}._bn1", conv(f"{block}._depthwise_conv", y, stride, pads, y.shape[1]))
        )
        gate = F.silu(conv(f"{block}._se_reduce", y.mean((2, 3), keepdim=True)))
        y = y * torch.sigmoid(conv(f"{block}._se_expand", gate))
        y = norm(f"{block}._bn2", conv(f"{block}._project_conv", y))
        x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
    return F.silu(norm("_bn1", conv("_conv_head", x))).mean((2, 3))


def _positions(tokens, size):
    table = torch.zeros(tokens, size)
    for position in range(tokens):
        for column in range(0, size, 2):
            angle = position / 10000.0 ** (column / size)
            table[position, column] = math.sin(angle)
            table[position, column + 1] = math.cos(angle)
    return table


def attention(w, prefix, x, ignored_last=False):
    """Four pre-norm layers of four heads over tokens (B, N, D)."""
    batch, count, size = x.shape
    for layer in range(4):
        name = f"{prefix}.layers.{layer}"
        y = F.layer_norm(x, (size,), w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"])
        qkv = F.linear(
            y, w[f"{name}.self_attn.in_proj_weight"], w[f"{name}.self_attn.in_proj_bias"]
        )
        q, k, v = (t.reshape(batch, count, 4, size // 4).transpose(1, 2) for t in qkv.chunk(3, -1))
        scores = q @ k.transpose(2, 3) / math.sqrt(size // 4)
        if ignored_last:
            scores[..., -1] = -torch.inf
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, count, size)
        x = x + _linear(w, f"{name}.self_attn.out_proj", y)
        y = F.layer_norm(x, (size,), w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"])
        x = x + _linear(w, f"{name}.linear2", F.gelu(_linear(w, f"{name}.linear1", y)))
    return x


def gnm(w, frames, goals):
    """Distances (B, 1) and waypoints (B, 5, 4) of images (B, 6, 3, H, W) and (B, 3, H, W)."""
    observation = frames.flatten(1, 2)
    o = F.relu(_linear(w, "compress_observation.0", mobilenet(w, "obs_mobilenet", observation)))
    both = torch.cat([observation, goals], 1)
    g = F.relu(_linear(w, "compress_goal.0", mobilenet(w, "goal_mobilenet", both)))
    g = F.relu(_linear(w, "compress_goal.2", g))
    z = F.relu(_linear(w, "linear_layers.0", torch.cat([o, g], 1)))
    z = F.relu(_linear(w, "linear_layers.2", z))
    return _linear(w, "dist_predictor.0", z), _waypoints(_linear(w, "action_predictor.0", z))


def vint(w, frames, goals):
    """Distances (B, 1) and waypoints (B, 5, 4) of images (B, 6, 3, H, W) and (B, 3, H, W)."""
    batch, count = frames.shape[:2]
    tokens = [
        _linear(w, "compress_obs_enc", efficientnet(w, "obs_encoder", frames[:, i]))
        for i in range(count)
    ]
    pair = torch.cat([frames[:, -1], goals], 1)
    tokens.append(_linear(w, "compress_goal_enc", efficientnet(w, "goal_encoder", pair)))
    x = torch.stack(tokens, 1) + _positions(count + 1, tokens[0].shape[-1])
    x = attention(w, "decoder.sa_decoder", x).reshape(batch, -1)
    for layer in range(5):
        x = F.relu(_linear(w, f"decoder.output_layers.{layer}", x))
    return _linear(w, "dist_predictor.0", x), _waypoints(_linear(w, "action_predictor.0", x))


def nomad_context(w, frames, goals, mask_goal):
    """Context (B, 256) of images (B, 4, 3, H, W) and (B, 3, H, W), by masking as published."""
    count = frames.shape[1]
    v = "vision_encoder."
    tokens = [
        _linear(w, v + "compress_obs_enc", efficientnet(w, v + "obs_encoder", frames[:, i]))
        for i in range(count)
    ]
    pair = torch.cat([frames[:, -1], goals], 1)
    tokens.append(_linear(w, v + "compress_goal_enc", efficientnet(w, v + "goal_encoder", pair)))
    x = torch.stack(tokens, 1) + _positions(count + 1, tokens[0].shape[-1])
    x = attention(w, v + "sa_encoder", x, ignored_last=mask_goal)
    if mask_goal:
        scale = torch.tensor([(count + 1) / count] * count + [0.0])
        x = x * scale[:, None]
    return x.mean(1)


def nomad_distance(w, context):
    """Distances (B, 1)."""
    x = context
    for layer in (0, 2):
        x = F.relu(_linear(w, f"dist_pred_net.network.{layer}", x))
    return _linear(w, "dist_pred_net.network.4", x)


def nomad_noise(w, noisy, step, context):
    """Predicted noise (S, 8, 2) in noisy steps (S, 8, 2) at one diffusion step."""
    n = "noise_pred_net."

    def conv(name, x, **options):
        return F.conv1d(x, w[f"{n}{name}.weight"], w[f"{n}{name}.bias"], **options)

    def block(name, x):
        x = conv(f"{name}.block.0", x, padding=1)
        return F.mish(
            F.group_norm(x, 8, w[f"{n}{name}.block.1.weight"], w[f"{n}{name}.block.1.bias"])
        )

    def residual(name, x):
        y = block(f"{name}.blocks.0", x)
        y = y + _linear(w, f"{n}{name}.cond_encoder.1", F.mish(condition))[..., None]
        y = block(f"{name}.blocks.1", y)
        return y + (conv(f"{name}.residual_conv", x) if x.shape[1] != y.shape[1] else x)

    frequencies = [math.exp(-math.log(10000.0) * i / 127) for i in range(128)]
    angle = torch.tensor([step * f for f in frequencies])
    embedding = torch.cat([angle.sin(), angle.cos()])[None].expand(len(noisy), -1)
    embedding = F.mish(_linear(w, n + "diffusion_step_encoder.1", embedding))
    condition = torch.cat([_linear(w, n + "diffusion_step_encoder.3", embedding), context], 1)
    x = noisy.transpose(1, 2)
    kept = []
    for level in range(3):
        x = residual(f"down_modules.{level}.1", residual(f"down_modules.{level}.0", x))
        kept.append(x)
        if level < 2:
            x = conv(f"down_modules.{level}.2.conv", x, stride=2, padding=1)
    x = residual("mid_modules.1", residual("mid_modules.0", x))
    for level in range(2):
        x = torch.cat([x, kept[2 - level]], 1)
        x = residual(f"up_modules.{level}.1", residual(f"up_modules.{level}.0", x))
        name = f"{n}up_modules.{level}.2.conv"
        x = F.conv_transpose1d(x, w[f"{name}.weight"], w[f"{name}.bias"], 2, 1)
    return conv("final_conv.1", block("final_conv.0", x)).transpose(1, 2)


# beta, alpha product, factors of the clean estimate and of the noisy steps, spread; steps 9 to 0
NOMAD_SCHEDULE = [
    (2.40914e-05, 0.155064, 0.030861, 0.987399),
    (0.0240917, 0.233740, 0.469853, 0.830970),
    (0.0940456, 0.267143, 0.598518, 0.687273),
    (0.203121, 0.295971, 0.638617, 0.578098),
    (0.340810, 0.330356, 0.637874, 0.487794),
    (0.493844, 0.377217, 0.608252, 0.406521),
    (0.647478, 0.445877, 0.548310, 0.327271),
    (0.786911, 0.553418, 0.444811, 0.243172),
    (0.898706, 0.734819, 0.264904, 0.144219),
    (0.972093, 1.0, 0.0, 0.0),
]
"""Per denoising step: alpha product, factor of the clean estimate, of the noisy steps, spread."""


def nomad_waypoints(w, context, start, noises):
    """Waypoints (S, 8, 2) in units of the waypoint spacing.

    Args:
        w: Tensors by name.
        context: (S, 256).
        start: (S, 8, 2) standard normal.
        noises: One (S, 8, 2) per step, standard normal; the last is not used.
    """
    x = start
    for step, (product, clean_factor, noisy_factor, spread), noise in zip(
        range(9, -1, -1), NOMAD_SCHEDULE, noises, strict=True
    ):
        predicted = nomad_noise(w, x, step, context)
        clean = (x - math.sqrt(1 - product) * predicted) / math.sqrt(product)
        x = clean_factor * clean.clamp(-1, 1) + noisy_factor * x + spread * noise
    low, high = torch.tensor([-2.5, -4.0]), torch.tensor([5.0, 4.0])
    return ((x + 1) / 2 * (high - low) + low).cumsum(1)


class AsModule(torch.nn.Module):
    """A function of weights and inputs as a module that owns the weights."""

    def __init__(self, function, weights):
        super().__init__()
        self.function = function
        self.names = list(weights)
        for index, tensor in enumerate(weights.values()):
            self.register_buffer(f"weight_{index}", tensor)

    def forward(self, *inputs):
        weights = dict(zip(self.names, self.buffers(), strict=True))
        return self.function(weights, *inputs)
