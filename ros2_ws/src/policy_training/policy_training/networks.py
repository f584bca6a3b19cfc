"""PTR's actor and critic (Kumar et al., "Pre-Training for Robots", 2022).

The default configurations are the published layout: a ResNet-34 variant with GroupNorm whose
stages 3 and 4 do not downsample, learned spatial embeddings, a tanh bottleneck, a tanh-Gaussian
actor that also sees proprioception, and a two-headed critic that sees the action and the image
embedding again before every dense layer. Depth, widths, image size, FiLM conditioning on the task
and an auxiliary localisation head are configurable.

Images enter as uint8 (B, H, W, 3) RGB; every arithmetic step on them (averaging down, scaling by
1/255) is part of the network and therefore of every exported graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG_STD_MIN = -5.0
LOG_STD_MAX = 2.0
GROUP_NORM_EPS = 1e-5
LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class EncoderConfig:
    """Layout of the image encoder.

    Attributes:
        image_size: Height and width of the (square) image that the robot delivers, in pixels.
        average_pool: Factor by which the image is averaged down before the first convolution.
        stem_channels: Channels of the first convolution.
        stem_kernel: Its kernel size; padding is symmetric, `stem_kernel // 2`.
        stem_stride: Its stride.
        stem_pool: Whether a 3x3 max-pool with stride 2 follows it.
        stages: (blocks, channels, stride of the first block) of each stage.
        groups: Groups of every GroupNorm.
        spatial_features: Learned spatial embeddings per channel.
        embedding: Size of the bottleneck.
        film: Whether the task scales and shifts the channels of the last map
            (Perez et al., "FiLM", 2018).
    """

    image_size: int = 128
    average_pool: int = 1
    stem_channels: int = 64
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    stages: tuple[tuple[int, int, int], ...] = ((3, 64, 1), (4, 128, 2), (6, 256, 1), (3, 512, 1))
    groups: int = 4
    spatial_features: int = 8
    embedding: int = 256
    film: bool = False


@dataclass(frozen=True)
class PolicyConfig:
    """Layout of actor and critic.

    Attributes:
        encoder: Layout of the image encoder; actor and critic each have their own copy.
        tasks: Number of tasks; the one-hot input is absent from every layer when it is 1.
        state_dim: Proprioceptive dimensions.
        action_dim: Action dimensions.
        hidden: Widths of the dense layers of actor and critic.
        critic_heads: Number of Q functions.
        auxiliary_dim: Outputs of the localisation head that training adds; 0 for none.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    tasks: int = 1
    state_dim: int = 7
    action_dim: int = 7
    hidden: tuple[int, ...] = (256, 256, 256)
    critic_heads: int = 2
    auxiliary_dim: int = 0

    @property
    def task_dim(self) -> int:
        """Width of the one-hot task input of the dense layers; 0 when there is one task."""
        return self.tasks if self.tasks > 1 else 0


def pad_same_upper(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zero-pad a map as "SAME" does in JAX and TensorFlow (`SAME_UPPER` in ONNX).

    For stride 2 and even sizes the odd row and column go to the bottom and right; symmetric padding
    shifts every later feature by half a pixel.

    Args:
        x: (B, C, H, W).
        kernel: Kernel size of the operation that follows.
        stride: Its stride.

    Returns:
        (B, C, H + pad, W + pad).
    """
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads) if any(pads) else x


class SameConv(nn.Module):
    """Bias-free convolution with `SAME_UPPER` padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        symmetric = stride == 1
        self.kernel = kernel
        self.stride = stride
        self.symmetric = symmetric
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2 if symmetric else 0, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, ceil(H / stride), ceil(W / stride))."""
        return self.conv(x if self.symmetric else pad_same_upper(x, self.kernel, self.stride))


class ResidualBlock(nn.Module):
    """conv-norm-ReLU-conv-norm plus shortcut, ReLU; 1x1 projection when the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = SameConv(inputs, outputs, 3, stride)
        self.norm1 = nn.GroupNorm(groups, outputs, eps=GROUP_NORM_EPS)
        self.conv2 = SameConv(outputs, outputs, 3, 1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=GROUP_NORM_EPS)
        self.projection = (
            nn.Sequential(
                SameConv(inputs, outputs, 1, stride),
                nn.GroupNorm(groups, outputs, eps=GROUP_NORM_EPS),
            )
            if inputs != outputs or stride != 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + self.projection(x))


class SpatialEmbeddings(nn.Module):
    """Learned spatial embeddings: every channel's map is weighted by K learned masks and summed.

    The result is flattened channel-major (all K features of channel 0 first), as PTR does; another
    order would silently permute the weights of the dense layer behind it.
    """

    def __init__(self, height: int, width: int, channels: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, height * width, features))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(height * width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C * K)."""
        flat = x.flatten(2).transpose(0, 1)
        return torch.bmm(flat, self.weight.to(flat.dtype)).transpose(0, 1).flatten(1)


class Encoder(nn.Module):
    """Image (and, with FiLM, task) → embedding in (-1, 1)."""

    def __init__(self, config: EncoderConfig, tasks: int) -> None:
        super().__init__()
        self.config = config
        size = config.image_size // config.average_pool
        if config.image_size % config.average_pool:
            raise ValueError(
                f"found image_size {config.image_size}, expected a multiple of "
                f"average_pool {config.average_pool}"
            )
        self.stem = nn.Conv2d(
            3,
            config.stem_channels,
            config.stem_kernel,
            config.stem_stride,
            padding=config.stem_kernel // 2,
            bias=False,
        )
        self.stem_norm = nn.GroupNorm(config.groups, config.stem_channels, eps=GROUP_NORM_EPS)
        size = math.ceil(size / config.stem_stride)
        if config.stem_pool:
            size = math.ceil(size / 2)
        blocks: list[nn.Module] = []
        channels = config.stem_channels
        for count, width, stride in config.stages:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(ResidualBlock(channels, width, step, config.groups))
                channels = width
                size = math.ceil(size / step)
        self.blocks = nn.Sequential(*blocks)
        self.film = nn.Linear(tasks, 2 * channels) if config.film else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self.spatial = SpatialEmbeddings(size, size, channels, config.spatial_features)
        self.dense = nn.Linear(channels * config.spatial_features, config.embedding)
        self.norm = nn.LayerNorm(config.embedding, eps=LAYER_NORM_EPS)

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        """Encode images.

        Args:
            image: uint8 RGB, (B, S, S, 3), S the configured size or, in training, already averaged
                down to S / `average_pool`.
            task: float32 one-hot (B, tasks); read only with FiLM.

        Returns:
            float (B, embedding), in (-1, 1).
        """
        x = image.permute(0, 3, 1, 2).to(self.stem.weight.dtype)
        if self.config.average_pool > 1 and x.shape[-1] == self.config.image_size:
            x = functional.avg_pool2d(x, self.config.average_pool)
        x = x * (1.0 / 255.0)
        x = functional.relu(self.stem_norm(self.stem(x)))
        if self.config.stem_pool:
            # After the ReLU all values are >= 0, so zero padding cannot win the maximum.
            x = functional.max_pool2d(pad_same_upper(x, 3, 2), 3, 2)
        x = self.blocks(x)
        if self.film is not None:
            scale, shift = self.film(task)[:, :, None, None].chunk(2, dim=1)
            x = x * (1.0 + scale) + shift
        return torch.tanh(self.norm(self.dense(self.spatial(x))))


class Actor(nn.Module):
    """tanh-Gaussian policy on image, proprioception and task."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder, config.tasks)
        width = config.encoder.embedding + config.state_dim + config.task_dim
        layers: list[nn.Module] = []
        for hidden in config.hidden:
            layers += [_orthogonal(nn.Linear(width, hidden), math.sqrt(2.0)), nn.ReLU()]
            width = hidden
        self.mlp = nn.Sequential(*layers)
        self.mean = _orthogonal(nn.Linear(width, config.action_dim), 0.01)
        self.log_std = _orthogonal(nn.Linear(width, config.action_dim), 0.01)
        self.register_buffer("state_mean", torch.zeros(config.state_dim))
        self.register_buffer("state_scale", torch.ones(config.state_dim))
        self.localiser = _localiser(config)

    state_mean: Tensor
    state_scale: Tensor

    def set_state_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Normalise proprioception inside the network.

        Args:
            mean: (state_dim,), in the units of the state.
            std: (state_dim,), positive.
        """
        self.state_mean.copy_(mean)
        self.state_scale.copy_(1.0 / std)

    def head(self, embedding: Tensor, state: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Distribution before the tanh.

        Args:
            embedding: (B, embedding).
            state: float32 (B, state_dim), physical units.
            task: float32 one-hot (B, tasks).

        Returns:
            mean (B, action_dim) and log-std (B, action_dim) in [-5, 2].
        """
        inputs = [embedding, (state - self.state_mean) * self.state_scale]
        if self.config.task_dim:
            inputs.append(task)
        hidden = self.mlp(torch.cat(inputs, dim=-1))
        return self.mean(hidden), self.log_std(hidden).clamp(LOG_STD_MIN, LOG_STD_MAX)

    def forward(self, image: Tensor, state: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std before the tanh; see `Encoder.forward` and `head` for shapes."""
        return self.head(self.encoder(image, task), state, task)


class Critic(nn.Module):
    """Q(image, task, action) with several heads; proprioception is excluded, as in PTR."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder, config.tasks)
        self.layers = nn.ModuleList()
        inputs = config.task_dim
        for outputs in (*config.hidden, 1):
            self.layers.append(
                CriticLayer(
                    config.critic_heads,
                    inputs,
                    config.action_dim,
                    config.encoder.embedding,
                    outputs,
                )
            )
            inputs = outputs
        self.localiser = _localiser(config)

    def head(self, embedding: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Score K actions per image.

        Args:
            embedding: (B, embedding).
            action: (B, K, action_dim) in [-1, 1].
            task: float32 one-hot (B, tasks).

        Returns:
            Q values (heads, B, K).
        """
        batch, count, _ = action.shape
        hidden: Tensor | None = None
        if self.config.task_dim:
            hidden = task[None, :, None, :].expand(self.config.critic_heads, batch, count, -1)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, action, embedding)
            if index + 1 < len(self.layers):
                hidden = functional.relu(hidden)
        assert hidden is not None
        return hidden.squeeze(-1)

    def forward(self, image: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Q values (heads, B, K); see `Encoder.forward` and `head` for shapes."""
        return self.head(self.encoder(image, task), action, task)


class CriticLayer(nn.Module):
    """Dense layer on [hidden, action, embedding], one weight per head.

    The product with the embedding does not depend on the action and is computed once per image.
    """

    def __init__(self, heads: int, hidden: int, action: int, embedding: int, outputs: int) -> None:
        super().__init__()
        inputs = hidden + action + embedding
        self.splits = (hidden, action, embedding)
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(heads, 1, 1, outputs))
        for head in range(heads):
            nn.init.orthogonal_(self.weight.data[head], gain=math.sqrt(2.0) if outputs > 1 else 1.0)

    def forward(self, hidden: Tensor | None, action: Tensor, embedding: Tensor) -> Tensor:
        """(heads, B, K, hidden), (B, K, action), (B, embedding) → (heads, B, K, outputs)."""
        heads = self.weight.shape[0]
        batch, count, width = action.shape
        of_hidden, of_action, of_embedding = self.weight.split(self.splits, dim=1)
        flat = action.reshape(1, batch * count, width).expand(heads, -1, -1)
        total = torch.bmm(flat, of_action)
        if hidden is not None:
            total = total + torch.bmm(hidden.reshape(heads, batch * count, -1), of_hidden)
        image = torch.bmm(embedding[None].expand(heads, -1, -1), of_embedding)
        return total.view(heads, batch, count, -1) + image[:, :, None, :] + self.bias


def _localiser(config: PolicyConfig) -> nn.Module | None:
    if config.auxiliary_dim == 0:
        return None
    return nn.Sequential(
        nn.Linear(config.encoder.embedding + config.tasks, 128),
        nn.ReLU(),
        nn.Linear(128, config.auxiliary_dim),
    )


def _orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)
    return layer
