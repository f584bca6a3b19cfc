"""How long a base is still driven after each fault in the chain that drives it.

    ./run python bench/base_stop_times.py --repeats 10

Starts the real processes: a controller that commands 0.3 m/s at 50 Hz, as the path follower does,
the guard with the time-out that navigation gives it, the Kobuki driver
and the emulated Kobuki; then controller, guard, Go2 driver, its keeper and the emulated sport
service. Each fault is done while the base drives, and the time is taken until the base is told to
rest: on the serial line of the Kobuki, on `/api/sport/request` of the Go2. For the Kobuki also the
time until its wheels stand.

Prints a table and, as its last line, `name=value` pairs; writes `base_stop_times.md` and
`.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from base_drivers.go2.sport_service import Api
from base_drivers.kobuki_emulator.remote import RemoteKobuki
from base_drivers.velocity import STREAM_TIMEOUT_S
from geometry_msgs.msg import Twist
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from result_files import add_results_option, write_result
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from unitree_api.msg import Request

ROOT = Path(__file__).resolve().parents[1]
SPEED_M_S = 0.3
LIMIT_S = 0.3
START_S = 60.0
STEADY_S = 0.5
REST_M_S = 0.01
CONTROLLER = f"""
import time, rclpy
from geometry_msgs.msg import Twist
rclpy.init()
node = rclpy.create_node("controller")
commands = node.create_publisher(Twist, "cmd_vel_nav", 1)
message = Twist()
message.linear.x = {SPEED_M_S}
while True:
    commands.publish(message)
    time.sleep(0.02)
"""
GUARD = ("--ros-args", "-p", f"command_timeout_s:={STREAM_TIMEOUT_S}")


class Chain(Node):
    """The processes between a controller and a base, and what happens on the way."""

    def __init__(self, kind: str) -> None:
        super().__init__("bench")
        self.kind = kind
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts = 0
        self._driving_since_s: float | None = None
        self.rests_s: list[float] = []
        self.emergency = self.create_publisher(Bool, "cmd_vel_guard/emergency_stop", 1)
        self.commands = self.create_publisher(Twist, "cmd_vel_nav", 1)
        self.create_subscription(Odometry, "odom", self._on_odometry, 1)
        self.create_subscription(Request, "/api/sport/request", self._on_request, 100)

    def _on_odometry(self, message: Odometry) -> None:
        if message.twist.twist.linear.x <= 0.9 * SPEED_M_S:
            self._driving_since_s = None
        elif self._driving_since_s is None:
            self._driving_since_s = time.monotonic()

    def stopped(self) -> None:
        """Forget that it drives: what was shown last may be the speed of a dead driver."""
        self._driving_since_s = None

    @property
    def drives(self) -> bool:
        """It has driven for longer than braking takes."""
        since_s = self._driving_since_s
        return since_s is not None and time.monotonic() - since_s > STEADY_S

    def _on_request(self, message: Request) -> None:
        if message.header.identity.api_id == Api.STOP_MOVE:
            # Numbered by the steady time of sending: this process may hear them late.
            self.rests_s.append(message.header.identity.id * 1e-9)

    def start(self, name: str, *arguments: str, active: bool = False) -> None:
        """Start a node of base_drivers, or start it again; `active`: bring it up, too."""
        node = name
        if name in self.processes:
            # The services of a killed node seem to be there for a while: this one has others.
            self._restarts += 1
            node = f"{name}_{self._restarts}"
            own = ["-r", f"__node:={node}"]
            arguments = (*arguments, *([] if arguments else ["--ros-args"]), *own)
        command = [sys.executable, "-m", f"base_drivers.{name}", *arguments]
        if name == "controller":
            command = [sys.executable, "-c", CONTROLLER]
        self.processes[name] = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if active:
            # A server drops its answer to a client that it does not know yet.
            while self.call(GetState, f"/{node}/get_state", GetState.Request(), 2.0) is None:
                continue
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                request = ChangeState.Request(transition=Transition(id=transition))
                answer = self.call(ChangeState, f"/{node}/change_state", request)
                if answer is None or not answer.success:
                    raise RuntimeError(f"{name}: transition {transition} was refused")

    def call(self, kind: Any, service: str, request: Any, timeout_s: float = START_S) -> Any:
        """Call a service; None: no answer came in time."""
        client: Any = self.create_client(kind, service)
        if not client.wait_for_service(START_S):
            raise RuntimeError(f"{service}: not offered within {START_S:g} s")
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        return future.result() if done.wait(timeout_s) else None

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of the processes."""
        self.processes[name].send_signal(number)

    def end(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = START_S) -> Any:
    """Wait for a condition and return its value."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.002)
    return value


@contextmanager
def spinning(kind: str) -> Iterator[Chain]:
    """A chain whose node is spun in a thread."""
    rclpy.init()
    chain = Chain(kind)
    executor = SingleThreadedExecutor()
    executor.add_node(chain)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield chain
    finally:
        chain.end()
        executor.shutdown()
        thread.join(5.0)
        rclpy.try_shutdown()


def bad_command(chain: Chain) -> None:
    """What a broken controller sends, and no more: the next good command would drive again."""
    chain.kill("controller")
    message = Twist()
    message.linear.x = float("nan")
    chain.commands.publish(message)


def press(chain: Chain) -> None:
    """Press the emergency stop."""
    chain.emergency.publish(Bool(data=True))


def release(chain: Chain) -> None:
    """Let go of the emergency stop and arm the guard again."""
    chain.emergency.publish(Bool(data=False))

    def rearmed() -> bool:
        answer = chain.call(Trigger, "/cmd_vel_guard/rearm", Trigger.Request())
        return answer is not None and bool(answer.success)

    wait_for(rearmed, "re-arm")


Fault = tuple[str, Callable[[Chain], Any], Callable[[Chain], Any]]


def common_faults(driver: str, arguments: list[str]) -> list[Fault]:
    """Faults of every base: name, what breaks, how it is mended."""
    return [
        ("emergency stop pressed", press, release),
        ("command with NaN", bad_command, lambda chain: chain.start("controller")),
        (
            "kill -9 controller",
            lambda chain: chain.kill("controller"),
            lambda chain: chain.start("controller"),
        ),
        (
            "kill -9 guard",
            lambda chain: chain.kill("cmd_vel_guard"),
            lambda chain: chain.start("cmd_vel_guard", *GUARD, active=True),
        ),
        (
            f"kill -9 {driver}",
            lambda chain: chain.kill(driver),
            lambda chain: chain.start(driver, *arguments, active=True),
        ),
        (
            f"{driver} hangs (SIGSTOP)",
            lambda chain: chain.kill(driver, signal.SIGSTOP),
            lambda chain: chain.kill(driver, signal.SIGCONT),
        ),
    ]


def kobuki(repeats: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Times of the Kobuki's chain by fault: `told_ms` and `standing_ms`."""
    with tempfile.TemporaryDirectory() as folder, RemoteKobuki(Path(folder)) as emulator:
        arguments = ["--ros-args", "-p", f"port:={emulator.port}"]
        with spinning("kobuki") as chain:
            chain.start("kobuki_driver", *arguments, active=True)
            chain.start("cmd_vel_guard", *GUARD, active=True)
            chain.start("controller")
            faults = [
                *common_faults("kobuki_driver", arguments),
                (
                    "bumper pressed",
                    lambda chain: emulator.tell("bumper center"),
                    lambda chain: emulator.tell("bumper none"),
                ),
                (
                    "no floor ahead",
                    lambda chain: emulator.tell("cliff center"),
                    lambda chain: emulator.tell("cliff none"),
                ),
            ]
            times: dict[str, dict[str, list[float]]] = {}
            pause = random.Random(seed)
            for name, breaks, mends in faults:
                times[name] = {"told_ms": [], "standing_ms": []}
                for _ in range(repeats):
                    wait_for(
                        lambda: emulator.state()["speed_m_s"] > 0.9 * SPEED_M_S, f"before {name}"
                    )
                    # Between two commands, at any phase.
                    time.sleep(pause.uniform(0.1, 0.2))
                    emulator.commands()
                    broken_s = time.monotonic()
                    breaks(chain)
                    log: list[tuple[float, float, float]] = []

                    def told(
                        log: list[tuple[float, float, float]] = log, since_s: float = broken_s
                    ) -> float | None:
                        log.extend(emulator.commands())
                        return next((at for at, x, _ in log if at > since_s and x == 0.0), None)

                    told_s = wait_for(told, name, 5.0)
                    times[name]["told_ms"].append((told_s - broken_s) * 1e3)
                    wait_for(lambda: abs(emulator.state()["speed_m_s"]) < REST_M_S, name, 5.0)
                    times[name]["standing_ms"].append((time.monotonic() - broken_s) * 1e3)
                    mends(chain)
            return times


def go2(repeats: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Times of the Go2's chain by fault: `told_ms`."""
    with spinning("go2") as chain:
        chain.start("go2_emulator", "--ros-args", "-p", "mode:=1")
        chain.start("go2_stop_keeper")
        chain.start("go2_driver", active=True)
        chain.start("cmd_vel_guard", *GUARD, active=True)
        chain.start("controller")
        times: dict[str, dict[str, list[float]]] = {}
        pause = random.Random(seed)
        for name, breaks, mends in common_faults("go2_driver", []):
            times[name] = {"told_ms": []}
            for _ in range(repeats):
                wait_for(lambda: chain.drives, f"before {name}")
                time.sleep(pause.uniform(0.1, 0.2))
                broken_s = time.monotonic()
                breaks(chain)

                def told(since_s: float = broken_s) -> float | None:
                    return next((at for at in chain.rests_s if at > since_s), None)

                times[name]["told_ms"].append((wait_for(told, name, 5.0) - broken_s) * 1e3)
                chain.stopped()
                mends(chain)
        return times


def table(base: str, times: dict[str, dict[str, list[float]]]) -> list[str]:
    """Rows of a Markdown table."""
    rows = [
        f"| {base}: fault | told to rest, median [ms] | longest [ms] | wheels stand [ms] |",
        "|---|---|---|---|",
    ]
    for name, found in times.items():
        standing = found.get("standing_ms")
        rows.append(
            f"| {name} | {np.median(found['told_ms']):.0f} | {max(found['told_ms']):.0f} | "
            f"{max(standing):.0f} |"
            if standing
            else f"| {name} | {np.median(found['told_ms']):.0f} | {max(found['told_ms']):.0f} | |"
        )
    return rows


def main() -> int:
    """Run the bench; 1 when a base was driven for longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bases", nargs="+", default=["kobuki", "go2"], choices=["kobuki", "go2"])
    add_results_option(parser)
    options = parser.parse_args()
    measure = {"kobuki": kobuki, "go2": go2}
    found = {base: measure[base](options.repeats, options.seed) for base in options.bases}
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    lines = [
        f"{options.repeats} repeats each, {SPEED_M_S:g} m/s, {os.cpu_count()} processors, "
        f"load {load:.1f} per processor at the end",
        "",
    ]
    for base, times in found.items():
        lines += [*table(base, times), ""]
    print("\n".join(lines))
    write_result("base_stop_times.md", "\n".join(lines), options.update_results)
    content = json.dumps(found, indent=1) + "\n"
    write_result("base_stop_times.json", content, options.update_results)
    longest = {
        base: max(max(times["told_ms"]) for times in faults.values())
        for base, faults in found.items()
    }
    standing = [time for times in found.get("kobuki", {}).values() for time in times["standing_ms"]]
    shown = [f"{base}_longest_ms={value:.0f}" for base, value in longest.items()]
    if standing:
        shown.append(f"kobuki_longest_standing_ms={max(standing):.0f}")
    print(" ".join(shown))
    return 0 if max(longest.values()) <= LIMIT_S * 1e3 else 1


if __name__ == "__main__":
    sys.exit(main())
