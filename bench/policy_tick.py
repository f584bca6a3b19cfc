"""The policy node's own share of a tick, its rate, its memory, and the frames it misses.

    ./run python bench/policy_tick.py --duration_s 300

Starts the real policy node with either the whole simulated robot (`--graph sim`: simulation, arm
controller and policy, the arm moving) or a bare camera and state publisher (`--graph camera`: every
published frame is counted exactly). Beside it, another process calls ONNX Runtime on the same input
with the same session options and nothing around it: at the same rate, because a loop without pauses
keeps the weights in the processor's cache, and also without pauses.

Prints a table and, as its last line, `name=value` pairs.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_interfaces.action import MoveToNamedPose, RunEpisode
from policy_interfaces.msg import EndEffectorDelta, EndEffectorState
from policy_interfaces.srv import ResetScene
from policy_server.bundle import find_bundle, load_bundle
from policy_server.engine import EngineOptions, Pipeline
from policy_server.policy import ObservationBinder, example_observation
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from result_files import add_results_option, write_result
from sensor_msgs.msg import CameraInfo, Image

ROOT = Path(__file__).resolve().parents[1]
CAMERA_HZ, STATE_HZ = 30.0, 100.0
ARM = "/wx250s"
CPU_SAMPLE_S = 1.0


def bare(model: str, duration_s: float) -> None:
    """Call the models with ONNX Runtime alone at the control rate; print times as JSON."""
    bundle = load_bundle(find_bundle(model, [ROOT / "models"]))
    spec = bundle.deployment
    pipeline = Pipeline(bundle, EngineOptions())
    nodes = [spec.stages[role] for role in ("encoder", "policy") if role in spec.stages]
    feed = ObservationBinder(bundle).bind(example_observation(spec))
    sessions = []
    values: dict[str, Any] = dict(feed)
    for name in nodes:
        stage = pipeline.stages[name]
        own = {onnx_name: values[key] for onnx_name, key in stage.input_names.items()}
        sessions.append((stage.session, own))
        results = dict(zip(stage.output_keys, stage.session.run(None, own), strict=True))
        for key, destinations in bundle.data_flow.items():
            values |= {to: results[key] for to in destinations if key in results}

    def call() -> float:
        start_s = time.perf_counter()
        for session, own in sessions:
            session.run(None, own)
        return (time.perf_counter() - start_s) * 1e3

    # As the policy node's tick thread: on a busy machine the comparison would flatter it otherwise.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    period_s = 1.0 / spec.rate_hz
    paced_ms = []
    end_s = time.monotonic() + duration_s
    # Half a period away from the node's ticks would need a common clock; over minutes the two
    # processes meet rarely enough.
    while time.monotonic() < end_s:
        time.sleep(period_s)
        paced_ms.append(call())
    unpaced_ms = [call() for _ in range(300)]
    print(json.dumps({"paced_ms": paced_ms, "unpaced_ms": unpaced_ms}), flush=True)


def publish_camera(frames: int) -> None:
    """Publish so many images and states once the policy node listens, and print how many."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("camera")
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = node.create_publisher(Image, "camera/image_raw", best_effort)
    states = node.create_publisher(EndEffectorState, "end_effector_state", 1)
    message = Image(height=480, width=640, encoding="rgb8", step=3 * 640)
    message.data = array.array("B", os.urandom(480 * 640 * 3))
    state = EndEffectorState(state=[0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0])
    while images.get_subscription_count() == 0 or states.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(1.0)
    start_s = time.monotonic()
    sent_images = sent_states = 0
    while sent_images < frames:
        image_due_s = start_s + sent_images / CAMERA_HZ
        state_due_s = start_s + sent_states / STATE_HZ
        time.sleep(max(0.0, min(image_due_s, state_due_s) - time.monotonic()))
        stamp = node.get_clock().now().to_msg()
        if state_due_s <= image_due_s:
            state.header.stamp = stamp
            states.publish(state)
            sent_states += 1
        else:
            message.header.stamp = stamp
            images.publish(message)
            sent_images += 1
    print(sent_images, flush=True)
    time.sleep(1.0)


class Bench(Node):
    """Brings the nodes up, runs the episode and listens."""

    def __init__(self) -> None:
        super().__init__("bench")
        self.diagnostics: dict[str, str] = {}
        self.camera_infos = 0
        self.command_times_s: list[float] = []
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(CameraInfo, "/camera/camera_info", self._on_info, best_effort)
        for topic in ("end_effector_delta", f"{ARM}/end_effector_delta"):
            self.create_subscription(EndEffectorDelta, topic, self._on_command, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith("policy_node"):
                # Both counts at the same moment: frames in flight are the only difference.
                self.diagnostics = {item.key: item.value for item in status.values}
                self.diagnostics["camera_infos"] = str(self.camera_infos)

    def _on_info(self, message: CameraInfo) -> None:
        self.camera_infos += 1

    def _on_command(self, message: EndEffectorDelta) -> None:
        self.command_times_s.append(time.monotonic())

    def wait(self, future: Any, timeout_s: float, what: str) -> Any:
        """Return a future's result, which another thread sets."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            raise RuntimeError(f"{what}: no answer within {timeout_s:g} s")
        return future.result()

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service."""
        client: Any = self.create_client(service_type, name)
        if not client.wait_for_service(60.0):
            raise RuntimeError(f"{name}: not offered within 60 s")
        return self.wait(client.call_async(request), 60.0, name)

    def run_action(self, action_type: Any, name: str, goal: Any, timeout_s: float) -> Any:
        """Run an action to its end; return its result."""
        client: Any = ActionClient(self, action_type, name)
        if not client.wait_for_server(30.0):
            raise RuntimeError(f"{name}: not offered within 30 s")
        handle = self.wait(client.send_goal_async(goal), 30.0, name)
        return self.wait(handle.get_result_async(), timeout_s, name).result

    def activate(self, node: str) -> None:
        """Configure and activate a lifecycle node."""
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            if not self.call(ChangeState, f"{node}/change_state", request).success:
                raise RuntimeError(f"{node}: transition {transition} was refused")

    def received(self) -> tuple[int, int]:
        """Images that the policy node got, and that the camera announced, at one moment."""
        return int(self.diagnostics["images_received"]), int(self.diagnostics["camera_infos"])


class Usage:
    """Samples CPU share and resident memory of processes in a thread."""

    def __init__(self, processes: dict[str, subprocess.Popen[str]]) -> None:
        self._watched = {name: psutil.Process(item.pid) for name, item in processes.items()}
        self.memory_mb = dict.fromkeys(self._watched, 0.0)
        self.total_memory_mb = 0.0
        self._stop = threading.Event()
        for process in self._watched.values():
            process.cpu_percent()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(CPU_SAMPLE_S):
            total = 0.0
            for name, process in self._watched.items():
                resident = process.memory_info().rss / 2**20
                total += resident
                self.memory_mb[name] = max(self.memory_mb[name], resident)
            self.total_memory_mb = max(self.total_memory_mb, total)

    def finish(self) -> dict[str, float]:
        """Stop; return the mean CPU share of each process in percent of one core."""
        shares = {name: process.cpu_percent() for name, process in self._watched.items()}
        self._stop.set()
        self._thread.join()
        return shares


def start_python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a node's main function as a process of its own."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, **options)


def node_code(module: str) -> str:
    """Python code that runs a module's `main`."""
    return f"import sys; from {module} import main; sys.exit(main())"


def measure(graph: str, model: Path, task: str, duration_s: float) -> dict[str, Any]:
    """Run the graph and return everything measured."""
    remap = ["-r", f"end_effector_state:={ARM}/end_effector_state"]
    remap += ["-r", f"end_effector_delta:={ARM}/end_effector_delta"]
    processes: dict[str, subprocess.Popen[str]] = {}
    helpers: list[subprocess.Popen[str]] = []
    own = [sys.executable, __file__, "--model", str(model)]
    steps = round(duration_s * load_bundle(model).deployment.rate_hz)
    rclpy.init()
    bench = Bench()
    executor = SingleThreadedExecutor()
    executor.add_node(bench)
    spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinner.start()
    try:
        policy_arguments = ["--ros-args", "-p", f"model:={model}"]
        if graph == "sim":
            policy_arguments += remap
            in_arm = ["--ros-args", "-r", f"__ns:={ARM}"]
            simulation = node_code("robot_sim.robot_sim_node")
            processes["robot_sim"] = start_python(simulation, *in_arm)
            controller = node_code("widowx_control.arm_controller_node")
            patient = ["-p", "driver_timeout_s:=30.0"]
            processes["arm_controller"] = start_python(controller, *in_arm, *patient)
        policy_code = node_code("policy_server.policy_node")
        processes["policy_node"] = start_python(policy_code, *policy_arguments)
        camera = None
        if graph == "camera":
            # Longer than the episode, which starts after the first image.
            frames = round((duration_s + 4.0) * CAMERA_HZ)
            bench.activate("/policy_node")
            camera = subprocess.Popen(
                [*own, "--role", "camera", "--frames", str(frames)],
                stdout=subprocess.PIPE,
                text=True,
            )
            helpers.append(camera)
            _wait_for(lambda: bench.diagnostics.get("images_received", "0") != "0", 20.0)
        else:
            reset = ResetScene.Request(task=task, seed=1)
            # Answered once the simulation runs, which may take a while.
            bench.call(ResetScene, "/robot_sim/reset_scene", reset)
            bench.activate(f"{ARM}/arm_controller")
            goal = MoveToNamedPose.Goal(pose="start", open_gripper=True)
            moved = bench.run_action(MoveToNamedPose, f"{ARM}/move_to_named_pose", goal, 60.0)
            if moved.code != MoveToNamedPose.Result.CODE_REACHED:
                raise RuntimeError(f"move to start: {moved.message}")
            bench.call(ResetScene, "/robot_sim/reset_scene", reset)
            bench.activate("/policy_node")
            _wait_for(lambda: bench.diagnostics.get("images_received", "0") != "0", 20.0)
        first_received, first_announced = bench.received()
        span_s = duration_s - 2.0
        bare_call = subprocess.Popen(
            [*own, "--role", "bare", "--duration_s", str(span_s)],
            stdout=subprocess.PIPE,
            text=True,
        )
        helpers.append(bare_call)
        usage = Usage(processes)
        goal = RunEpisode.Goal(task=task, max_steps=steps, seed=1)
        result = bench.run_action(
            RunEpisode, "/policy_node/run_episode", goal, 2.0 * duration_s + 30.0
        )
        cpu = usage.finish()
        if result.steps < 2:
            raise RuntimeError(f"the episode ended after {result.steps} steps: {result.message}")
        bare_times = json.loads(bare_call.communicate(timeout=60.0)[0])
        if camera is not None:
            expected = int(camera.communicate(timeout=60.0)[0])
            time.sleep(2.5)
            lost = expected - bench.received()[0]
        else:
            time.sleep(2.5)
            received, announced = bench.received()
            expected = announced - first_announced
            lost = expected - (received - first_received)
        diagnostics = bench.diagnostics
    finally:
        # The controller takes its leave of the simulation, so it goes first.
        for process in [*reversed(processes.values()), *helpers]:
            process.terminate()
            _end(process)
        executor.shutdown()
        spinner.join(5.0)
        rclpy.try_shutdown()
    intervals_ms = np.diff(bench.command_times_s) * 1e3
    paced = bare_times["paced_ms"]
    return {
        "graph": graph,
        "duration_s": result.duration_s,
        "termination_reason": result.termination_reason,
        "message": result.message,
        "steps": result.steps,
        "rate_hz": result.rate_hz,
        "missed_ticks": result.missed_ticks,
        "command_interval_p50_ms": float(np.percentile(intervals_ms, 50)),
        "command_interval_p99_ms": float(np.percentile(intervals_ms, 99)),
        "observe_to_publish_p50_ms": float(diagnostics["observe_to_publish_p50_ms"]),
        "observe_to_publish_p99_ms": float(diagnostics["observe_to_publish_p99_ms"]),
        "inference_p50_ms": float(diagnostics["inference_p50_ms"]),
        "bare_p50_ms": float(np.percentile(paced, 50)),
        "bare_p99_ms": float(np.percentile(paced, 99)),
        "bare_unpaced_p50_ms": float(np.percentile(bare_times["unpaced_ms"], 50)),
        "frames_expected": expected,
        "frames_lost": lost,
        "memory_mb": usage.memory_mb,
        "total_memory_mb": usage.total_memory_mb,
        "cpu_percent": cpu,
    }


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(20.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def _wait_for(condition: Any, timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise RuntimeError("no camera image reached the policy node")
        time.sleep(0.05)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--graph", choices=["sim", "camera"], default="sim")
    parser.add_argument("--model", default="ptr_widowx_sim", help="bundle, path or name")
    parser.add_argument("--task", default="", help="default: the bundle's first")
    parser.add_argument("--duration_s", type=float, default=300.0)
    parser.add_argument("--role", choices=["bare", "camera"], help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=0, help=argparse.SUPPRESS)
    add_results_option(parser)
    options = parser.parse_args()
    if options.role == "bare":
        bare(options.model, options.duration_s)
        return 0
    if options.role == "camera":
        publish_camera(options.frames)
        return 0
    model = find_bundle(options.model, [ROOT / "models"]).resolve()
    task = options.task or next(iter(load_bundle(model).deployment.tasks), "")
    found = measure(options.graph, model, task, options.duration_s)
    ratio = found["observe_to_publish_p50_ms"] / found["bare_p50_ms"]
    found["ratio_p50"] = ratio
    print(f"\n{found['steps']} steps in {found['duration_s']:.1f} s: {found['message']}")
    print(f"{'process':16} {'memory MB':>10} {'CPU %':>8}")
    for name, memory_mb in found["memory_mb"].items():
        print(f"{name:16} {memory_mb:10.0f} {found['cpu_percent'][name]:8.1f}")
    print(f"{'together':16} {found['total_memory_mb']:10.0f}")
    print(f"{'time [ms]':32} {'p50':>8} {'p99':>8}")
    for label, key in (
        ("observe → publish, policy node", "observe_to_publish"),
        ("ONNX Runtime alone, same rate", "bare"),
        ("interval between commands", "command_interval"),
    ):
        print(f"{label:32} {found[f'{key}_p50_ms']:8.2f} {found[f'{key}_p99_ms']:8.2f}")
    print(f"{'ONNX Runtime alone, no pauses':32} {found['bare_unpaced_p50_ms']:8.2f}")
    content = json.dumps(found, indent=1) + "\n"
    write_result(f"policy_tick_{options.graph}.json", content, options.update_results)
    shown = {
        "ratio_p50": f"{ratio:.2f}",
        "observe_to_publish_p50_ms": f"{found['observe_to_publish_p50_ms']:.2f}",
        "bare_p50_ms": f"{found['bare_p50_ms']:.2f}",
        "rate_hz": f"{found['rate_hz']:.3f}",
        "missed_ticks": found["missed_ticks"],
        "frames_lost": found["frames_lost"],
        "frames_expected": found["frames_expected"],
        "policy_node_memory_mb": f"{found['memory_mb']['policy_node']:.0f}",
        "graph_memory_mb": f"{found['total_memory_mb']:.0f}",
        "policy_node_cpu_percent": f"{found['cpu_percent']['policy_node']:.1f}",
    }
    print(" ".join(f"{key}={value}" for key, value in shown.items()))
    ended_well = found["termination_reason"] == RunEpisode.Result.REASON_HORIZON
    return 0 if ended_well and math.isfinite(ratio) else 1


if __name__ == "__main__":
    sys.exit(main())
