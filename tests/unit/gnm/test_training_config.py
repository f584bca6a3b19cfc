"""The YAML of the original training: every setting is applied or refused by name."""

from pathlib import Path

import pytest
import torch
import yaml
from policy_training.gnm import training_config
from policy_training.gnm.checkpoint import Checkpoint, CheckpointError
from policy_training.gnm.training_config import read_settings
from published_weights import random_weights

COMMON = {
    "project_name": "mine",
    "optimizer": "adamw",
    "lr": "5e-4",
    "normalize": True,
    "context_type": "temporal",
    "distance": {"min_dist_cat": 0, "max_dist_cat": 20},
    "action": {"min_dist_cat": 0, "max_dist_cat": 10},
    "datasets": {"own": {"data_folder": "/data", "negative_mining": True}},
}
ATTENTION = {
    "mha_num_attention_heads": 4,
    "mha_num_attention_layers": 4,
    "mha_ff_dim_factor": 4,
    "obs_encoder": "efficientnet-b0",
}
ORIGINAL = {
    "gnm": {
        "model_type": "gnm",
        "obs_encoding_size": 1024,
        "goal_encoding_size": 1024,
        "context_size": 5,
        "len_traj_pred": 5,
        "learn_angle": True,
        "image_size": [85, 64],
        "goal_type": "image",
    },
    "vint": {
        "model_type": "vint",
        "obs_encoding_size": 512,
        "late_fusion": False,
        "context_size": 5,
        "len_traj_pred": 5,
        "learn_angle": True,
        "image_size": [85, 64],
        "goal_type": "image",
        **ATTENTION,
    },
    "nomad": {
        "model_type": "nomad",
        "vision_encoder": "nomad_vint",
        "encoding_size": 256,
        "attn_unet": False,
        "cond_predict_scale": False,
        "down_dims": [64, 128, 256],
        "num_diffusion_iters": 10,
        "goal_mask_prob": 0.5,
        "context_size": 3,
        "len_traj_pred": 8,
        "learn_angle": False,
        "image_size": [96, 96],
        "goal_type": "image",
        **ATTENTION,
    },
}
STATS = {"action_stats": {"min": [-1.0, -2], "max": [3, 2.5]}, "own": {"spacing": 0.25}}


@pytest.fixture
def write(tmp_path):
    def write_yaml(content, name="train.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write_yaml


def settings_of(write, kind, **changes):
    return read_settings(None, [write(COMMON | ORIGINAL[kind] | changes)])


@pytest.mark.parametrize("kind", ORIGINAL)
def test_the_published_settings_give_the_published_layout(kind, write):
    settings = settings_of(write, kind)
    assert settings.kind == kind
    left = {"obs_type", "action_stats"} if kind == "nomad" else {"obs_type"}
    assert set(settings.assumed) == left
    found = {name: tuple(t.shape) for name, t in settings.network().state_dict().items()}
    published = {name: tuple(t.shape) for name, t in random_weights(kind, 0).items()}
    assert all(published[name] == shape for name, shape in found.items())


CHANGES = [
    ("gnm", {"context_size": 0}, lambda n: n.config.frames == 1),
    ("gnm", {"len_traj_pred": 9, "learn_angle": False}, lambda n: n.config.waypoint_size == 2),
    ("gnm", {"image_size": [120, 90]}, lambda n: n.config.image_size == (120, 90)),
    ("gnm", {"obs_encoding_size": 512}, lambda n: n.config.observation_encoding == 512),
    ("gnm", {"goal_encoding_size": 256}, lambda n: n.config.goal_encoding == 256),
    ("vint", {"mha_num_attention_heads": 8}, lambda n: n.config.heads == 8),
    ("vint", {"mha_num_attention_layers": 2}, lambda n: n.config.layers == 2),
    ("vint", {"mha_ff_dim_factor": 2}, lambda n: n.config.feedforward_factor == 2),
    ("vint", {"context_size": 0, "late_fusion": True}, lambda n: n.config.late_fusion),
    ("vint", {"learn_angle": False}, lambda n: n.action_predictor[0].out_features == 10),
    (
        "vint",
        {"obs_encoding_size": 1280},
        lambda n: isinstance(n.compress_obs_enc, torch.nn.Identity),
    ),
    ("nomad", {"mha_num_attention_heads": 2}, lambda n: n.config.heads == 2),
    ("nomad", {"num_diffusion_iters": 20}, lambda n: n.config.denoising_steps == 20),
    ("nomad", {"down_dims": [32, 64]}, lambda n: len(n.noise_pred_net.down_modules) == 2),
    ("nomad", {"encoding_size": 128, "len_traj_pred": 12}, lambda n: n.config.horizon == 12),
]


@pytest.mark.parametrize(("kind", "changes", "applied"), CHANGES)
def test_settings_are_applied(kind, changes, applied, write):
    settings = settings_of(write, kind, **changes)
    assert applied(settings.network())
    assert all(settings.values[name] == value for name, value in changes.items())


def test_the_longest_distance_and_action_statistics_are_applied(write):
    files = [write(COMMON | ORIGINAL["nomad"] | {"distance": {"max_dist_cat": 30}})]
    settings = read_settings(None, files, write(STATS, "data_config.yaml"))
    assert settings.max_distance_steps == 30.0
    config = settings.network().config
    assert (config.delta_low, config.delta_high) == ((-1.0, -2.0), (3.0, 2.5))
    assert settings.assumed == ("obs_type",)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gnm", {"normalize": False}, "normalize False, expected True"),
        ("gnm", {"context_type": "randomized"}, "context_type 'randomized'"),
        ("gnm", {"dropout": 0.1}, "dropout, which this package does not know"),
        ("gnm", {"context_size": -1}, "context_size -1, expected a whole number of at least 0"),
        ("gnm", {"len_traj_pred": True}, "len_traj_pred True, expected a whole number"),
        ("gnm", {"image_size": 64}, "image_size 64, expected a list"),
        ("gnm", {"learn_angle": "yes"}, "learn_angle 'yes', expected true or false"),
        ("gnm", {"distance": 20}, "distance 20, expected a mapping"),
        ("gnm", {"model_type": "siamese"}, "model_type 'siamese'"),
        ("gnm", {"datasets": {"a": {"waypoint_spacing": 2}}}, r"datasets.a.waypoint_spacing 2"),
        ("vint", {"obs_encoder": "efficientnet-b3"}, "obs_encoder 'efficientnet-b3'"),
        ("vint", {"mha_num_attention_heads": 5}, "multiple of the 5 heads"),
        ("nomad", {"vision_encoder": "vit"}, "vision_encoder 'vit', expected 'nomad_vint'"),
        ("nomad", {"cond_predict_scale": True}, "cond_predict_scale True"),
        ("nomad", {"learn_angle": True}, "learn_angle True"),
        ("nomad", {"len_traj_pred": 6}, "len_traj_pred 6"),
    ],
)
def test_other_settings_are_refused_by_name(kind, changes, said, write):
    with pytest.raises(CheckpointError, match=said):
        settings_of(write, kind, **changes)


def test_settings_that_only_training_reads_are_a_list(write):
    told = dict.fromkeys(training_config.TRAINING_ONLY, "anything") | {"model_type": "gnm"}
    read_settings("gnm", [write(told)])


@pytest.mark.parametrize(
    ("content", "said"),
    [("a: [", "cannot be read as YAML"), ("- 1", "found list, expected a mapping")],
)
def test_files_that_are_no_settings_are_refused(content, said, write):
    with pytest.raises(CheckpointError, match=said):
        read_settings("gnm", [write(content)])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_settings("gnm", [Path("/nowhere/gnm.yaml")])


@pytest.mark.parametrize(
    "stats", [{}, {"action_stats": {"min": [0, 0], "max": [0, 1]}}, {"action_stats": [1, 2]}]
)
def test_wrong_action_statistics_are_refused(stats, write):
    with pytest.raises(CheckpointError, match="action_stats"):
        read_settings("nomad", [], write(stats, "data_config.yaml"))


def test_later_files_go_before_earlier_ones(write):
    defaults = write(COMMON | {"context_size": 9, "len_traj_pred": 7}, "defaults.yaml")
    settings = read_settings("gnm", [defaults, write({"context_size": 2})])
    assert settings.values["context_size"] == 2
    assert settings.values["len_traj_pred"] == 7


def test_what_nobody_told_is_assumed_and_said():
    settings = read_settings("vint")
    assert "mha_num_attention_heads" in settings.assumed
    assert settings.values["mha_num_attention_heads"] == 4
    late = read_settings("vint_late_fusion")
    assert (late.values["context_size"], late.values["late_fusion"]) == (0, True)


def test_a_pickled_module_goes_before_what_is_assumed_but_not_against_the_file(write):
    module = Checkpoint({}, None, {"mha_num_attention_heads": 8, "context_size": 5})
    settings = read_settings("vint", checkpoint=module)
    assert settings.network().config.heads == 8
    assert not {"mha_num_attention_heads", "context_size"} & set(settings.assumed)
    with pytest.raises(CheckpointError, match="mha_num_attention_heads 4, but the module"):
        read_settings(None, [write(COMMON | ORIGINAL["vint"])], checkpoint=module)


@torch.inference_mode()
def test_another_number_of_heads_gives_other_waypoints_from_the_same_weights(write):
    """Why it must not be guessed in silence."""
    networks = [
        settings_of(write, "vint", mha_num_attention_heads=heads).network().eval()
        for heads in (4, 8)
    ]
    networks[1].load_state_dict(networks[0].state_dict())
    tokens, goals = torch.randn(1, 6, 512), torch.randn(2, 512)
    first, second = (network.match(tokens, goals)[1] for network in networks)
    assert (first - second).abs().max() > 1e-3
