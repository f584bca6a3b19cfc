"""The commands of the README work as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line for block in _BLOCKS for line in block.splitlines() if line.strip()]
_EPISODES = "./run ros2 launch widowx_bringup ptr.launch.py episodes:=5"
_INSTEAD = {
    # It would run this test again: it only has to find tests.
    "./run test": "./run test --collect-only --quiet tests/system",
    # In real time it would be the longest of all tests.
    _EPISODES: f"{_EPISODES} rtf:=3",
}


@pytest.mark.system
@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command, free_domain):
    done = subprocess.run(
        shlex.split(_INSTEAD.get(command, command)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400.0,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_readme_has_commands():
    assert any(command.startswith("./run ros2 launch") for command in COMMANDS)
    assert set(_INSTEAD) <= set(COMMANDS)


def test_readme_names_existing_paths():
    table = (ROOT / "README.md").read_text().split("## Where things are")[1]
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    missing = [
        path
        for path in paths
        if not (ROOT / path).exists() and not (ROOT / "ros2_ws" / "src" / path).exists()
    ]
    assert not missing


def test_readme_numbers_are_those_of_the_measurements():
    check = subprocess.run(
        [sys.executable, ROOT / "tools" / "fill_numbers.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr
