"""Kinds of policies of other packages: a wrapper with a second bundle, a planner of subgoals."""

import re
from pathlib import Path

import bundle_builder
import numpy as np
import pytest
from node_rig import CLEANUP, CONFIGURE, DEACTIVATE, wait_until
from policy_interfaces.action import RunEpisode
from policy_rig import EMBEDDING, RobotWithTwoCameras, install_policy, rigs

PAGE = Path(__file__).parents[2] / "docs" / "add_a_policy.md"
(RERANKING,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

PLANNING = """
import dataclasses
import threading

import numpy as np
from policy_server.policy import Task
from policy_server.registry import create_policy


class Planning:
    "Finds its own subgoals, in a thread, and tells the policy below of them."

    def __init__(self, bundle, options):
        self.base = create_policy(bundle, options)
        kept = [o for o in self.base.spec.observations if o.kind != "goal_image"]
        self.spec = dataclasses.replace(self.base.spec, observations=tuple(kept))
        self.subgoal = np.full((8, 8, 3), 10, np.uint8)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.plan)
        self.thread.start()

    def plan(self):
        while not self.ended.wait(0.3):
            grey = min(250, int(self.subgoal[0, 0, 0]) + 10)
            self.subgoal = np.full((8, 8, 3), grey, np.uint8)

    def reset(self, seed):
        self.base.reset(seed)

    def infer(self, observation, num_samples=1):
        given = observation.task
        task = Task(given.name, given.instruction, self.subgoal, given.embedding)
        return self.base.infer(dataclasses.replace(observation, task=task), num_samples)

    def close(self):
        self.ended.set()
        self.thread.join()
        print("the planner has ended", flush=True)
"""


@pytest.fixture
def start(free_domain, monkeypatch):
    with rigs(free_domain, monkeypatch) as start:
        yield start


@pytest.mark.parametrize("axis", [0, 5])
def test_a_wrapper_with_a_second_bundle(start, tmp_path, monkeypatch, axis):
    install_policy(tmp_path / "site", monkeypatch, "reranking", RERANKING, "Reranking")
    base = bundle_builder.write_ptr_bundle(tmp_path / "base")
    value = bundle_builder.write_ptr_bundle(tmp_path / "value")
    rig = start(
        model=base.parent,
        policy="reranking",
        policy_parameters=f"'{{value: {value}, axis: {axis}, samples: 256}}'",
    )
    rig.activate()
    result = rig.run_episode(max_steps=6)
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON, result.message
    assert wait_until(lambda: len(rig.robot.commands) == 6)
    sampled = np.array([message.values for _, message in rig.robot.commands])
    # What the second policy wants on this axis is always the same; the rest are random samples.
    spread = np.ptp(sampled, axis=0) / (bundle_builder.HIGH - bundle_builder.LOW)
    assert spread[axis] < 0.3 * np.median(np.delete(spread, axis))


def test_wrong_parameters_of_a_kind_refuse_the_configuration(start, tmp_path, monkeypatch):
    install_policy(tmp_path / "site", monkeypatch, "reranking", RERANKING, "Reranking")
    base = bundle_builder.write_ptr_bundle(tmp_path / "base")
    rig = start(model=base.parent, policy="reranking", policy_parameters="'{vaule: x, axis: 1}'")
    assert not rig.transition(CONFIGURE)
    output = rig.output()
    assert "configure refused" in output and 'did you mean "value"' in output
    assert "Traceback" not in output


def test_a_planner_that_finds_its_own_subgoals(start, tmp_path, monkeypatch):
    install_policy(tmp_path / "site", monkeypatch, "planning", PLANNING, "Planning")
    file = bundle_builder.write_all_kinds_bundle(tmp_path / "all")
    rig = start(
        model=file.parent, policy="planning", robot_type=RobotWithTwoCameras, camera_timeout_s=0.5
    )
    rig.activate()
    # The bundle needs a goal image, the planner does not.
    result = rig.run_episode(task="", max_steps=10, embedding=EMBEDDING)
    assert result.termination_reason == RunEpisode.Result.REASON_HORIZON, result.message
    assert wait_until(lambda: len(rig.robot.commands) == 10)
    subgoals = [round(message.values[2] / 1e-4) for _, message in rig.robot.commands]
    assert subgoals == sorted(subgoals) and len(set(subgoals)) >= 4
    assert rig.transition(DEACTIVATE) and rig.transition(CLEANUP)
    assert "the planner has ended" in rig.output()


def test_a_policy_that_does_not_fit_is_closed(start, tmp_path, monkeypatch):
    install_policy(tmp_path / "site", monkeypatch, "planning", PLANNING, "Planning")
    file = bundle_builder.write_all_kinds_bundle(tmp_path / "all")
    rig = start(model=file.parent, policy="planning", robot="wx205s")
    assert not rig.transition(CONFIGURE)
    output = rig.output()
    assert 'did you mean "wx250s"' in output and "the planner has ended" in output
