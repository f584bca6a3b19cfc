"""Write measured numbers into the README, so that document and measurement cannot disagree.

    ./run python tools/fill_numbers.py            rewrite the marked blocks of README.md
    ./run python tools/fill_numbers.py --check    exit status 1 when a block is out of date

A block lies between `<!-- numbers: NAME -->` and `<!-- /numbers -->`. Its text comes from reports
under models/*/evaluation and bench/results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "README.md"
EVALUATION = ROOT / "models" / "ptr_widowx_sim" / "evaluation"
BENCH = ROOT / "bench" / "results"
POLICIES = {
    "shipped": "the shipped policy",
    "twin": "the same network, other algorithm",
    "untrained": "the same network, untrained",
    "random": "random actions",
}
_BLOCK = re.compile(r"(<!-- numbers: (\w+) -->\n).*?(<!-- /numbers -->)", re.DOTALL)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _percent(rate: dict[str, Any]) -> str:
    low, high = rate["wilson_95"]
    return (
        f"{100 * rate['rate']:.0f} % ({rate['successes']}/{rate['trials']}, "
        f"95 % interval {100 * low:.0f}–{100 * high:.0f} %)"
    )


def success_block() -> str:
    """Success of the shipped policy and its baselines, each task and overall."""
    reports = {name: _read(EVALUATION / f"{name}.json") for name in POLICIES}
    shipped = reports["shipped"]["summary"]
    rows = ["| policy | success over all tasks |", "|---|---|"]
    for name, words in POLICIES.items():
        rows.append(f"| {words} | {_percent(reports[name]['summary']['overall'])} |")
    rates = sorted(shipped["tasks"].items(), key=lambda item: item[1]["rate"])
    (worst, worst_rate), (best, best_rate) = rates[0], rates[-1]
    return "\n".join(
        [
            f"{shipped['overall']['trials']} episodes of {len(rates)} tasks in the simulated "
            "kitchen, through the ROS graph, in scenes that no demonstration showed:",
            "",
            *rows,
            "",
            f"Best task: `{best}`, {100 * best_rate['rate']:.0f} %; "
            f"worst: `{worst}`, {100 * worst_rate['rate']:.0f} %.",
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


BLOCKS: dict[str, Callable[[], str]] = {"success": success_block, "timing": timing_block}


def fill(text: str) -> str:
    """Return `text` with every block rewritten.

    Raises:
        KeyError: a block has a name that no function writes.
        FileNotFoundError: a measurement is missing.
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
