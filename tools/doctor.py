"""Prints what Coxswain found on this machine and what is missing. Exit status 1: something is."""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

MANY_SEGMENTS = 200


def _version(distribution: str) -> str:
    return metadata.version(distribution)


def _ros() -> str:
    rclpy = importlib.import_module("rclpy")
    origin = os.environ.get("ROS_DISTRO", "wheels")
    return f"{origin}, rclpy from {Path(str(rclpy.__file__)).parent}"


def _rmw() -> str:
    implementation = importlib.import_module("rclpy.utilities").get_rmw_implementation_identifier()
    transports = os.environ.get(
        "FASTDDS_DEFAULT_PROFILES_FILE", os.environ.get("FASTDDS_BUILTIN_TRANSPORTS", "default")
    )
    return f"{implementation}, transports {transports}"


def _workspace() -> str:
    importlib.import_module("policy_interfaces.msg")
    return f"built, domain {os.environ.get('ROS_DOMAIN_ID', '0')}"


def _off_screen_gl() -> str:
    mujoco = importlib.import_module("mujoco")
    context = mujoco.GLContext(64, 64)
    context.make_current()
    gl = importlib.import_module("OpenGL.GL")
    renderer = gl.glGetString(gl.GL_RENDERER)
    context.free()
    return (
        f"{os.environ.get('MUJOCO_GL', 'default')}: {renderer.decode() if renderer else 'unknown'}"
    )


def _providers() -> str:
    onnxruntime = importlib.import_module("onnxruntime")
    return f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"


def _openvino() -> str:
    openvino = importlib.import_module("openvino")
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return f"{_version('openvino')}, {'' if 'BF16' in capabilities else 'no '}bfloat16 on this CPU"


def fast_dds_segments(folder: Path = Path("/dev/shm")) -> str:
    """Shared memory of nodes that were killed. With much of it, Fast DDS loses matches."""
    left = [lock for lock in folder.glob("fastdds_*_el") if _is_free(lock)]
    segments = [Path(str(lock).removesuffix("_el")) for lock in left]
    size_mb = sum(path.stat().st_size for path in segments if path.exists()) / 1e6
    found = f"{len(left)} segments of killed nodes, {size_mb:.0f} MB"
    if len(left) > MANY_SEGMENTS:
        found += "; with all nodes stopped, run: rm /dev/shm/fastdds_* /dev/shm/sem.fastdds_*"
    return found


def _is_free(lock: Path) -> bool:
    """Whether no process holds the lock file of a segment."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _torch() -> str:
    return _version("torch")


def _cuda() -> str:
    onnxruntime = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "not used: this ONNX Runtime is for CPUs only; ./run setup gpu brings one for CUDA"
    problem = importlib.import_module("policy_server.gpu_libraries").problem("cuda")
    return f"not used: {problem}" if problem else "used by ONNX Runtime"


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none (nvidia-smi not found); everything runs on the CPU"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()


def _display() -> str:
    return os.environ.get("DISPLAY") or "none: viewer:=window needs one, viewer:=web does not"


REQUIRED: dict[str, Callable[[], str]] = {
    "ROS 2": _ros,
    "RMW": _rmw,
    "workspace": _workspace,
    "off-screen GL": _off_screen_gl,
    "MuJoCo": lambda: _version("mujoco"),
    "ONNX Runtime": _providers,
    "kinematics": lambda: f"pinocchio {_version('pin')}",
}
OPTIONAL: dict[str, Callable[[], str]] = {
    "torch (training)": _torch,
    "OpenVINO": _openvino,
    "shared memory": fast_dds_segments,
    "GPU": _gpu,
    "CUDA": _cuda,
    "display": _display,
}


def main() -> int:
    """Print one line per part and return 1 if a required part is missing."""
    print(f"{'system':18s} {platform.platform()}, {os.cpu_count()} cores")
    print(f"{'Python':18s} {platform.python_version()} at {sys.executable}")
    missing = []
    for name, probe in {**REQUIRED, **OPTIONAL}.items():
        try:
            print(f"{name:18s} {probe()}")
        except Exception as error:  # any failure of a probe is a finding, not a crash
            if name in REQUIRED:
                missing.append(name)
                print(f"{name:18s} MISSING ({type(error).__name__}: {error})")
            else:
                print(f"{name:18s} not installed")
    packages = os.environ.get("COXSWAIN_MISSING_PACKAGES", "")
    if packages:
        command = f"sudo apt-get install -y --no-install-recommends {packages}"
        print(f"{'system packages':18s} MISSING: {command}")
    if missing:
        print(f"missing: {', '.join(missing)}; run ./run setup")
    return 1 if missing or packages else 0


if __name__ == "__main__":
    sys.exit(main())
