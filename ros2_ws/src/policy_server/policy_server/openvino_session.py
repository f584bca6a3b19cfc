"""Runs an ONNX model with OpenVINO, whose kernels compute in bfloat16 where a CPU can.

ONNX Runtime has no bfloat16 convolutions for CPUs. Where the CPU has such instructions (AVX-512
BF16, AMX), half of the memory and twice the arithmetic per cycle make small networks about twice as
fast; elsewhere OpenVINO computes in single precision, and little is gained.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROVIDER = "OpenVINO"


def is_available() -> bool:
    """Whether OpenVINO is installed."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return False
    return True


def has_bfloat16() -> bool:
    """Whether OpenVINO is installed and this CPU has instructions for bfloat16."""
    if not is_available():
        return False
    import openvino

    with _signal_stack_kept():
        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (
        ("start", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Leave the thread's alternate signal stack as it is.

    OpenVINO sets one that is freed with its last model; Python's handlers run on it, and the next
    interruption ends the process by a segmentation fault.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, before = ctypes.CDLL(None), _SignalStack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


@dataclass(frozen=True)
class Argument:
    """An input or output of a model.

    Attributes:
        name: in the graph.
        type: name of the dtype.
        shape: sizes; a text where the graph leaves one free.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


class OpenVinoSession:
    """The part of `onnxruntime.InferenceSession` that the engine uses.

    Args:
        content: the ONNX file.
        external: file name → content, of tensors that are kept beside the model.
        threads: CPU threads.
        bfloat16: compute in bfloat16 where the CPU can; inputs and outputs stay as they are.

    Raises:
        RuntimeError: OpenVINO cannot load the model.
    """

    def __init__(
        self, content: bytes, external: Mapping[str, bytes], threads: int, bfloat16: bool
    ) -> None:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # A core of its own would be taken from the robot's other nodes.
            "ENABLE_CPU_PINNING": False,
        }
        with tempfile.TemporaryDirectory() as folder:
            # Tensors beside a model are only found beside a file.
            for name, data in {**external, "model.onnx": content}.items():
                (Path(folder) / name).write_bytes(data)
            with _signal_stack_kept():
                core = openvino.Core()
                model = core.read_model(Path(folder) / "model.onnx")
                compiled = core.compile_model(model, "CPU", settings)
        self._inputs = [_argument(port) for port in compiled.inputs]
        self._outputs = [_argument(port) for port in compiled.outputs]
        self._dtypes = {argument.name: argument.type for argument in self._inputs}
        self._ports = {port.get_any_name(): port for port in compiled.outputs}
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[Argument]:
        """The model's inputs."""
        return self._inputs

    def get_outputs(self) -> list[Argument]:
        """The model's outputs."""
        return self._outputs

    def get_providers(self) -> list[str]:
        """What computes."""
        return [PROVIDER]

    def run(
        self, output_names: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """Compute outputs.

        Raises:
            ValueError: an input has another dtype than the model; OpenVINO would convert it.
            RuntimeError: a shape is wrong, or computing failed.
        """
        for name, value in feed.items():
            if value.dtype.name != self._dtypes[name]:
                raise ValueError(
                    f"found {value.dtype.name} for the input {name}, expected {self._dtypes[name]}"
                )
        results = self._request.infer(
            {name: np.ascontiguousarray(value) for name, value in feed.items()}, share_inputs=True
        )
        return [results[self._ports[name]] for name in output_names]


def _argument(port: Any) -> Argument:
    shape = tuple(
        dimension.get_length() if dimension.is_static else "free"
        for dimension in port.get_partial_shape()
    )
    return Argument(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, shape)
