"""Cycle rate, command latency and fault reactions of xs_driver on the emulated 1 Mbaud bus.

    python bench/servo_bus.py --duration_s 60

Driver and emulator run as processes of their own; this program is a ROS client. Latency is from
the publish call to the last byte of the goal on the wire, both on the steady clock. Where the
system allows it, emulator and client run at real-time priority, and so do the kernel's workers that
carry the bytes of a pseudo-terminal: servos do not wait for a busy computer. A second measurement
has the driver and those workers at ordinary priority. Prints tables, then name=value lines; writes
`servo_bus.json`.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import functools
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from interbotix_xs_msgs.msg import JointGroupCommand
from interbotix_xs_msgs.srv import Reboot, RegisterValues
from node_common.realtime import prefer_process, settle_process
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from result_files import add_results_option, write_result
from sensor_msgs.msg import JointState
from servo_bus_emulator.remote import RemoteServoBus
from std_srvs.srv import Trigger
from widowx_control.xs_driver.units import ticks_from_rad

SYNC_WRITE = 0x83
GOAL_POSITION = 116
PROFILE_ACCELERATION = 108
ARM_IDS = (1, 2, 4, 6, 7, 8)
"""Servos of the group `arm`, in its order."""
SHADOW_OF = {3: 2, 5: 4}
STILL_RAD_S = 0.05
"""Below this a joint only settles; the moves have 0.2 rad/s and more."""
ORDINARY_DURATION_S = 60.0
LINE_COMMANDS = 40
RECONNECTIONS = 5
DRIVER_PRIORITY = 20
CLIENT_PRIORITY = 15
KERNEL_WORKER_PRIORITY = 10


class Client(Node):
    """A client of the driver that keeps what it hears."""

    def __init__(self, context: Context) -> None:
        super().__init__("servo_bus_bench", context=context, namespace="/wx250s")
        self.state_times: list[float] = []
        self.states: deque[tuple[float, list[str], list[float]]] = deque(maxlen=100_000)
        self.bus: dict[str, str] = {}
        self.servo_messages: dict[str, str] = {}
        self.create_subscription(JointState, "joint_states", self._on_states, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.group = self.create_publisher(JointGroupCommand, "commands/joint_group", 10)

    def _on_states(self, message: JointState) -> None:
        self.state_times.append(time.monotonic())
        self.states.append((self.state_times[-1], list(message.name), list(message.position)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.rpartition("xs_driver: ")[2]
            if name == "bus":
                self.bus = {entry.key: entry.value for entry in status.values}
            else:
                self.servo_messages[name] = status.message

    def call(self, kind: Any, service: str, /, **fields: Any) -> Any:
        client: Any = self.create_client(kind, service)
        if not client.wait_for_service(timeout_sec=20.0):
            raise RuntimeError(f"the driver offers no {service}")
        future = client.call_async(kind.Request(**fields))
        wait_for(future.done, 30.0, service)
        self.destroy_client(client)
        return future.result()


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> float:
    """Wait for a condition and return the time at which it was true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return time.monotonic()
        time.sleep(0.002)
    raise RuntimeError(f"{what} did not happen within {timeout_s} s")


@contextlib.contextmanager
def preferred_kernel_workers() -> Iterator[bool]:
    """Give real-time priority to the kernel's unbound workers, which carry a terminal's bytes.

    Yields whether that is allowed. They come and go, so a thread looks for new ones.
    """
    done = threading.Event()
    changed: set[int] = set()

    def prefer() -> None:
        for word in Path("/proc/2/task/2/children").read_text().split():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if not Path(f"/proc/{word}/comm").read_text().startswith("kworker/u"):
                    continue
                if os.sched_getscheduler(int(word)) == os.SCHED_OTHER:
                    priority = os.sched_param(KERNEL_WORKER_PRIORITY)
                    os.sched_setscheduler(int(word), os.SCHED_FIFO, priority)
                    changed.add(int(word))

    def keep_on() -> None:
        while not done.wait(0.5):
            prefer()

    allowed = True
    try:
        prefer()
    except OSError:
        allowed = False
    thread = threading.Thread(target=keep_on, daemon=True)
    if allowed:
        thread.start()
    try:
        yield allowed
    finally:
        done.set()
        if allowed:
            thread.join()
        for worker in changed:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(worker, os.SCHED_OTHER, os.sched_param(0))


@dataclass
class Reaction:
    """Times from a fault, ms; None where it does not apply or did not happen."""

    fault: str
    stop_sent_ms: float | None
    command_ended_ms: float | None
    joints_still_ms: float | None
    diagnosed_ms: float | None
    state: str


@dataclass
class Delivery:
    """Times from publishing a command until every servo has the goal, on a damaged line."""

    line: str
    commands: int
    p50_ms: float
    max_ms: float
    goals_resent: int
    published_hz: float
    state: str


class Bench:
    """Emulator, driver process and client."""

    def __init__(self, folder: Path) -> None:
        os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 90 + 110)
        self.emulator = RemoteServoBus(folder)
        self.emulator.start()
        self.context = Context()
        rclpy.init(context=self.context)
        self.client = Client(self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        threading.Thread(target=self.executor.spin, daemon=True).start()
        self.driver: subprocess.Popen[bytes] | None = None
        # The client shall not be what is measured.
        settle_process()
        prefer_process(CLIENT_PRIORITY)

    def start_driver(self, realtime_priority: int = DRIVER_PRIORITY) -> None:
        command = [sys.executable, "-m", "widowx_control.xs_driver.node", "--ros-args"]
        command += ["-r", "__ns:=/wx250s", "-p", f"port:={self.emulator.port}"]
        command += ["-p", f"realtime_priority:={realtime_priority}"]
        known = len(self.client.state_times)
        ordinary = functools.partial(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0))
        self.driver = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Not at this program's priority.
            preexec_fn=ordinary,
        )
        wait_for(lambda: len(self.client.state_times) > known + 20, 180.0, "joint_states")
        wait_for(lambda: self.client.group.get_subscription_count() > 0, 20.0, "a connection")

    def stop_driver(self) -> None:
        if self.driver is not None:
            self.driver.terminate()
            self.driver.wait()
            self.driver = None

    def close(self) -> None:
        self.stop_driver()
        self.executor.shutdown()
        self.context.try_shutdown()
        self.emulator.stop()

    def move(self, *target: float) -> None:
        self.client.group.publish(JointGroupCommand(name="arm", cmd=target))

    def set_profile(self, total_ms: int, ramp_ms: int) -> None:
        for register, value in (("Profile_Velocity", total_ms), ("Profile_Acceleration", ramp_ms)):
            fields = {"cmd_type": "group", "name": "arm", "reg": register, "value": value}
            self.client.call(RegisterValues, "set_motor_registers", **fields)

    def counters(self) -> dict[str, int]:
        """Return fresh counters of the cycle."""
        self.client.bus = {}
        wait_for(lambda: self.client.bus, 5.0, "diagnostics")
        names = ("cycles", "lost_cycles", "late_cycles", "goals_resent", "bus_corrupt")
        return {name: int(self.client.bus[name]) for name in names}

    def goals_on_the_wire(self) -> list[tuple[float, dict[int, int]]]:
        """Return the goals written to servos, with the time of the last byte, since last asked."""
        found = []
        for at, _, code, parameters in json.loads(self.emulator.tell("writes")):
            raw = bytes.fromhex(parameters)
            if code == SYNC_WRITE and int.from_bytes(raw[:2], "little") == GOAL_POSITION:
                goals = {
                    raw[i]: int.from_bytes(raw[i + 1 : i + 5], "little", signed=True)
                    for i in range(4, len(raw), 5)
                }
                found.append((at, goals))
        return found

    # --- rate, latency, noise ------------------------------------------------------------------

    def rate_and_latency(self, duration_s: float, seed: int) -> dict[str, float]:
        """Stream commands at 50 Hz and return the figures."""
        self.set_profile(40, 10)
        rng = random.Random(seed)
        before = self.counters()
        self.emulator.tell("stalls")
        cycles_from = time.monotonic()
        self.goals_on_the_wire()
        start = time.monotonic()
        first = len(self.client.state_times)
        latencies: list[float] = []
        sent: dict[int, float] = {}
        lost = 0
        due = start
        ticks = itertools.cycle([*range(1500, 2600), *range(2600, 1500, -1)])
        while time.monotonic() < start + duration_s:
            tick = next(ticks)
            angle = (tick - 2048) * math.pi / 2048
            sent[tick] = time.monotonic()
            self.move(angle, -1.0, 1.0, 0.0, 0.5, 0.0)
            # Random phase against the driver's cycle.
            due += 0.02
            time.sleep(max(0.0, due + rng.uniform(0.0, 0.008) - time.monotonic()))
            if len(sent) >= 500:
                lost += self._match(sent, latencies)
                due = time.monotonic()
        time.sleep(0.2)
        lost += self._match(sent, latencies)
        seconds = time.monotonic() - start
        states = len(self.client.state_times) - first
        gaps = np.diff(self.client.state_times[first:])
        after = self.counters()
        cycles_s = time.monotonic() - cycles_from
        stalls = json.loads(self.emulator.tell("stalls"))
        delta = {name: float(after[name] - before[name]) for name in after}
        # A driver that its servos' watchdogs have stopped sends nothing.
        known = latencies or [math.nan]
        return {
            "duration_s": seconds,
            "stopped": float(self.client.bus["state"] != "running"),
            "cycle_rate_hz": delta["cycles"] / cycles_s,
            "lost_cycles": delta["lost_cycles"],
            "late_cycles": delta["late_cycles"],
            # The machine's fault, not the driver's: servos that did not answer in time.
            "emulator_stalls_over_5_ms": float(len(stalls)),
            "emulator_stalls_max_ms": max(stalls, default=0.0) * 1e3,
            "joint_states_hz": states / seconds,
            "joint_states_gap_max_ms": float(gaps.max()) * 1e3,
            "commands": float(len(latencies) + lost),
            "commands_not_on_the_wire": float(lost),
            "command_to_wire_p50_ms": float(np.percentile(known, 50)) * 1e3,
            "command_to_wire_p99_ms": float(np.percentile(known, 99)) * 1e3,
            "command_to_wire_p99_9_ms": float(np.percentile(known, 99.9)) * 1e3,
            "command_to_wire_max_ms": max(known) * 1e3,
        }

    def _match(self, sent: dict[int, float], latencies: list[float]) -> int:
        time.sleep(0.05)
        wire: dict[int, float] = {}
        for at, goals in self.goals_on_the_wire():
            if 1 in goals:
                wire.setdefault(goals[1], at)
        latencies += [wire[tick] - at for tick, at in sent.items() if tick in wire]
        missing = sum(tick not in wire for tick in sent)
        sent.clear()
        return missing

    def noise(self, duration_s: float) -> dict[str, float]:
        """Damage 1 % of the bytes while the arm is commanded, and return the figures.

        A published position is wrong if the joint was nowhere near it in the last 0.2 s. A goal is
        wrong if a servo took it from the wire and it never was commanded.
        """
        self.recover()
        self.set_profile(200, 50)
        self.move(0.0, -1.0, 1.0, 0.0, 0.5, 0.0)
        wait_for(self._at_rest, 10.0, "rest")
        before = self.counters()
        self.goals_on_the_wire()
        truth: list[tuple[float, dict[str, float]]] = []
        commanded: set[tuple[int, int]] = set()
        goals_seen = 0
        wrong_goals = 0
        self.emulator.tell("noise corrupt=0.005 drop=0.005")
        self.client.states.clear()
        start = time.monotonic()
        errors: list[float] = []
        due = start
        while time.monotonic() < start + duration_s:
            phase = 2 * math.pi * 0.1 * (time.monotonic() - start)
            target = (0.8 * math.sin(phase), -1.0, 1.0, 0.5 * math.sin(phase), 0.5, 0.0)
            # As the driver hears it.
            command = JointGroupCommand(name="arm", cmd=target)
            commanded |= set(zip(ARM_IDS, map(ticks_from_rad, command.cmd), strict=True))
            self.client.group.publish(command)
            servos = self.emulator.state()
            truth.append((time.monotonic(), {s["joint"]: s["angle_rad"] for s in servos.values()}))
            errors.append(abs(truth[-1][1]["waist"] - target[0]))
            if len(truth) % 250 == 0:
                written = [pair for _, goals in self.goals_on_the_wire() for pair in goals.items()]
                goals_seen += len(written)
                wrong_goals += sum(
                    (SHADOW_OF.get(i, i), goal) not in commanded for i, goal in written
                )
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))
        self.emulator.tell("noise")
        seconds = time.monotonic() - start
        states = list(self.client.states)
        after = self.counters()
        stopped = self.client.bus["state"] != "running"
        self.set_profile(1000, 300)
        gaps = np.diff([at for at, _, _ in states])
        return {
            "noise_duration_s": seconds,
            "noise_published_hz": len(states) / seconds,
            "noise_published": float(len(states)),
            "noise_published_gap_max_ms": float(gaps.max()) * 1e3,
            "noise_wrong_positions": float(_wrong(states, truth)),
            "noise_goals_written": float(goals_seen),
            "noise_wrong_goals": float(wrong_goals),
            "noise_tracking_error_p99_rad": float(np.percentile(errors, 99)),
            "noise_tracking_error_max_rad": max(errors),
            "noise_goals_resent": float(after["goals_resent"] - before["goals_resent"]),
            "noise_packets_damaged": float(after["bus_corrupt"] - before["bus_corrupt"]),
            "noise_stops": float(stopped),
        }

    def deliveries(self, seed: int) -> list[Delivery]:
        """Damage the line in each way and see how long commands take to every servo."""
        kinds = (
            ("undamaged", ""),
            ("1 % of bytes dropped", "drop=0.01"),
            ("1 % of bytes corrupted", "corrupt=0.01"),
            ("2 % of packets truncated", "truncate=0.02"),
            ("2 % of packets 20 ms late", "delay=0.02 delay_s=0.02"),
        )
        rng = random.Random(seed)
        self.set_profile(100, 25)
        rows = []
        for name, noise in kinds:
            self.emulator.tell(f"noise {noise}")
            before = self.counters()
            start, first = time.monotonic(), len(self.client.state_times)
            times = []
            for _ in range(LINE_COMMANDS):
                target = (rng.uniform(-0.5, 0.5), rng.uniform(-1.1, -0.9), 1.0, 0.0, 0.5, 0.0)
                command = JointGroupCommand(name="arm", cmd=target)
                goals = dict(zip(ARM_IDS, map(ticks_from_rad, command.cmd), strict=True))
                published = time.monotonic()
                self.client.group.publish(command)
                delivered = functools.partial(self._delivered, goals)
                times.append(wait_for(delivered, 10.0, "delivery") - published)
                time.sleep(rng.uniform(0.1, 0.2))
            seconds = time.monotonic() - start
            states = len(self.client.state_times) - first
            self.emulator.tell("noise")
            after = self.counters()
            rows.append(
                Delivery(
                    name,
                    len(times),
                    float(np.median(times)) * 1e3,
                    max(times) * 1e3,
                    after["goals_resent"] - before["goals_resent"],
                    states / seconds,
                    self.client.bus["state"],
                )
            )
        return rows

    def _delivered(self, goals: dict[int, int]) -> bool:
        servos = self.emulator.state()
        followed = goals | {shadow: goals[master] for shadow, master in SHADOW_OF.items()}
        return all(servos[i]["Goal_Position"] == goal for i, goal in followed.items())

    def _at_rest(self) -> bool:
        return self.speeds() < (STILL_RAD_S, 1)

    # --- faults --------------------------------------------------------------------------------

    def speeds(self) -> tuple[float, int]:
        """Return the highest speed, true and commanded (raw), of the joints that have torque.

        The others fall.
        """
        servos = [s for s in self.emulator.state().values() if s["Torque_Enable"]]
        true = max((abs(s["velocity_rad_s"]) for s in servos), default=0.0)
        return true, max((abs(s["Velocity_Trajectory"]) for s in servos), default=0)

    def set_moving(self) -> None:
        """Bring the arm back to rest and start a long move."""
        self.set_profile(1000, 300)
        self.move(0.0, -1.0, 1.0, 0.0, 0.5, 0.0)
        time.sleep(1.3)
        wait_for(lambda: self.speeds()[0] < STILL_RAD_S, 5.0, "rest")
        self.set_profile(8000, 200)
        self.move(2.0, -0.5, 0.5, 2.0, 0.0, 2.0)
        wait_for(lambda: self.speeds()[0] > 0.2, 5.0, "motion")

    def react(self, name: str, cause: Callable[[], Any], expected: str = "stopped") -> Reaction:
        """Cause a fault in mid-motion and time what follows."""
        self.set_moving()
        self.emulator.tell("writes")
        start = time.monotonic()
        cause()
        ended: float | None = None
        still: float | None = None
        diagnosed: float | None = None
        while time.monotonic() < start + 2.0 and None in (ended, still, diagnosed):
            now = time.monotonic()
            true, commanded = self.speeds()
            if ended is None and commanded == 0:
                ended = now - start
            if still is None and true < STILL_RAD_S:
                still = now - start
            if diagnosed is None and self.client.bus.get("state") == expected:
                diagnosed = now - start
            time.sleep(0.003)
        stops = [
            at - start
            for at, _, code, parameters in json.loads(self.emulator.tell("writes"))
            if code == SYNC_WRITE
            and int.from_bytes(bytes.fromhex(parameters)[:2], "little") == PROFILE_ACCELERATION
            and at > start
        ]
        state = self.client.bus.get("state", "") if diagnosed is not None else "driver gone"
        times = (min(stops, default=None), ended, still, diagnosed)
        stop_ms, ended_ms, still_ms, diagnosed_ms = (None if t is None else t * 1e3 for t in times)
        return Reaction(name, stop_ms, ended_ms, still_ms, diagnosed_ms, state)

    def react_to_voltage(self) -> Reaction:
        """Lower the supply in mid-motion: reported; the servos go on, and so does the driver."""
        self.set_moving()
        start = time.monotonic()
        self.emulator.tell("voltage 9.0")

        def reported() -> bool:
            return any("input voltage" in text for text in self.client.servo_messages.values())

        diagnosed = wait_for(reported, 5.0, "a report of the voltage") - start
        return Reaction(
            "under-voltage", None, None, None, diagnosed * 1e3, self.client.bus["state"]
        )

    def recover(self, *lines: str) -> None:
        for line in lines:
            self.emulator.tell(line)
        time.sleep(1.0)
        fields = {"cmd_type": "group", "name": "all", "enable": True, "smart_reboot": True}
        self.client.call(Reboot, "reboot_motors", **fields)

        def rearmed() -> bool:
            return bool(self.client.call(Trigger, "xs_driver/rearm").success)

        wait_for(rearmed, 20.0, "re-arming")
        wait_for(lambda: self.client.bus.get("state") == "running", 5.0, "running")

    def kill_driver(self) -> None:
        assert self.driver is not None
        self.client.bus = {}
        self.driver.kill()
        self.driver.wait()

    def stop_requested(self) -> None:
        self.client.call(Trigger, "xs_driver/stop")

    def faults(self) -> list[Reaction]:
        """Go through every fault."""
        tell = self.emulator.tell
        rows: list[Reaction] = []
        cases: tuple[tuple[str, str, list[str]], ...] = (
            ("overload of a joint", "overload 4", []),
            ("overload of a shadow", "overload 3", []),
            ("over-temperature", "temperature 7 95", ["temperature 7 25"]),
            ("servo unplugged", "unplug_servo 8", ["plug_servo 8"]),
            ("shadow unplugged", "unplug_servo 5", ["plug_servo 5"]),
            ("servo restarts", "reboot 6", []),
            ("supply off and on", "power_cycle", []),
            ("bus unplugged", "unplug_bus", ["plug_bus"]),
            ("every byte lost", "noise drop=1", ["noise"]),
        )
        for name, line, remedy in cases:
            gone = line in ("unplug_bus", "noise drop=1")
            cause = functools.partial(tell, line)
            rows.append(self.react(name, cause, "disconnected" if gone else "stopped"))
            self.recover(*remedy)
        rows.append(self.react_to_voltage())
        self.recover("voltage 12.0")
        rows.append(self.react("stop requested", self.stop_requested))
        self.recover()
        rows.append(self.react("driver killed", self.kill_driver))
        self.start_driver()
        return rows

    def reconnections(self, seed: int) -> dict[str, float]:
        """Unplug and plug the bus several times, and return the figures.

        The time is from plugging to the first joint_states. Until the re-arm nothing may move.
        """
        rng = random.Random(seed)
        times = []
        obeyed = 0
        for _ in range(RECONNECTIONS):
            self.emulator.tell("unplug_bus")
            wait_for(lambda: self.client.bus.get("state") == "disconnected", 5.0, "disconnection")
            time.sleep(rng.uniform(0.0, 2.0))
            known = len(self.client.state_times)
            start = time.monotonic()
            self.emulator.tell("plug_bus")
            back = functools.partial(lambda count: len(self.client.state_times) > count, known)
            times.append(wait_for(back, 10.0, "joint_states") - start)
            self.goals_on_the_wire()
            self.move(1.0, -1.0, 1.0, 0.0, 0.5, 0.0)
            time.sleep(0.3)
            obeyed += len(self.goals_on_the_wire())
            self.recover()
        return {
            "reconnections": float(len(times)),
            "reconnection_max_ms": max(times) * 1e3,
            "commands_obeyed_before_rearm": float(obeyed),
        }


def _wrong(
    states: Sequence[tuple[float, list[str], list[float]]],
    truth: Sequence[tuple[float, dict[str, float]]],
) -> int:
    """Count published positions that no sample of the truth around that time bears out."""
    times = [at for at, _ in truth]
    wrong = 0
    for at, names, positions in states:
        recent = truth[bisect.bisect(times, at - 0.2) : bisect.bisect(times, at + 0.05)]
        if len(recent) < 3:
            continue
        for name, position in zip(names, positions, strict=True):
            angles = [sample[name] for _, sample in recent if name in sample]
            if angles and not min(angles) - 0.03 <= position <= max(angles) + 0.03:
                wrong += 1
    return wrong


def _print_tables(reactions: Sequence[Reaction], deliveries: Sequence[Delivery]) -> None:
    heads = ("stop sent ms", "command ended ms", "joints still ms", "diagnosed ms")
    print(f"{'fault':24}" + "".join(f"{head:>18}" for head in heads) + "  state")
    for row in reactions:
        times = (row.stop_sent_ms, row.command_ended_ms, row.joints_still_ms, row.diagnosed_ms)
        cells = "".join(f"{'-' if t is None else f'{t:.0f}':>18}" for t in times)
        print(f"{row.fault:24}{cells}  {row.state}")
    heads = ("delivered p50 ms", "max ms", "goals resent", "published Hz")
    print(f"\n{'line':28}" + "".join(f"{head:>18}" for head in heads) + "  state")
    for line in deliveries:
        cells = f"{line.p50_ms:18.0f}{line.max_ms:18.0f}{line.goals_resent:18d}"
        print(f"{line.line:28}{cells}{line.published_hz:18.0f}  {line.state}")
    print()


def _without_nan(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def main() -> int:
    """Run the bench. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration_s", type=float, default=60.0, help="of the rate measurement")
    parser.add_argument("--noise_duration_s", type=float, default=20.0, help="1 %% damaged bytes")
    parser.add_argument("--seed", type=int, default=0)
    add_results_option(parser)
    arguments = parser.parse_args()
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            bench.start_driver(realtime_priority=0)
            seconds = min(arguments.duration_s, ORDINARY_DURATION_S)
            ordinary = bench.rate_and_latency(seconds, arguments.seed)
            bench.stop_driver()
            with preferred_kernel_workers() as workers:
                bench.start_driver()
                figures = bench.rate_and_latency(arguments.duration_s, arguments.seed)
                loads.append(os.getloadavg()[0])
                figures |= bench.noise(arguments.noise_duration_s)
                loads.append(os.getloadavg()[0])
                figures |= bench.reconnections(arguments.seed)
                deliveries = bench.deliveries(arguments.seed)
                reactions = bench.faults()
        finally:
            bench.close()
    loads.append(os.getloadavg()[0])
    _print_tables(reactions, deliveries)
    for name, value in figures.items():
        print(f"{name}={value:.2f}")
    for name, value in ordinary.items():
        print(f"ordinary_scheduling_{name}={value:.2f}")
    print(f"load_average={max(loads):.1f}")
    content = {
        "command": " ".join(["python", *sys.argv]),
        "load_average": loads,
        "cpus": os.cpu_count(),
        "scheduling": {
            "driver_realtime_priority": DRIVER_PRIORITY,
            "kernel_workers_realtime": workers,
        },
        "figures": _without_nan(figures),
        "figures_with_ordinary_scheduling_of_driver_and_kernel_workers": _without_nan(ordinary),
        "faults": [asdict(row) for row in reactions],
        "damaged_line": [asdict(row) for row in deliveries],
    }
    text = json.dumps(content, indent=2) + "\n"
    write_result("servo_bus.json", text, arguments.update_results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
