"""What the guard costs: time of its decision, added latency of a command, share of a core.

    ./run python bench/arm_guard.py --duration_s 60

Three processes exchange real messages: a stand-in for the driver publishes joint_states at 100 Hz,
a sender streams joint positions at 50 Hz, and the guard is between them. The same stream then goes
to the driver directly; the difference is the guard's. Prints a table, then name=value lines; writes
`arm_guard.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import rclpy
from interbotix_xs_msgs.msg import JointGroupCommand
from interbotix_xs_msgs.srv import RegisterValues
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from result_files import add_results_option, write_result
from sensor_msgs.msg import JointState
from widowx_control.guard.checks import GuardConfig
from widowx_control.guard.core import CommandTimes, Guard, Measurement
from widowx_control.kinematics import JOINT_NAMES, NAMED_POSES

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "/wx250s"
PERIOD_S = 0.02
START = np.array(NAMED_POSES["start"])
SWING_RAD = np.array([0.4, 0.2, 0.2, 0.3, 0.3, 0.3])
HEALTHY = {"Present_Temperature": 35, "Present_Input_Voltage": 120, "Hardware_Error_Status": 0}


class Driver(Node):
    """Publishes the last command as the measured pose, and answers for healthy servos."""

    def __init__(self, context: Context) -> None:
        super().__init__("stand_in_driver", context=context, namespace=NAMESPACE)
        self._q = START.tolist()
        self.arrivals: dict[bytes, float] = {}
        self._states = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(JointGroupCommand, "commands/joint_group", self._on_command, 10)
        self.create_service(RegisterValues, "get_motor_registers", self._registers)
        self.create_timer(0.01, self._publish)

    def _on_command(self, message: JointGroupCommand) -> None:
        now_s = time.monotonic()
        self.arrivals.setdefault(message.cmd.tobytes(), now_s)
        self._q = message.cmd.tolist()

    def _registers(
        self, request: RegisterValues.Request, response: RegisterValues.Response
    ) -> RegisterValues.Response:
        response.values = [HEALTHY[request.reg]] * (7 if request.cmd_type == "group" else 1)
        return response

    def _publish(self) -> None:
        message = JointState(
            name=[*JOINT_NAMES, "gripper", "left_finger", "right_finger"],
            position=[*self._q, 0.5, 0.03, -0.03],
            effort=[0.0] * 9,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)


def pose(time_s: float) -> np.ndarray:
    """Joint positions of the stream: no two are equal, and all stay within the guard's limits."""
    swing = np.sin(2 * np.pi * (0.23 + 0.03 * np.arange(6)) * time_s)
    return START + SWING_RAD * swing * np.exp(-1e-3 * time_s)


def measure(domain: int, guarded: bool, duration_s: float) -> tuple[np.ndarray, float, float]:
    """Return latencies [s], the share of commands lost or changed, and the guard's share of a core.

    Raises:
        RuntimeError: nothing arrived.
    """
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    driver = Driver(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(driver)
    threading.Thread(target=executor.spin, daemon=True).start()
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    node = ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
    guard = None
    if guarded:
        command = [sys.executable, "-m", "widowx_control.guard.node", *node]
        guard = subprocess.Popen(command, env=environment)
    topic = "guarded/joint_group" if guarded else "commands/joint_group"
    command = [sys.executable, __file__, "--send", topic, "--duration_s", str(duration_s)]
    sender = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        begun = time.monotonic()
        while not driver.arrivals and time.monotonic() - begun < 60.0:
            time.sleep(0.01)
        process = psutil.Process(guard.pid) if guard else None
        used = sum(process.cpu_times()[:2]) if process else 0.0
        since = time.monotonic()
        text, _ = sender.communicate(timeout=duration_s + 120.0)
        share = 0.0
        if process:
            share = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - since)
    finally:
        if guard is not None:
            guard.terminate()
            guard.wait(10)
        executor.shutdown(timeout_sec=2.0)
        driver.destroy_node()
        rclpy.shutdown(context=context)
    sent = [line.split() for line in text.splitlines()]
    known = {bytes.fromhex(key): float(at_s) for key, at_s in sent}
    first = next((i for i, key in enumerate(known) if key in driver.arrivals), None)
    if first is None:
        raise RuntimeError("no command arrived unchanged")
    expected = list(known)[first:]
    latencies = [driver.arrivals[k] - known[k] for k in expected if k in driver.arrivals]
    return np.array(latencies), 1 - len(latencies) / len(expected), share


def send(topic: str, duration_s: float) -> None:
    """Stream at 50 Hz, and print for each command its bytes and when it was sent."""
    rclpy.init()
    node = rclpy.create_node("sender", namespace=NAMESPACE)
    publisher = node.create_publisher(JointGroupCommand, topic, 10)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.02)
    time.sleep(3.0)  # until the other side knows this publisher and the pose of the arm
    lines = []
    begun = due = time.monotonic()
    while due - begun < duration_s:
        time.sleep(max(0.0, due - time.monotonic()))
        message = JointGroupCommand(name="arm", cmd=pose(due - begun).tolist())
        lines.append(f"{message.cmd.tobytes().hex()} {time.monotonic():.6f}")
        publisher.publish(message)
        due += PERIOD_S
    time.sleep(1.0)
    print("\n".join(lines))
    node.destroy_node()
    rclpy.shutdown()


def decision_times(commands: int) -> np.ndarray:
    """Return the seconds that the guard's core takes for a command, every check included."""
    guard = Guard(GuardConfig())
    times = []
    for i in range(commands):
        now_s = 100.0 + i * PERIOD_S
        wanted = pose(i * PERIOD_S)
        guard.on_joint_states(Measurement(wanted, 0.03, np.zeros(6)), now_s, now_s)
        for _ in range(16):
            question = guard.health.next_question()
            values = [HEALTHY[question.register]] * len(question.servos)
            guard.health.answer(question, values, now_s)
        values = wanted.tolist()
        begun = time.perf_counter()
        guard.on_arm_command("arm", values, CommandTimes(now_s, now_s, 0.001, now_s))
        times.append(time.perf_counter() - begun)
    if guard.counters["passed"] < commands - 1:
        raise RuntimeError(f"the stream did not pass: {guard.counters}")
    return np.array(times)


def quantiles_ms(seconds: np.ndarray) -> dict[str, float]:
    """Return p50, p95, p99 and the maximum in ms."""
    p50, p95, p99, worst = np.percentile(seconds, [50, 95, 99, 100]) * 1e3
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(worst)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--duration_s", type=float, default=30.0)
    parser.add_argument("--domain", type=int, default=77)
    parser.add_argument("--send", help=argparse.SUPPRESS)
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.send:
        send(arguments.send, arguments.duration_s)
        return
    result: dict[str, object] = {"duration_s": arguments.duration_s, "cores": os.cpu_count()}
    rows = {"decision": quantiles_ms(decision_times(3000))}
    for name, guarded in (("direct", False), ("guarded", True)):
        latencies, lost, share = measure(arguments.domain + guarded, guarded, arguments.duration_s)
        rows[name] = quantiles_ms(latencies)
        result[f"{name}_lost_or_changed"] = lost
        if guarded:
            result["guard_cpu_share"] = share
    rows["added"] = {key: rows["guarded"][key] - rows["direct"][key] for key in rows["direct"]}
    print(f"{'ms':<10}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
    for name, row in rows.items():
        print(f"{name:<10}" + "".join(f"{row[key]:8.2f}" for key in ("p50", "p95", "p99", "max")))
    for name, row in rows.items():
        result |= {f"{name}_{key}_ms": value for key, value in row.items()}
    for key, value in result.items():
        print(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    content = json.dumps(result, indent=2) + "\n"
    write_result("arm_guard.json", content, arguments.update_results)


if __name__ == "__main__":
    main()
