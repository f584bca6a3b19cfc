"""`ros2 launch widowx_bringup ptr.launch.py`, from start to end."""

import http.client
import json
import signal

import pytest
from launched import wait_until

PTR = ("launch", "widowx_bringup", "ptr.launch.py")
START_S = 60.0
EPISODE_S = 40.0


def test_one_episode_ends_with_a_report_and_a_recording(start, tmp_path):
    report, bag = tmp_path / "report.json", tmp_path / "bag"
    launch = start(
        *PTR,
        "episodes:=1",
        "max_steps:=15",
        "seed:=3",
        "viewer:=web",
        "viewer_port:=18642",
        f"report:={report}",
        f"record:={bag}",
    )
    launch.wait_for_line("running 1 episode", START_S)
    web = http.client.HTTPConnection("127.0.0.1", 18642, timeout=5)

    def step_on_the_page():
        web.request("GET", "/state.json")
        return json.loads(web.getresponse().read()).get("action")

    wait_until(step_on_the_page, EPISODE_S, "the page shows no action")
    assert launch.wait(EPISODE_S) == 0, launch.output
    launch.assert_nothing_left()

    written = json.loads(report.read_text())
    assert written["complete"] and written["seed"] == 3
    assert written["model"]["name"] == "ptr_widowx_sim" and len(written["model"]["sha256"]) == 64
    assert "ptr.launch.py" in written["command"] and "episodes:=1" in written["command"]
    (row,) = written["episodes"]
    assert row["seed"] >= 1_000_000 and 0 < row["steps"] <= 15
    assert row["success"] in (True, False) and row["inference_p50_ms"] > 0
    assert "episode 1/1" in launch.output and "successes/trials" in launch.output

    info = start("bag", "info", bag)
    assert info.wait(30.0) == 0, info.output
    for topic in ("/camera/image_raw", "/wx250s/end_effector_delta", "/wx250s/joint_states"):
        assert topic in info.output
    assert list(bag.glob("*.mcap"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_a_signal_ends_everything(start, watcher, tmp_path, number, status):
    report = tmp_path / "report.json"
    launch = start(*PTR, "episodes:=3", f"report:={report}")
    launch.wait_for_line("running 3 episodes", START_S)
    wait_until(lambda: watcher.goals, EPISODE_S, "the arm was not moved")
    launch.process.send_signal(number)
    assert launch.wait(20.0) == status, launch.output
    launch.assert_nothing_left()
    assert "Traceback" not in launch.output
    written = json.loads(report.read_text())
    assert written["error"] == "interrupted" and not written["complete"]


def test_a_node_that_dies_ends_the_launch_with_an_error(start, watcher):
    launch = start(*PTR, "episodes:=3")
    launch.wait_for_line("running 3 episodes", START_S)
    wait_until(lambda: watcher.deltas, EPISODE_S, "the policy did not act")
    launch.node_process("policy_node").send_signal(signal.SIGKILL)
    assert launch.wait(20.0) != 0
    assert "policy_node died" in launch.output
    launch.assert_nothing_left()
