"""How soon the arm stops when the policy, its controller or the driver is killed in mid-motion.

    ./run python bench/kill_response.py --kills 20

The graph of `arm:=emulated`, every node a process of its own: physics behind an emulated servo bus,
xs_driver, arm_controller, and a policy node whose random actions keep the arm moving. One of them
gets SIGKILL at a random moment and is started again for the next trial; nobody else is told.

What the servos do is asked of the emulated bus, not of the nodes. Commanded motion has ended when
no servo of the arm gets a new goal or runs a profile any more; the arm rests when no joint turns
faster than STILL_RAD_S. Both count from the signal to the sample that shows it. The gripper is left
out: it keeps its grip on purpose. Prints a table, then name=value pairs; writes a JSON file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rclpy
from emulators.control_socket import tell
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from policy_interfaces.action import MoveToNamedPose, RunEpisode
from policy_interfaces.msg import EndEffectorDelta
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from result_files import add_results_option, write_result
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

ROOT = Path(__file__).resolve().parents[1]
ARM = "/wx250s"
LIMIT_S = 0.3
STILL_RAD_S = 0.05
WATCH_S = 1.2
SAMPLE_S = 0.01
READY_S = 60.0
MOVE_ATTEMPTS = 10
MAX_DISTURBED = 100
GRIPPER_ID = 9
WATCHDOG_TRIPPED = 255
VICTIMS = ("policy", "controller", "driver")


@dataclass(frozen=True)
class Kill:
    """One trial; times from the signal, s."""

    victim: str
    commanded_s: float
    rest_s: float
    watchdogs_tripped: int
    """Servos of the arm whose bus watchdog had stopped them at the end of the trial."""


class Graph(Node):
    """The nodes as processes, and this program's own side of the ROS graph."""

    def __init__(self, folder: Path, log: Path, prefix: list[str]) -> None:
        super().__init__("kill_response")
        self._prefix = prefix
        self.deltas = 0
        self.states = 0
        self._log = log.open("a")
        self._port = folder / "ttyDXL"
        self._control = folder / "control"
        in_arm = ["--ros-args", "-r", f"__ns:={ARM}"]
        self._commands = {
            "robot_sim": (
                "robot_sim.robot_sim_node",
                [
                    *(*in_arm, "-p", f"servo_bus:={self._port}"),
                    *("-p", f"servo_bus_control:={self._control}"),
                ],
            ),
            "driver": ("widowx_control.xs_driver.node", [*in_arm, "-p", f"port:={self._port}"]),
            "controller": (
                "widowx_control.arm_controller_node",
                [*in_arm, "-p", "driver_timeout_s:=30.0", "-p", "sag_compensation:=true"],
            ),
            "policy": (
                "policy_server.policy_node",
                [
                    *("--ros-args", "-p", f"model:={ROOT / 'models' / 'ptr_widowx_sim'}"),
                    *("-p", "policy:=random"),
                    *("-r", f"end_effector_state:={ARM}/end_effector_state"),
                    *("-r", f"end_effector_delta:={ARM}/end_effector_delta"),
                ],
            ),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.create_subscription(EndEffectorDelta, f"{ARM}/end_effector_delta", self._on_delta, 10)
        self.create_subscription(JointState, f"{ARM}/joint_states", self._on_state, 10)

    def _on_delta(self, _: EndEffectorDelta) -> None:
        self.deltas += 1

    def _on_state(self, _: JointState) -> None:
        self.states += 1

    # --- processes -----------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a node and wait until it does its work."""
        module, arguments = self._commands[name]
        code = f"import sys; from {module} import main; sys.exit(main())"
        self.processes[name] = subprocess.Popen(
            [*self._prefix, sys.executable, "-c", code, *arguments],
            stdout=self._log,
            stderr=self._log,
        )
        if name == "robot_sim":
            wait_for(self._control.is_socket, READY_S, "the emulated bus did not come up")
        elif name == "driver":
            before = self.states
            wait_for(lambda: self.states > before + 20, READY_S, "no joint_states")
        else:
            node = "/policy_node" if name == "policy" else f"{ARM}/arm_controller"
            self.call(GetState, f"{node}/get_state", GetState.Request())
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                self._change_state(node, transition)

    def _change_state(self, node: str, transition: int) -> None:
        """Take a node through a transition, which it refuses while its killed twin is known."""
        request = ChangeState.Request(transition=Transition(id=transition))
        deadline_s = time.monotonic() + READY_S
        while not self.call(ChangeState, f"{node}/change_state", request).success:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{node}: transition {transition} was refused; see the log")
            time.sleep(0.5)

    def kill(self, name: str) -> float:
        """Kill a node; return when, on the steady clock."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        process.wait()
        return killed_s

    def close(self) -> None:
        """End every node, the policy first."""
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()

    # --- calls ---------------------------------------------------------------------------------

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service.

        A killed node seems to offer its services for a while. What may be asked twice is therefore
        asked again while there is no answer, and before what may not.
        """
        client: Any = self.create_client(kind, name)
        attempts = 1 if kind is ChangeState else 30
        try:
            if not client.wait_for_service(READY_S):
                raise RuntimeError(f"{name}: not offered within {READY_S:g} s")
            for _ in range(attempts):
                with contextlib.suppress(TimeoutError):
                    return self._result(client.call_async(request), READY_S / attempts, name)
            raise RuntimeError(f"{name}: no answer within {READY_S:g} s")
        finally:
            self.destroy_client(client)

    def _goal(self, kind: Any, name: str, goal: Any) -> Any:
        client: Any = ActionClient(self, kind, name)
        if not client.wait_for_server(READY_S):
            raise RuntimeError(f"{name}: not offered within {READY_S:g} s")
        return self._result(client.send_goal_async(goal), READY_S, name)

    def _result(self, future: Any, timeout_s: float, what: str) -> Any:
        wait_for(future.done, timeout_s, f"{what}: no answer")
        return future.result()

    def move(self) -> None:
        """Bring the arm to its start pose and let the policy move it."""
        deadline_s = time.monotonic() + READY_S
        while True:
            self.call(Trigger, f"{ARM}/xs_driver/rearm", Trigger.Request())
            goal = MoveToNamedPose.Goal(pose="start", open_gripper=True)
            handle = self._goal(MoveToNamedPose, f"{ARM}/move_to_named_pose", goal)
            answer = self._result(handle.get_result_async(), READY_S, "move_to_named_pose").result
            if answer.code == MoveToNamedPose.Result.CODE_REACHED:
                break
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the arm did not get to its start: {answer.message}")
            time.sleep(0.2)
        goal = RunEpisode.Goal(task="open_drawer", max_steps=500, seed=1)
        while True:
            refusal = self._why_idle(self._goal(RunEpisode, "/policy_node/run_episode", goal))
            if not refusal:
                return
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the policy does not act: {refusal}")
            time.sleep(0.2)

    def move_until(self, pause: Callable[[], None]) -> None:
        """Move, pause, and return while the arm is being commanded.

        On a busy machine the driver may meanwhile have stopped the arm: then once more.
        """
        for _ in range(MOVE_ATTEMPTS):
            self.move()
            pause()
            with contextlib.suppress(TimeoutError):
                self.wait_for_motion()
                return
        raise RuntimeError(f"the arm stopped by itself {MOVE_ATTEMPTS} times; see the log")

    def _why_idle(self, handle: Any) -> str:
        """Empty once the policy sends actions for this goal; else why it does not."""
        if not handle.accepted:
            return "it rejected the goal"
        enough = self.deltas + 3
        ended = handle.get_result_async()
        wait_for(lambda: self.deltas >= enough or ended.done(), READY_S, "no action, no end")
        return "" if self.deltas >= enough else str(ended.result().result.message)

    # --- what the servos do --------------------------------------------------------------------

    def servos(self) -> list[dict[str, Any]]:
        """The arm's servos as the emulated bus has them, without the gripper's."""
        found = json.loads(tell(self._control, "state"))
        return [servo for servo in found if servo["id"] != GRIPPER_ID]

    def wait_for_motion(self) -> None:
        """Return while goals are changing."""
        before = goals(self.servos())
        wait_for(lambda: goals(self.servos()) != before, 5.0, "the arm is not commanded")

    def watch(self, victim: str, killed_s: float) -> Kill:
        """Sample the servos until well after the limit."""
        last, commanded_s, rest_s = None, 0.0, 0.0
        while True:
            servos = self.servos()
            since_s = time.monotonic() - killed_s
            present = goals(servos)
            profile = any(servo["Velocity_Trajectory"] for servo in servos)
            if profile or (last is not None and present != last):
                commanded_s = since_s
            if any(abs(servo["velocity_rad_s"]) > STILL_RAD_S for servo in servos):
                rest_s = since_s
            last = present
            if since_s > WATCH_S:
                tripped = sum(servo["Bus_Watchdog"] == WATCHDOG_TRIPPED for servo in servos)
                return Kill(victim, commanded_s, rest_s, tripped)
            time.sleep(SAMPLE_S)


def goals(servos: list[dict[str, Any]]) -> list[int]:
    """Goal of each servo; one that its watchdog has stopped has none."""
    return [
        -1 if servo["Bus_Watchdog"] == WATCHDOG_TRIPPED else servo["Goal_Position"]
        for servo in servos
    ]


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} (waited {timeout_s:g} s)")
        time.sleep(SAMPLE_S)


class Trials:
    """The graph, put up again whenever the machine was too busy for it."""

    def __init__(self, log: Path, prefix: list[str]) -> None:
        self._log, self._prefix = log, prefix
        self._resources = contextlib.ExitStack()
        self._graph: Graph | None = None
        self.disturbed = 0
        """Trials that were made again: the driver had stopped the arm before the kill or during
        the watch, because servos answered late on a busy machine."""

    def one(self, victim: str, generator: random.Random) -> Kill:
        """Kill a node in mid-motion, watch, and start it again."""
        while True:
            try:
                graph = self._graph or self._start()
                graph.move_until(lambda: time.sleep(generator.uniform(0.0, 1.0)))
                time.sleep(generator.uniform(0.0, 0.1))
                kill = graph.watch(victim, graph.kill(victim))
                graph.start(victim)
                if victim == "driver" or not kill.watchdogs_tripped:
                    return kill
            except (RuntimeError, TimeoutError) as error:
                print(f"    once more: {error}", flush=True)
                self.close()
            self.disturbed += 1
            if self.disturbed > MAX_DISTURBED:
                raise RuntimeError("the machine is too busy for emulated servos; see the log")

    def _start(self) -> Graph:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._resources.callback(rclpy.try_shutdown)
        folder = self._resources.enter_context(tempfile.TemporaryDirectory())
        graph = Graph(Path(folder), self._log, self._prefix)
        executor = SingleThreadedExecutor()
        executor.add_node(graph)
        self._resources.callback(executor.shutdown)
        self._resources.callback(graph.close)
        threading.Thread(target=spin, args=(executor,), daemon=True).start()
        for name in ("robot_sim", "driver", "controller", "policy"):
            graph.start(name)
        self._graph = graph
        return graph

    def close(self) -> None:
        """End the nodes."""
        self._graph = None
        self._resources.close()


def measure(
    victims: list[str], kills: int, seed: int, log: Path, prefix: list[str]
) -> tuple[list[Kill], int]:
    """Kill each victim so many times; return what was found, and how often a trial was repeated."""
    generator = random.Random(seed)
    order = [victim for victim in victims for _ in range(kills)]
    generator.shuffle(order)
    trials = Trials(log, prefix)
    found: list[Kill] = []
    try:
        for number, victim in enumerate(order, 1):
            kill = trials.one(victim, generator)
            found.append(kill)
            print(
                f"{number:3}/{len(order)} {victim:12} commanded motion ends after "
                f"{kill.commanded_s:.3f} s, the arm rests after {kill.rest_s:.3f} s",
                flush=True,
            )
    finally:
        trials.close()
    return found, trials.disturbed


def spin(executor: SingleThreadedExecutor) -> None:
    """Body of the thread that runs the callbacks."""
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def main() -> int:
    """Command line; returns the exit status: 0 when every kill ended in time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each victim")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments and their order")
    parser.add_argument("--prefix", default="", help="of the nodes' commands, e.g. 'chrt -r 5'")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="output of the nodes")
    add_results_option(parser)
    options = parser.parse_args()
    prefix = shlex.split(options.prefix)
    found, disturbed = measure(options.victims, options.kills, options.seed, options.log, prefix)
    summary = {}
    print(f"\n{'killed':12} {'times':>6} {'commanded motion ends [s]':>28} {'arm rests [s]':>22}")
    print(f"{'':12} {'':>6} {'median':>14} {'worst':>13} {'median':>12} {'worst':>9}")
    for victim in options.victims:
        kills = [kill for kill in found if kill.victim == victim]
        commanded = sorted(kill.commanded_s for kill in kills)
        rest = sorted(kill.rest_s for kill in kills)
        row = {
            "kills": len(kills),
            "commanded_median_s": commanded[len(kills) // 2],
            "commanded_worst_s": commanded[-1],
            "rest_median_s": rest[len(kills) // 2],
            "rest_worst_s": rest[-1],
            "in_time": sum(time_s <= LIMIT_S for time_s in commanded),
        }
        summary[victim] = row
        print(
            f"{victim:12} {len(kills):6} {row['commanded_median_s']:14.3f} "
            f"{row['commanded_worst_s']:13.3f} {row['rest_median_s']:12.3f} "
            f"{row['rest_worst_s']:9.3f}"
        )
    result = {
        "command": " ".join(["bench/kill_response.py", *sys.argv[1:]]),
        "limit_s": LIMIT_S,
        "seed": options.seed,
        "repeated_trials": disturbed,
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "summary": summary,
        "kills": [asdict(kill) for kill in found],
    }
    content = json.dumps(result, indent=1) + "\n"
    write_result("kill_response.json", content, options.update_results)
    pairs = {
        f"{victim}_worst_s": f"{row['commanded_worst_s']:.3f}" for victim, row in summary.items()
    }
    in_time = sum(row["in_time"] for row in summary.values())
    print(" ".join(f"{k}={v}" for k, v in {**pairs, "in_time": f"{in_time}/{len(found)}"}.items()))
    stopped_by_servos = all(k.watchdogs_tripped == 8 for k in found if k.victim == "driver")
    return 0 if in_time == len(found) and stopped_by_servos else 1


if __name__ == "__main__":
    sys.exit(main())
