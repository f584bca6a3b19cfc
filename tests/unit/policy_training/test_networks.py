from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.training

from policy_training.networks import (  # noqa: E402
    Actor,
    Critic,
    Encoder,
    EncoderConfig,
    PolicyConfig,
    SameConv,
    SpatialEmbeddings,
    pad_same_upper,
)

SMALL = EncoderConfig(
    image_size=32,
    stem_channels=8,
    stem_kernel=5,
    stages=((1, 8, 1), (1, 16, 2)),
    embedding=16,
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_layout_has_the_published_parameter_counts():
    config = PolicyConfig(tasks=30)
    actor, critic = Actor(config), Critic(config)
    assert count(actor) == 23_593_038
    assert count(critic.encoder) == 23_382_592
    assert count(critic) - count(critic.encoder) == 684_048
    assert actor.encoder.spatial.weight.shape == (512, 16 * 16, 8)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 1, 2), (9, 3, 1)])
def test_strided_convolution_pads_like_same_upper(size, kernel, stride):
    torch.manual_seed(size)
    conv = SameConv(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size)
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before = total // 2
    weight = conv.conv.weight.detach().numpy()
    image = x[0].numpy()
    expected = np.zeros((3, out, out))
    for row in range(out):
        for column in range(out):
            for dr in range(kernel):
                for dc in range(kernel):
                    r, c = row * stride + dr - before, column * stride + dc - before
                    if 0 <= r < size and 0 <= c < size:
                        expected[:, row, column] += weight[:, :, dr, dc] @ image[:, r, c]
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-5)


def test_even_maps_get_their_padding_at_the_bottom_and_right():
    padded = pad_same_upper(torch.ones(1, 1, 4, 4), 3, 2)
    assert padded.shape == (1, 1, 5, 5)
    assert padded[0, 0, 0, 0] == 1 and padded[0, 0, 4].sum() == 0 and padded[0, 0, :, 4].sum() == 0


def test_spatial_embeddings_are_flattened_channel_major():
    layer = SpatialEmbeddings(4, 4, 3, 2)
    x = torch.randn(5, 3, 4, 4)
    found = layer(x)
    for channel in range(3):
        for feature in range(2):
            mask = layer.weight[channel, :, feature].view(4, 4)
            expected = (x[:, channel] * mask).sum(dim=(1, 2))
            torch.testing.assert_close(found[:, channel * 2 + feature], expected)


def test_film_lets_the_task_change_the_embedding_and_its_absence_does_not():
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    image[1] = image[0]
    task = torch.eye(4)[:2]
    plain = Encoder(SMALL, 4)
    assert torch.equal(plain(image, task)[0], plain(image, task)[1])
    film = Encoder(dataclasses.replace(SMALL, film=True), 4)
    torch.nn.init.normal_(film.film.weight)
    assert not torch.allclose(film(image, task)[0], film(image, task)[1])


def test_training_on_averaged_images_equals_deployment_on_full_ones():
    encoder = Encoder(dataclasses.replace(SMALL, image_size=64, average_pool=2), 1)
    small = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    full = small.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    torch.testing.assert_close(encoder(full, torch.ones(1, 1)), encoder(small, torch.ones(1, 1)))


def test_critic_scores_actions_as_a_plain_network_on_concatenated_inputs_would():
    torch.manual_seed(0)
    config = PolicyConfig(encoder=SMALL, tasks=3, hidden=(12, 10))
    critic = Critic(config)
    for layer in critic.layers:
        torch.nn.init.normal_(layer.bias)
    embedding, action = torch.randn(4, 16), torch.rand(4, 5, 7) * 2 - 1
    task = torch.eye(3)[[0, 1, 2, 0]]
    found = critic.head(embedding, action, task)
    assert found.shape == (2, 4, 5)
    for head in range(2):
        for sample in range(5):
            hidden = task
            for index, layer in enumerate(critic.layers):
                inputs = torch.cat([hidden, action[:, sample], embedding], dim=-1)
                hidden = inputs @ layer.weight[head] + layer.bias[head, 0, 0]
                hidden = hidden if index == 2 else torch.relu(hidden)
            torch.testing.assert_close(found[head, :, sample], hidden[:, 0], atol=1e-4, rtol=1e-4)


def test_actor_depends_on_proprioception_and_critic_cannot_see_it():
    config = PolicyConfig(encoder=SMALL, tasks=1)
    actor = Actor(config)
    image, task = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.ones(2, 1)
    mean, log_std = actor(image, torch.randn(2, 7) * 10, task)
    assert not torch.equal(mean[0], mean[1])
    assert log_std.min() >= -5 and log_std.max() <= 2
    assert actor.mlp[0].in_features == 16 + 7  # no one-hot input for a single task
