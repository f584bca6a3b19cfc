"""PTR, chunked and random policies on closed-form bundles; the registry; import hygiene."""

import subprocess
import sys

import bundle_builder
import numpy as np
import pytest
import yaml
from node_common.strict_yaml import BundleError
from policy_server.bundle import load_bundle
from policy_server.engine import EngineOptions, InferenceError
from policy_server.policy import (
    Observation,
    Policy,
    Task,
    UnknownTaskError,
    example_observation,
)
from policy_server.registry import load_policy, policy_kinds, register_policy
from policy_server.robots import load_robot

CPU = EngineOptions("cpu", 1)
LOW, HIGH = bundle_builder.LOW, bundle_builder.HIGH


def load_document(file):
    return yaml.safe_load(file.read_text())


def observation(task="push_right", seed=0):
    random = np.random.default_rng(seed)
    size = bundle_builder.IMAGE_SIZE
    image = random.integers(0, 256, (size, size, 3), np.uint8)
    return Observation(
        {"image": image, "state": random.normal(size=7).astype(np.float32) * 0.3}, Task(task)
    )


def expected_mean(seen):
    colour = seen.values["image"].mean(axis=(0, 1)) / 255
    one_hot = np.eye(2)[bundle_builder.TASKS[seen.task.name]]
    return np.concatenate([colour, one_hot, [0, 0]]) + seen.values["state"]


def physical(squashed):
    return LOW + (squashed + 1) / 2 * (HIGH - LOW)


@pytest.mark.parametrize("task", bundle_builder.TASKS)
def test_the_action_for_evaluation_is_the_squashed_mean(ptr_file, task):
    policy = load_policy(ptr_file, CPU)
    assert isinstance(policy, Policy)
    seen = observation(task, seed=4)
    first, second = policy.infer(seen), policy.infer(seen)
    np.testing.assert_allclose(first.action, physical(np.tanh(expected_mean(seen))), atol=1e-6)
    np.testing.assert_array_equal(first.actions, second.actions)


def test_samples_follow_the_gaussian_and_the_seed(tmp_path):
    policy = load_policy(bundle_builder.write_ptr_bundle(tmp_path / "tiny"), CPU)
    seen = observation(seed=1)
    policy.reset(7)
    first = policy.infer(seen, 4000)
    policy.reset(7)
    again = policy.infer(seen, 4000)
    policy.reset(8)
    other = policy.infer(seen, 4000)
    np.testing.assert_array_equal(first.actions, again.actions)
    assert not np.array_equal(first.actions, other.actions)
    assert first.scores is None
    assert first.actions.shape == (4000, 1, 7)
    squashed = (first.actions[:, 0] - LOW) / (HIGH - LOW) * 2 - 1
    assert np.abs(squashed).max() <= 1.0 + 1e-6
    before_tanh = np.arctanh(np.clip(squashed, -0.999999, 0.999999))
    standard_error = np.exp(bundle_builder.LOG_STD) / np.sqrt(4000)
    np.testing.assert_allclose(
        before_tanh.mean(axis=0), expected_mean(seen), atol=5 * standard_error
    )
    np.testing.assert_allclose(before_tanh.std(axis=0), np.exp(bundle_builder.LOG_STD), rtol=0.1)


@pytest.mark.parametrize("batch", [1, 4, "B"])
def test_the_sample_that_the_critic_likes_best_is_executed(tmp_path, batch):
    policy = load_policy(bundle_builder.write_ptr_bundle(tmp_path / "tiny", batch), CPU)
    policy.reset(11)
    samples = policy.infer(observation(seed=2), 10)
    squashed = (samples.actions[:, 0] - LOW) / (HIGH - LOW) * 2 - 1
    cost = ((squashed - bundle_builder.CRITIC_TARGET) ** 2).sum(axis=1)
    assert samples.scores.shape == (10,)
    np.testing.assert_allclose(samples.scores, -cost, atol=1e-4)
    assert samples.chosen == np.argmin(cost)
    assert set(samples.stage_times_s) == {"encoder", "policy", "critic_encoder", "critic"}


def test_unknown_tasks_are_refused_with_the_known_ones(ptr_file):
    policy = load_policy(ptr_file, CPU)
    with pytest.raises(UnknownTaskError, match=r"push_lft.*push_left.*did you mean"):
        policy.infer(Observation(observation().values, Task("push_lft")))
    with pytest.raises(UnknownTaskError):
        policy.infer(Observation(observation().values))


def test_a_chunk_has_all_its_steps_and_memory_advances_once_per_chunk(tmp_path):
    policy = load_policy(bundle_builder.write_recurrent_bundle(tmp_path / "sum"), CPU)
    states = [np.full(7, value, np.float32) for value in (1.0, 3.0)]
    found = [policy.infer(Observation({"state": state})).steps[:, 0].tolist() for state in states]
    assert found == [[1.0, 2.0, 3.0], [4.0, 8.0, 12.0]]
    policy.infer(Observation({"state": states[0]}))
    policy.reset(0)
    assert policy.infer(Observation({"state": states[1]})).action[0] == 3.0
    with pytest.raises(InferenceError, match="found num_samples 3"):
        policy.infer(Observation({"state": states[0]}), 3)


def test_more_steps_than_the_chunk_has_are_refused(tmp_path):
    file = bundle_builder.write_recurrent_bundle(tmp_path / "sum", execute_steps=4)
    with pytest.raises(BundleError, match="execute_steps: found 4, expected at most the 3"):
        load_policy(file, CPU)


def test_random_actions_fill_the_bounds_and_follow_the_seed(ptr_file):
    policy = load_policy(ptr_file, CPU, kind="random")
    seen = example_observation(policy.spec)
    policy.reset(3)
    actions = policy.infer(seen, 2000).actions[:, 0]
    assert np.all(actions >= LOW - 1e-7)
    assert np.all(actions <= HIGH + 1e-7)
    np.testing.assert_allclose(actions.mean(axis=0), (LOW + HIGH) / 2, atol=0.02)
    assert np.all(np.ptp(actions, axis=0) > 0.99 * (HIGH - LOW))
    policy.reset(3)
    np.testing.assert_array_equal(policy.infer(seen, 2000).actions[:, 0], actions)


def test_a_kind_can_be_registered_once():
    assert {"ptr", "chunked", "random"} <= set(policy_kinds())
    with pytest.raises(ValueError, match='"ptr" is taken'):
        register_policy("ptr")(lambda bundle, options: None)


def test_a_wrapper_needs_no_more_than_the_interface(ptr_file):
    class PrefersTheLast:
        """What a value-guided wrapper does: ask for samples, score them, choose."""

        def __init__(self, base):
            self.base = base
            self.spec = base.spec

        def reset(self, seed):
            self.base.reset(seed)

        def infer(self, observation, num_samples=1):
            samples = self.base.infer(observation, 8)
            scores = np.arange(8, dtype=np.float32)
            return type(samples)(samples.actions, chosen=7, scores=scores)

    wrapper = PrefersTheLast(load_policy(ptr_file, CPU))
    assert isinstance(wrapper, Policy)
    samples = wrapper.infer(observation())
    np.testing.assert_array_equal(samples.action, samples.actions[7, 0])


def test_the_core_imports_neither_ros_nor_torch():
    code = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'rclpy', 'torch', 'leapp', 'onnx', 'mujoco', 'policy_interfaces'}:
            raise ImportError(name + ' is not for the core')
sys.meta_path.insert(0, Forbidden())
import policy_server.bundle, policy_server.engine, policy_server.episode
import node_common.image_conversion, policy_server.observation_buffer, node_common.pacing
import policy_server.preprocessing, policy_server.registry, policy_server.robots
policy_server.registry.policy_kinds()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


DIRECTION = """policy (uint8[1,16,16,3] image, float[1,7] state) => (float[1,7] action) {
  first = Constant<value = int64[1] {0}>()
  third = Constant<value = int64[1] {3}>()
  column = Constant<value = int64[1] {1}>()
  position = Slice(state, first, third, column)
  size = ReduceL2<axes = [1], keepdims = 1>(position)
  direction = Div(position, size)
  pixels = Cast<to = 1>(image)
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 1>(pixels)
  centred = Sub(pixels, mean)
  contrast = ReduceL2<axes = [1, 2, 3], keepdims = 1>(centred)
  standard = Div(centred, contrast)
  colour = ReduceMean<axes = [1, 2], keepdims = 0>(standard)
  nothing = Constant<value = float[1,1] {0.0}>()
  action = Concat<axis = 1>(direction, colour, nothing)
}"""


def test_the_example_is_one_that_a_robot_can_see(tmp_path, ptr_file):
    """A policy may divide by its distance from the origin, or by an image's contrast."""
    image = {
        **load_document(ptr_file)["deployment"]["observations"][0],
        "tensors": ["policy/image"],
    }
    section = bundle_builder.deployment(
        kind="chunked",
        observations=[image, bundle_builder.state_observation("policy/state")],
        stages={"policy": "policy"},
    )
    text = bundle_builder.HEADER.replace("18", "13") + DIRECTION
    file = bundle_builder.write_bundle(tmp_path / "direction", {"policy": text}, section)
    policy = load_policy(file, CPU)
    action = policy.infer(example_observation(policy.spec, load_robot("wx250s"))).action
    np.testing.assert_allclose(
        action[:3], np.array([0.3, 0, 0.15]) / np.hypot(0.3, 0.15), atol=1e-4
    )
    assert np.isfinite(action).all()
    assert np.ptp(action[3:6]) > 0


def test_the_shipped_bundle_loads_when_present():
    from pathlib import Path

    file = Path(__file__).parents[3] / "models" / "ptr_widowx_sim" / "ptr_widowx_sim.yaml"
    if not file.exists():
        pytest.skip("no bundle is shipped yet")
    policy = load_policy(file, CPU)
    assert len(policy.spec.tasks) >= 8
    action = policy.infer(example_observation(policy.spec)).action
    assert np.all((action >= LOW - 1e-6) & (action <= HIGH + 1e-6))
    assert load_bundle(file).deployment.horizon > 0
