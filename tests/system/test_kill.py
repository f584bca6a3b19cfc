"""Parts of the graph die in mid-motion: the arm stops in the stated time."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from launched import wait_until
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from policy_interfaces.action import MoveToNamedPose, RunEpisode
from rclpy.action import ActionClient
from spun_nodes import call

BUNDLE = Path(__file__).parents[2] / "models" / "ptr_widowx_sim"
START_S = 60.0
POLICY_PERIOD_S = 0.2
HOLD_WITHIN_S = 0.3


def change_state(node, transition, goal):
    request = ChangeState.Request(transition=Transition(id=transition))
    assert call(node, ChangeState, "/policy_node/change_state", request, START_S).success
    state = call(node, GetState, "/policy_node/get_state", GetState.Request(), START_S)
    assert state.current_state.id == goal


def send_goal(node, action_type, name, goal):
    client: ActionClient = ActionClient(node, action_type, name)
    assert client.wait_for_server(timeout_sec=START_S), name
    sent = client.send_goal_async(goal)
    wait_until(sent.done, START_S, f"{name} did not answer")
    handle = sent.result()
    assert handle is not None and handle.accepted
    return handle


def test_the_arm_holds_when_the_policy_is_killed(start, watcher):
    """Nothing tears the graph down here: the arm controller must notice by itself."""
    arm = start("launch", "widowx_bringup", "arm.launch.py")
    policy = start(
        "run", "policy_server", "policy_node", "--ros-args",
        "-p", f"model:={BUNDLE}", "-p", "policy:=random",
        "-r", "end_effector_state:=/wx250s/end_effector_state",
        "-r", "end_effector_delta:=/wx250s/end_effector_delta",
    )  # fmt: skip
    arm.wait_for_line("the arm takes commands", START_S)
    change_state(watcher, Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE)
    change_state(watcher, Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)
    move = send_goal(
        watcher,
        MoveToNamedPose,
        "/wx250s/move_to_named_pose",
        MoveToNamedPose.Goal(pose="start", open_gripper=True),
    )
    arrived = move.get_result_async()
    wait_until(arrived.done, START_S, "the arm did not get to its start")
    assert arrived.result().result.code == MoveToNamedPose.Result.CODE_REACHED

    send_goal(
        watcher,
        RunEpisode,
        "/policy_node/run_episode",
        RunEpisode.Goal(task="open_drawer", max_steps=100),
    )
    wait_until(lambda: len(watcher.deltas) >= 5, START_S, "the policy did not act")
    # Die right after a command: the arm then has the longest motion still before it.
    count = len(watcher.deltas)
    wait_until(lambda: len(watcher.deltas) > count, 2.0, "the policy stopped by itself")
    policy.node_process("policy_node").send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    wait_until(lambda: time.monotonic() > killed_s + 1.0, 2.0, "")
    assert killed_s - 0.25 < watcher.last_motion_s < killed_s + HOLD_WITHIN_S
    assert arm.process.poll() is None, arm.output


def test_the_policy_stops_when_the_camera_dies(start, watcher, free_domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain))
    camera = subprocess.Popen([sys.executable, Path(__file__).with_name("camera_relay.py")])
    try:
        launch = start(
            "launch", "widowx_bringup", "ptr.launch.py",
            "camera_topic:=/relay/image_raw", "policy:=random", "episodes:=2",
        )  # fmt: skip
        launch.wait_for_line("running 2 episodes", START_S)
        wait_until(lambda: len(watcher.deltas) >= 5, START_S, "the policy did not act")
        camera.kill()
        killed_s = time.monotonic()
        assert launch.wait(START_S) != 0
    finally:
        camera.kill()
        camera.wait()
    assert "stale_camera" in launch.output
    late = [time_s for time_s in watcher.deltas if time_s > killed_s]
    assert len(late) <= 2 and all(time_s < killed_s + 2 * POLICY_PERIOD_S for time_s in late)
    launch.assert_nothing_left()
