"""Write measured numbers into the README, so that document and measurement cannot disagree.

    ./run python tools/fill_numbers.py            rewrite the marked blocks of README.md
    ./run python tools/fill_numbers.py --check    exit status 1 when a block is out of date

A block lies between `<!-- numbers: NAME -->` and `<!-- /numbers -->`. Its text comes from reports
under models/*/evaluation and bench/results. Success of the shipped policy, 50 episodes per task, is
measured by one command, which goes on where it was when it is given again:

    ./run ros2 launch widowx_bringup ptr.launch.py episodes:=650 max_repeats:=0 \\
        report:=models/ptr_widowx_sim/evaluation/shipped.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from episode_tools.success_rate import SuccessRate

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "README.md"
EVALUATION = ROOT / "models" / "ptr_widowx_sim" / "evaluation"
NAVIGATION = ROOT / "models" / "gnm_sim" / "evaluation"
BENCH = ROOT / "bench" / "results"
POLICIES = {
    "shipped": "the shipped policy",
    "untrained": "the same network, untrained",
    "random": "random actions",
}
_BLOCK = re.compile(r"(<!-- numbers: (\w+) -->\n).*?(<!-- /numbers -->)", re.DOTALL)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _rates(policy: str) -> dict[str, SuccessRate]:
    """Success rate of each task over all reports of a policy."""
    rates: dict[str, SuccessRate] = {}
    for report in _reports(policy):
        for episode in report["episodes"]:
            rate = rates.get(episode["task"], SuccessRate())
            rates[episode["task"]] = rate.with_outcome(episode["success"])
    return rates


def _reports(policy: str) -> list[Any]:
    """All reports of a policy, `POLICY.json` or `POLICY_*.json`."""
    paths = sorted(EVALUATION.glob(f"{policy}*.json"))
    if not paths:
        raise FileNotFoundError(f"no report {policy}*.json in {EVALUATION}")
    reports = []
    for path in paths:
        report = _read(path)
        if not report["complete"]:
            done = len(report["episodes"])
            raise ValueError(f"{path} has {done} of {report['episodes_planned']} episodes")
        reports.append(report)
    return reports


def _pace(policy: str) -> str:
    """How fast the simulation ran, in words."""
    factors = [
        report["summary"].get("real_time_factor") or 1.0
        for report in _reports(policy)
        if report.get("simulated_clock")
    ]
    slowest = min(factors, default=1.0)
    return "in real time" if slowest >= 0.98 else f"at {slowest:.2f} times real time"


def _overall(rates: dict[str, SuccessRate]) -> SuccessRate:
    return SuccessRate(
        sum(rate.successes for rate in rates.values()), sum(rate.trials for rate in rates.values())
    )


def _percent(rate: SuccessRate) -> str:
    low, high = rate.interval
    return (
        f"{100 * rate.successes / rate.trials:.0f} % ({rate.successes}/{rate.trials}, "
        f"95 % interval {100 * low:.0f}–{100 * high:.0f} %)"
    )


def success_block() -> str:
    """Success of the shipped policy, each task and overall, and of its baselines."""
    rates = {policy: _rates(policy) for policy in POLICIES}
    tasks = [f"| `{task}` | {_percent(rate)} |" for task, rate in rates["shipped"].items()]
    policies = [
        f"| **all tasks, {words}** | {_percent(_overall(rates[policy]))} |"
        for policy, words in POLICIES.items()
    ]
    return "\n".join(
        [
            f"In the simulated kitchen, through the ROS graph {_pace('shipped')}, in scenes that "
            "no demonstration showed (positions, sides of the containers, distractors, colours, "
            "light and camera vary):",
            "",
            "| task | success |",
            "|---|---|",
            *tasks,
            *policies,
        ]
    )


def timing_block() -> str:
    """How well the policy node keeps time, and which share of it is the network."""
    tick = _read(BENCH / "policy_tick_sim.json")
    return (
        f"Over {tick['duration_s'] / 60:.0f} minutes on two CPU cores the policy ran at "
        f"{tick['rate_hz']:.2f} Hz with {tick['missed_ticks']} missed ticks and "
        f"{tick['frames_lost']} of {tick['frames_expected']} camera frames lost; from observation "
        f"to command took {tick['observe_to_publish_p50_ms']:.1f} ms (median), "
        f"{tick['ratio_p50']:.2f} times the bare network. The whole graph used "
        f"{tick['total_memory_mb']:.0f} MB of memory, the policy node "
        f"{tick['memory_mb']['policy_node']:.0f} MB."
    )


def arm_block() -> str:
    """How much servos cost in success, and how soon the arm stops."""
    rates = {}
    for arm in ("sim", "emulated"):
        overall = _read(EVALUATION / f"arm_{arm}.json")["summary"]["overall"]
        rates[arm] = SuccessRate(overall["successes"], overall["trials"])
    kill = _read(BENCH / "kill_response.json")
    kills = sum(part["kills"] for part in kill["summary"].values())
    worst_s = max(part["commanded_worst_s"] for part in kill["summary"].values())
    bus = _read(BENCH / "servo_bus.json")["figures"]
    return (
        f"On the same scenes the policy succeeds in {_percent(rates['emulated'])} of the episodes "
        f"on emulated servos, in {_percent(rates['sim'])} on the simulated arm. After killing "
        f"policy, controller or driver in the middle of a motion, {kills} times, commanded motion "
        f"ended within {worst_s:.2f} s. The driver ran at {bus['cycle_rate_hz']:.0f} Hz for "
        f"{bus['duration_s'] / 60:.0f} minutes with {bus['lost_cycles']:.0f} lost cycles; with 1 % "
        f"of the bytes damaged it published {bus['noise_wrong_positions']:.0f} wrong positions and "
        f"wrote {bus['noise_wrong_goals']:.0f} wrong goals."
    )


def navigation_block() -> str:
    """Drives to goals through the ROS graph, and the duration of a tick."""
    rows = []
    driven_m, collisions = 0.0, 0
    for report in sorted(NAVIGATION.glob("graph_reach_*.json")):
        trials = _read(report)["trials"]
        rate = SuccessRate(sum(trial["success"] for trial in trials), len(trials))
        rows.append(f"| `{trials[0]['robot']}` | {_percent(rate)} |")
        driven_m += sum(trial["driven_m"] for trial in trials)
        collisions += sum(trial["collisions"] for trial in trials)
    if not rows:
        raise FileNotFoundError(f"no report graph_reach_*.json in {NAVIGATION}")
    tick = _read(BENCH / "gnm_tick.json")
    times_ms = {
        method: min(part["wall_ms"] for part in tick[method])
        for method in ("original", "ours", "ours_float32")
    }
    return "\n".join(
        [
            "In simulated worlds that no training used, through the ROS graph, over ways of at "
            "least five horizons of the network:",
            "",
            "| robot | goals reached |",
            "|---|---|",
            *rows,
            "",
            f"{collisions} collisions on {driven_m:.0f} m. A tick with {tick['candidates']} "
            f"candidate places takes {times_ms['ours']:.1f} ms on two CPU cores with the published "
            f"network, the original method {tick['ratio']:.1f} times as long; in single precision "
            f"{times_ms['ours_float32']:.1f} ms and "
            f"{times_ms['original'] / times_ms['ours_float32']:.1f} times. With one thread each "
            f"it is {tick['ratio_one_thread']:.1f} times, in single precision "
            f"{tick['ratio_float32_one_thread']:.1f}. Up to 100 000 places it "
            f"grows by a factor of {tick['growth']:.2f} at most.",
        ]
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "success": success_block,
    "timing": timing_block,
    "arm": arm_block,
    "navigation": navigation_block,
}


def fill(text: str) -> str:
    """Return `text` with every block rewritten.

    Raises:
        KeyError: a block has a name that no function writes.
        FileNotFoundError: a measurement is missing.
        ValueError: a measurement is not complete.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write measured numbers into the README.")
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    check = parser.parse_args().check
    text = DOCUMENT.read_text(encoding="utf-8")
    filled = fill(text)
    if check:
        if filled != text:
            print("README.md: numbers are out of date; run: ./run python tools/fill_numbers.py")
        return int(filled != text)
    DOCUMENT.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
