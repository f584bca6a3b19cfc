"""How soon a node that runs hears of a publisher of a new one, with and without our profile.

    ./run python bench/node_discovery.py --rounds 4

Two settings take turns: Fast DDS as it is, and with the announcements of tools/fastdds_profile.xml.
Prints a table and, as its last line, the 90th percentiles and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.context import Context
from result_files import add_results_option, write_result
from std_msgs.msg import String

PROFILE = Path(__file__).resolve().parents[1] / "tools" / "fastdds_profile.xml"
TOPIC = "/bench/node_discovery"
_NEWS_S = 30.0


def listen() -> None:
    """Print the number of publishers and the time [s] whenever it changes."""
    rclpy.init()
    node = rclpy.create_node("listener")
    count = -1
    while rclpy.ok():
        found = len(node.get_publishers_info_by_topic(TOPIC))
        if found != count:
            count = found
            print(count, time.monotonic(), flush=True)
        time.sleep(0.002)


def talk(trials: int) -> None:
    """Make a node with a publisher so often; print how soon the listener, our stdin, hears it."""
    times_s = []
    for trial in range(trials):
        context = Context()
        rclpy.init(context=context)
        node = rclpy.create_node(f"talker_{trial}", context=context)
        began_s = time.monotonic()
        node.create_publisher(String, TOPIC, 1)
        count, heard_s = sys.stdin.readline().split()
        assert count == "1"
        times_s.append(float(heard_s) - began_s)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
        assert sys.stdin.readline().split()[0] == "0"
    print(json.dumps(times_s))


def measure(profile: Path, domain: int, trials: int) -> list[float]:
    """Return how soon each of some new nodes was heard [s]."""
    environment = {
        **os.environ,
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(domain),
    }
    command = [sys.executable, __file__, "--trials", str(trials), "--role"]
    listener = subprocess.Popen(
        [*command, "listen"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline().startswith("0")
        done = subprocess.run(
            [*command, "talk"],
            env=environment,
            stdin=listener.stdout,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=_NEWS_S * trials,
        )
    finally:
        listener.kill()
        listener.wait()
    times_s: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times_s


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="turns of each setting")
    parser.add_argument("--trials", type=int, default=5, help="new nodes per turn")
    parser.add_argument("--domain", type=int, default=84, help="first ROS domain to use")
    parser.add_argument("--role", choices=["listen", "talk"], help=argparse.SUPPRESS)
    add_results_option(parser)
    options = parser.parse_args()
    if options.role == "listen":
        listen()
        return 0
    if options.role == "talk":
        talk(options.trials)
        return 0
    times_s: dict[str, list[float]] = {"default": [], "profile": []}
    with tempfile.TemporaryDirectory() as folder:
        default = Path(folder) / "default.xml"
        text = re.sub(r"<builtin>.*</builtin>", "", PROFILE.read_text(), flags=re.DOTALL)
        default.write_text(text)
        for turn in range(options.rounds):
            for offset, (name, file) in enumerate((("default", default), ("profile", PROFILE))):
                domain = options.domain + 2 * turn + offset
                times_s[name] += measure(file, domain, options.trials)
    print(f"{'announcements':14} {'nodes':>5} {'p50 s':>6} {'p90 s':>6} {'max s':>6}")
    result: dict[str, dict[str, float]] = {}
    for name, values in times_s.items():
        p50, p90 = (float(p) for p in np.percentile(values, (50, 90)))
        result[name] = {"nodes": len(values), "p50_s": p50, "p90_s": p90, "max_s": max(values)}
        print(f"{name:14} {len(values):5} {p50:6.2f} {p90:6.2f} {max(values):6.2f}")
    content = json.dumps(result, indent=1) + "\n"
    write_result("node_discovery.json", content, options.update_results)
    default_s, profile_s = result["default"]["p90_s"], result["profile"]["p90_s"]
    print(
        f"default_p90_s={default_s:.2f} profile_p90_s={profile_s:.2f} "
        f"ratio={default_s / profile_s:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
