"""`./run` installs one of the two builds of ONNX Runtime, whatever other groups bring."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# What pip does to the two distributions, and nothing else of it.
PYTHON = """#!/bin/bash
site=$(dirname "$0")/../lib/python3.11/site-packages
case " $* " in
  *" --version "*) echo Python 3.11 ;;
  *" uninstall "*) rm -rf "$site"/onnxruntime-* "$site"/onnxruntime_gpu-* ;;
  *" install "*gpu.txt*)
    [ ! -e "$site/broken" ] || exit 1
    mkdir -p "$site/onnxruntime_gpu-1.31.1.dist-info" ;;
  *" install "*) mkdir -p "$site/onnxruntime-1.31.1.dist-info" ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """Call `make_environment GROUP...` on an environment of its own; return what is installed."""
    root = tmp_path / "clone with a space"
    venv = root / ".venv"
    site = venv / "lib" / "python3.11" / "site-packages"
    for folder in (venv / "bin", site):
        folder.mkdir(parents=True)
    (root / "requirements").symlink_to(ROOT / "requirements")
    python = venv / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (venv / ".coxswain-made").touch()
    functions = (ROOT / "run").read_text().replace('\nmain "$@"', "")
    (root / "run").write_text(functions + '\nmake_environment "$@"\n')

    def call(*groups, check=True):
        # As with ROS 2 sourced: no wheels of ROS to install.
        environment = {
            **os.environ,
            "ROS_DISTRO": "kilted",
            "AMENT_PREFIX_PATH": "/opt/ros",
            "COXSWAIN_PYTHON": str(python),
        }
        command = ["bash", str(root / "run"), *groups]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return sorted(path.name.split("-")[0] for path in site.glob("onnxruntime*"))

    call.site = site
    return call


def test_one_build_replaces_the_other_both_ways(run):
    assert run() == ["onnxruntime"]
    assert run("gpu") == ["onnxruntime_gpu"]
    assert run() == ["onnxruntime_gpu"]
    # Another group asks for the CPU build.
    assert run("training") == ["onnxruntime_gpu"]
    assert run("cpu") == ["onnxruntime"]
    assert run("dev") == ["onnxruntime"]
    assert run("gpu", "dev") == ["onnxruntime_gpu"]


def test_a_set_up_that_failed_is_taken_up_again(run):
    run()
    (run.site / "broken").touch()
    assert run("gpu", check=False) == []
    (run.site / "broken").unlink()
    assert run() == ["onnxruntime_gpu"]
