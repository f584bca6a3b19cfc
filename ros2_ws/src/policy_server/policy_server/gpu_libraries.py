"""What ONNX Runtime needs for a GPU, and what of it this machine lacks.

ONNX Runtime tries a provider for each model and, without its libraries, prints two red lines and
computes on the CPU. Looked at once beforehand, the reason is one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

DRIVER = "libcuda.so.1"
"""Comes with the NVIDIA driver and with nothing else."""
_CUDA = "libonnxruntime_providers_cuda.so"
_PROVIDER_LIBRARIES = {
    "cuda": (_CUDA,),
    "tensorrt": (_CUDA, "libonnxruntime_providers_tensorrt.so"),
}
_LOADED_LATER = "libcudnn.so.9"
"""ONNX Runtime opens it with the first convolution."""


def wheel_folders() -> list[Path]:
    """Folders of the libraries that NVIDIA's wheels bring, found by `onnxruntime.preload_dlls`."""
    package = importlib.util.find_spec("nvidia")
    roots = package.submodule_search_locations or [] if package is not None else []
    return sorted(folder for root in roots for folder in Path(root).glob("*/lib"))


def missing_libraries(provider: str) -> list[str]:
    """Libraries that a provider needs and that the loader would not find, by name.

    Args:
        provider: "cuda" or "tensorrt"; others need none that are known here.
    """
    if provider not in _PROVIDER_LIBRARIES:
        return []
    folders, missing = wheel_folders(), []
    for name in _PROVIDER_LIBRARIES[provider]:
        library = Path(onnxruntime.__file__).parent / "capi" / name
        missing += not_found(library, folders) if library.exists() else [name]
    # It is no dependency of the file.
    if not any((folder / _LOADED_LATER).exists() for folder in folders):
        try:
            ctypes.CDLL(_LOADED_LATER)
        except OSError:
            missing.append(_LOADED_LATER)
    return sorted(set(missing))


def not_found(library: Path, folders: list[Path]) -> list[str]:
    """Names of the shared libraries that `library` needs and that are nowhere, by ldd(1)."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("LD_LIBRARY_PATH", "")])
    environment: Mapping[str, str] = {**os.environ, "LD_LIBRARY_PATH": path, "LC_ALL": "C"}
    done = subprocess.run(
        ["ldd", str(library)], env=environment, capture_output=True, text=True, timeout=60
    )
    return [line.split()[0] for line in done.stdout.splitlines() if line.endswith("not found")]


@functools.cache
def problem(provider: str) -> str:
    """Why a provider cannot be used on this machine, "" when nothing speaks against it.

    Where it can, the libraries of the wheels are loaded, so that ONNX Runtime finds them.

    Args:
        provider: "cuda" or "tensorrt"; of others nothing is known.
    """
    if provider not in _PROVIDER_LIBRARIES:
        return ""
    missing = missing_libraries(provider)
    if DRIVER in missing:
        others = [name for name in missing if name != DRIVER]
        also = f"; {', '.join(others)} too" if others else ""
        return f"no NVIDIA driver on this machine: {DRIVER} is missing{also}"
    if missing:
        remedy = "./run setup gpu" if provider == "cuda" else "install TensorRT"
        return f"missing libraries: {', '.join(missing)}; {remedy}"
    driver = ctypes.CDLL(DRIVER)
    code = driver.cuInit(0)
    if code:
        return f"the NVIDIA driver finds no GPU (cuInit gave {code})"
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    wanted = getattr(onnxruntime, "cuda_version", "") or "0"
    if version.value // 1000 < int(wanted.split(".")[0]):
        found = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return f"found an NVIDIA driver for CUDA {found}, expected one for CUDA {wanted}"
    # It prints what it did not find; that was looked at above.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    return ""
