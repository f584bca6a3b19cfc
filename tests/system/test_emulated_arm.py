"""`arm:=emulated`: the real driver on emulated servos, MuJoCo behind them, and what kills do."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from emulators.control_socket import tell
from interbotix_xs_msgs.srv import TorqueEnable
from launched import wait_until
from policy_interfaces.action import MoveToNamedPose
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from spun_nodes import call
from std_srvs.srv import Trigger

ROOT = Path(__file__).resolve().parents[2]
START_S = 90.0
KILLS = 2


def test_an_episode_through_driver_and_bus(start, tmp_path):
    report, port = tmp_path / "report.json", tmp_path / "ttyDXL"
    launch = start(
        *("launch", "widowx_bringup", "ptr.launch.py", "arm:=emulated", f"port:={port}"),
        *("task:=open_drawer", "episodes:=1", "max_steps:=15", f"report:={report}"),
    )
    launch.wait_for_line("running 1 episode", START_S)
    servos = json.loads(tell(Path(f"{port}.control"), "state"))
    assert sorted(servo["id"] for servo in servos) == list(range(1, 10))
    assert launch.wait(START_S) == 0, launch.output
    launch.assert_nothing_left()
    assert not port.is_symlink()
    (row,) = json.loads(report.read_text())["episodes"]
    assert row["success"] in (True, False) and row["steps"] > 0
    assert "stopped until re-armed" not in launch.output


def test_torque_off_goes_limp_and_a_lost_bus_waits_for_the_rearm(start, watcher, tmp_path):
    states, port = [], tmp_path / "ttyDXL"
    control = Path(f"{port}.control")
    watcher.create_subscription(JointState, "/wx250s/joint_states", states.append, 10)
    arm = start(
        *("launch", "widowx_bringup", "arm.launch.py", "arm:=emulated", f"port:={port}"),
    )
    arm.wait_for_line("the arm takes commands", START_S)

    def fresh(count=20):
        before = len(states)
        wait_until(lambda: len(states) >= before + count, START_S, "joint_states stopped")
        return states[-1]

    def move():
        client: ActionClient = ActionClient(watcher, MoveToNamedPose, "/wx250s/move_to_named_pose")
        assert client.wait_for_server(timeout_sec=START_S)
        sent = client.send_goal_async(MoveToNamedPose.Goal(pose="start"))
        wait_until(sent.done, START_S, "no answer")
        result = sent.result().get_result_async()
        wait_until(result.done, START_S, "the motion did not end")
        answer = result.result().result
        return answer.code, answer.message

    assert move()[0] == MoveToNamedPose.Result.CODE_REACHED
    held = fresh(100).position
    assert max(map(abs, fresh().velocity[:6])) < 0.05

    def torque(enable):
        request = TorqueEnable.Request(cmd_type="group", name="arm", enable=enable)
        call(watcher, TorqueEnable, "/wx250s/torque_enable", request, START_S)

    torque(False)
    wait_until(lambda: abs(fresh(1).position[1] - held[1]) > 0.4, START_S, "the arm stays up")
    torque(True)
    wait_until(lambda: max(map(abs, fresh().velocity[:6])) < 0.05, START_S, "the arm does not rest")
    fallen = fresh().position
    assert max(abs(a - b) for a, b in zip(fresh(50).position[:6], fallen[:6], strict=True)) < 0.02

    tell(control, "unplug_bus")
    arm.wait_for_line("is gone", START_S)
    tell(control, "plug_bus")
    fresh()
    # Reconnected by itself, but it moves only when somebody says so.
    assert move()[0] != MoveToNamedPose.Result.CODE_REACHED
    answer = call(watcher, Trigger, "/wx250s/xs_driver/rearm", Trigger.Request(), START_S)
    assert answer.success, answer.message
    fresh(50)
    code, message = move()
    assert code == MoveToNamedPose.Result.CODE_REACHED, message
    assert arm.process.poll() is None, arm.output


@pytest.mark.parametrize(
    ("arguments", "to_all"), [([], True), ([], False), (["guard:=true"], True)]
)
def test_an_interruption_ends_the_controller_before_what_it_commands(
    start, tmp_path, arguments, to_all
):
    port = tmp_path / "ttyDXL"
    control = Path(f"{port}.control")
    arm = start(
        *("launch", "widowx_bringup", "arm.launch.py", "arm:=emulated", f"port:={port}"), *arguments
    )
    arm.wait_for_line("the arm takes commands", START_S)

    def profile():
        return tell(control, "register 2 Profile_Acceleration")

    before = profile()
    # A terminal interrupts all processes of a launch, a program only the launch itself.
    (os.killpg if to_all else os.kill)(arm.process.pid, signal.SIGINT)
    last = before
    with contextlib.suppress(OSError):  # until the emulator has ended
        while True:
            last = profile() or last
    assert (before, last) == ("0", "300"), arm.output
    arm.wait(START_S)
    assert "was not restored" not in arm.output


def test_whatever_is_killed_the_arm_stops_in_time(free_domain, tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    log = tmp_path / "nodes.log"
    seed = random.SystemRandom().randrange(2**31)
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "bench" / "kill_response.py", "--kills", str(KILLS)),
            *("--seed", str(seed), "--log", str(log)),
        ],
        capture_output=True,
        text=True,
        timeout=300.0,
        env={**os.environ},
    )
    told = done.stdout + done.stderr + log.read_text()[-3000:]
    assert done.returncode == 0, told
    result = json.loads((ROOT / "runs" / "bench" / "kill_response.json").read_text())
    assert len(result["kills"]) == 3 * KILLS, told
    for kill in result["kills"]:
        assert kill["commanded_s"] <= result["limit_s"], (seed, kill, told)
        assert kill["victim"] != "driver" or kill["watchdogs_tripped"] == 8, (seed, kill, told)
