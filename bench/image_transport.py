"""Camera frames lost and their latency between two processes, per transport setting and QoS.

    ./run python bench/image_transport.py --duration_s 10

A publisher and a subscriber process exchange numbered 640x480 RGB images at 30 Hz. Prints a table
and, as its last line, `name=value` pairs for the setting that `./run` uses.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from result_files import add_results_option, write_result
from sensor_msgs.msg import Image

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30.0
TOPIC = "bench/image_transport/image"
PROFILE = "profile (./run)"
SETTINGS = {
    "default": {},
    "default, LOCALHOST": {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
    "LARGE_DATA": {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
    "LARGE_DATA 1 MB": {
        "FASTDDS_BUILTIN_TRANSPORTS": (
            "LARGE_DATA?max_msg_size=1MB&sockets_size=1MB&non_blocking=true"
        )
    },
    "LARGE_DATA 1 MB, LOCALHOST": {
        "FASTDDS_BUILTIN_TRANSPORTS": (
            "LARGE_DATA?max_msg_size=1MB&sockets_size=1MB&non_blocking=true"
        ),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    },
    "UDPv4": {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"},
    PROFILE: {
        "FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "tools" / "fastdds_profile.xml"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    },
}
_VARIABLES = (
    "FASTDDS_BUILTIN_TRANSPORTS",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_LOCALHOST_ONLY",
)
RELIABILITY = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}
# As in the graph: a camera keeps only its newest frame, the policy node takes every one.
PUBLISHER_DEPTH, SUBSCRIBER_DEPTH = 1, 10


@dataclass(frozen=True)
class Row:
    """Result of one setting. Latency is from publish to callback."""

    setting: str
    reliability: str
    frames_expected: int
    frames_lost: int
    latency_p50_ms: float
    latency_p99_ms: float


def publish(reliability: str, duration_s: float) -> None:
    """Publish numbered images until the time is over."""
    # No signal handler: the benchmark ends this process with SIGTERM.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("camera")
    publisher = node.create_publisher(
        Image, TOPIC, QoSProfile(depth=PUBLISHER_DEPTH, reliability=RELIABILITY[reliability])
    )
    message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    message.data = array.array("B", os.urandom(HEIGHT * 3 * WIDTH))
    end_s = time.monotonic() + duration_s
    due_s = time.monotonic()
    number = 0
    while time.monotonic() < end_s:
        message.header.frame_id = str(number)
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        number += 1
        due_s += 1.0 / RATE_HZ
        time.sleep(max(0.0, due_s - time.monotonic()))
    rclpy.try_shutdown()


def subscribe(reliability: str, duration_s: float) -> None:
    """Count images for a while; print a JSON object."""
    rclpy.init()
    node = Node("consumer")
    numbers: list[int] = []
    latencies_ms: list[float] = []

    def receive(message: Image) -> None:
        now = node.get_clock().now().nanoseconds
        stamp = message.header.stamp
        latencies_ms.append((now - stamp.sec * 10**9 - stamp.nanosec) * 1e-6)
        numbers.append(int(message.header.frame_id))

    qos = QoSProfile(depth=SUBSCRIBER_DEPTH, reliability=RELIABILITY[reliability])
    node.create_subscription(Image, TOPIC, receive, qos)
    start_s = time.monotonic()
    while not numbers and time.monotonic() - start_s < 10.0:
        rclpy.spin_once(node, timeout_sec=0.1)
    first = numbers[0] if numbers else 0
    end_s = time.monotonic() + duration_s
    while time.monotonic() < end_s:
        rclpy.spin_once(node, timeout_sec=0.1)
    # By time, not by the last number: a connection that broke down has lost the rest.
    expected = max(round(duration_s * RATE_HZ), numbers[-1] - first + 1 if numbers else 0)
    result = {
        "frames_expected": expected,
        "frames_lost": max(0, expected - len(numbers)),
        "latency_p50_ms": float(np.percentile(latencies_ms, 50)) if numbers else None,
        "latency_p99_ms": float(np.percentile(latencies_ms, 99)) if numbers else None,
    }
    print(json.dumps(result), flush=True)
    node.destroy_node()
    rclpy.shutdown()


def measure(setting: str, reliability: str, duration_s: float, domain: int) -> Row:
    """Run publisher and subscriber under one setting."""
    environment = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    environment |= SETTINGS[setting] | {"ROS_DOMAIN_ID": str(domain)}
    command = [sys.executable, __file__, "--reliability", reliability]

    def start(role: str, span_s: float, **arguments: Any) -> subprocess.Popen[str]:
        extra = ["--role", role, "--duration_s", str(span_s)]
        return subprocess.Popen([*command, *extra], env=environment, text=True, **arguments)

    publisher = start("publish", duration_s + 13.0)
    try:
        subscriber = start("subscribe", duration_s, stdout=subprocess.PIPE)
        output, _ = subscriber.communicate(timeout=duration_s + 30.0)
    finally:
        publisher.terminate()
        publisher.wait(10.0)
    return Row(setting=setting, reliability=reliability, **json.loads(output.splitlines()[-1]))


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration_s", type=float, default=10.0)
    parser.add_argument("--role", choices=["publish", "subscribe"], help=argparse.SUPPRESS)
    parser.add_argument("--reliability", choices=list(RELIABILITY), help=argparse.SUPPRESS)
    parser.add_argument("--domain", type=int, default=80, help="first ROS domain to use")
    add_results_option(parser)
    options = parser.parse_args()
    if options.role == "publish":
        publish(options.reliability, options.duration_s)
        return 0
    if options.role == "subscribe":
        subscribe(options.reliability, options.duration_s)
        return 0
    rows: list[Row] = []
    print(f"{'setting':28} {'QoS':12} {'lost':>12} {'p50 ms':>8} {'p99 ms':>8}")
    for setting in SETTINGS:
        for reliability in RELIABILITY:
            row = measure(setting, reliability, options.duration_s, options.domain + len(rows))
            rows.append(row)
            print(
                f"{setting:28} {reliability:12} {row.frames_lost:5d} of {row.frames_expected:3d} "
                f"{row.latency_p50_ms or float('nan'):8.2f} "
                f"{row.latency_p99_ms or float('nan'):8.2f}",
                flush=True,
            )
    content = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    write_result("image_transport.json", content, options.update_results)
    used = next(row for row in rows if (row.setting, row.reliability) == (PROFILE, "best_effort"))
    print(
        f"frames_lost={used.frames_lost} frames_expected={used.frames_expected} "
        f"latency_p50_ms={used.latency_p50_ms:.2f} latency_p99_ms={used.latency_p99_ms:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
