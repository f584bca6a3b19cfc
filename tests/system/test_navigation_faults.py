"""Parts of navigation fail in mid-drive: the base stops in the stated time, for the stated reason.

The nodes are started one by one, without a launch that would tear down the rest.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from base_drivers.robot_config import load_robot
from base_drivers.velocity import STREAM_TIMEOUT_S
from gnm_nav.map_directory import save_map
from launched import Launched, wait_until
from navigation_drive import START_S, BaseWatcher
from navigation_trials.courses import map_way
from policy_interfaces.action import NavigateToGoal
from policy_server.navigation_model import load_navigation_model
from robot_sim.navigation.world import make_world
from spun_nodes import SpunNodes

BUNDLE = Path(__file__).parents[2] / "models" / "gnm_sim"
ROBOT = "locobot"
SEED = 10_003
STOPS_WITHIN_S = 0.2
"""From a fault to the last command to drive."""
STANDS_WITHIN_S = 0.3 + 0.05
"""The machine may be busy."""
CAMERA_GRACE_S = 1.0
Reason = NavigateToGoal.Result


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A mapped way through a world that was never trained on, and its map's directory."""
    path = tmp_path_factory.mktemp("maps") / "way"
    model = load_navigation_model(BUNDLE)
    way = map_way(model, make_world("indoor", SEED), load_robot(ROBOT), SEED)
    save_map(way.topological_map, path)
    return way, path


@pytest.fixture(scope="module")
def base(module_domain):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        nodes = SpunNodes(module_domain)
        node = nodes.add(BaseWatcher(nodes.context))
    yield node
    nodes.close()


class Graph:
    """Simulation, guard, path follower and navigator, each a process of its own.

    They run on from test to test; what one killed is started again for the next one.
    """

    def __init__(self, base, domain):
        self._base = base
        self._environment = {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONUNBUFFERED": "1",
        }
        self.parts = {}

    def bring_up(self, way, path, camera="/camera/image_raw"):
        """Put the robot at the start of a way, with a navigator that has the map and no goal."""
        self.stop("navigator")
        commands = {
            "navigation_sim": (
                "robot_sim", "navigation_sim_node", "-p", f"seed:={SEED}", "-p", f"robot:={ROBOT}",
            ),
            "cmd_vel_guard": (
                "base_drivers", "cmd_vel_guard",
                "-p", f"command_timeout_s:={STREAM_TIMEOUT_S}", "-p", "contacts_required:=true",
            ),
            "path_follower": ("gnm_nav", "path_follower_node", "-p", f"robot:={ROBOT}"),
            "navigator": (
                "gnm_nav", "navigator_node", "-p", f"robot:={ROBOT}", "-p", f"bundle:={BUNDLE}",
                "-p", f"camera_grace_s:={CAMERA_GRACE_S}", "-r", f"camera/image_raw:={camera}",
            ),
        }  # fmt: skip
        started = []
        for name, (package, executable, *arguments) in commands.items():
            if name not in self.parts or self.parts[name].process.poll() is not None:
                self.start(name, package, executable, *arguments)
                started.append(name)
        for name in started:
            if name != "navigation_sim":
                self._base.activate(name)
        self._base.put(way, 4)
        self._base.load(path)
        return self.parts

    def start(self, name, package, executable, *arguments):
        command = ["ros2", "run", package, executable, "--ros-args", *arguments]
        self.parts[name] = Launched(command, self._environment)

    def stop(self, name):
        if name in self.parts:
            self.parts.pop(name).stop()


@pytest.fixture(scope="module")
def started(base, module_domain):
    graph = Graph(base, module_domain)
    yield graph
    for name in list(graph.parts):
        graph.stop(name)


@pytest.fixture
def graph(started, mapped):
    """Bring the graph up on the mapped way; the camera's topic may be another one."""
    return functools.partial(started.bring_up, *mapped)


def drive(base):
    result = base.navigate("last")
    wait_until(lambda: base.drives or result.done(), START_S, "the base does not drive")
    assert not result.done(), result.result().result.message
    return result


def assert_stops(base, since_s, fault):
    """The base stands soon after a fault; `pytest -s` shows how soon."""
    stands_s, commanded_s = base.stop_time_s(since_s), base.commanded_s(since_s)
    speed_m_s = max((v for t, v, _ in base.speeds if abs(t - since_s) < 0.1), default=0.0)
    print(
        f"{fault} at {speed_m_s:.2f} m/s: last told to drive after {commanded_s:.3f} s, stands "
        f"after {stands_s:.3f} s"
    )
    assert stands_s <= STANDS_WITHIN_S
    assert commanded_s <= STOPS_WITHIN_S


@pytest.mark.parametrize(
    ("node", "executable"),
    [("navigator", "navigator_node"), ("path_follower", "path_follower_node"),
     ("cmd_vel_guard", "cmd_vel_guard")],
)  # fmt: skip
def test_the_base_stops_when_a_node_is_killed(graph, base, node, executable):
    parts = graph()
    drive(base)
    parts[node].node_process(executable).send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    assert_stops(base, killed_s, f"{node} killed")
    for name, part in parts.items():
        assert name == node or part.process.poll() is None, part.output


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (signal.SIGKILL, Reason.REASON_STALE_CAMERA),
        (signal.SIGUSR1, Reason.REASON_STALE_CAMERA),
        (signal.SIGUSR2, Reason.REASON_DARK_CAMERA),
    ],
    ids=["dead", "frozen", "black"],
)
def test_the_base_stops_when_the_camera_fails(
    graph, base, module_domain, monkeypatch, request, fault, reason
):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(module_domain))
    camera = subprocess.Popen([sys.executable, Path(__file__).with_name("faulty_camera.py")])
    try:
        graph(camera="/faulty/image_raw")
        result = drive(base)
        os.kill(camera.pid, fault)
        failed_s = time.monotonic()
        assert_stops(base, failed_s, f"camera {request.node.callspec.id}")
        wait_until(result.done, START_S, "the goal did not end")
        assert result.result().result.reason == reason, result.result().result.message
    finally:
        camera.kill()
        camera.wait()


def test_a_goal_without_a_way_ends_by_code(graph, base, mapped):
    way, _ = mapped
    graph()
    base.put(way, len(way.poses) - 6)
    # The map was driven in one direction only.
    result = base.navigate("0", timeout_s=90.0)
    wait_until(result.done, 2 * START_S, "the goal did not end")
    assert result.result().result.reason in (Reason.REASON_UNREACHABLE, Reason.REASON_LOST)
    assert base.stop_time_s(time.monotonic()) < 1.0


def test_a_killed_navigator_can_be_started_again_and_finds_itself(graph, started, base, mapped):
    way, path = mapped
    parts = graph()
    drive(base)
    parts["navigator"].node_process("navigator_node").send_signal(signal.SIGKILL)
    parts["navigator"].wait(10.0)
    started.start(
        "navigator", "gnm_nav", "navigator_node",
        "-p", f"robot:={ROBOT}", "-p", f"bundle:={BUNDLE}", "-p", f"map:={path}",
    )  # fmt: skip
    base.activate("navigator")
    result = base.navigate("last")
    wait_until(result.done, 3 * START_S, "the goal did not end")
    assert result.result().result.reason == Reason.REASON_REACHED, result.result().result.message
    assert base.away_m(way, way.goal) < 0.75
