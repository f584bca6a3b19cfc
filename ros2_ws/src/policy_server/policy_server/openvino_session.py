"""Runs an ONNX model with OpenVINO, whose kernels compute in bfloat16 where a CPU can.

ONNX Runtime has no bfloat16 convolutions for CPUs. Where the CPU has such instructions (AVX-512
BF16, AMX), half of the memory and twice the arithmetic per cycle make small networks about twice as
fast; elsewhere OpenVINO computes in single precision, and little is gained.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROVIDER = "OpenVINO"
_OFTEN = 4
"""Uses of a shape after which the model is compiled for it."""
_SHAPES = 8
"""Shapes that are remembered, with what was compiled for them."""


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


class _FixedModel:
    """A model compiled for one shape of each input; its tensors stay where they are."""

    def __init__(self, compiled: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = {
            name: self._request.get_tensor(port).data
            for name, port in zip(inputs, compiled.inputs, strict=True)
        }
        self._outputs = {
            name: self._request.get_tensor(port).data
            for name, port in zip(outputs, compiled.outputs, strict=True)
        }

    def run(
        self, output_names: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        for name, value in feed.items():
            tensor = self._inputs[name]
            if value.shape != tensor.shape:
                raise ValueError(
                    f"found the shape {value.shape} for the input {name}, expected {tensor.shape}"
                )
            tensor[...] = value
        self._request.infer()
        return [self._outputs[name].copy() for name in output_names]


class _FreeModel:
    """A model that takes any size of its free axes."""

    def __init__(self, compiled: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = {name: index for index, name in enumerate(inputs)}
        self._outputs = dict(zip(outputs, compiled.outputs, strict=True))

    def run(
        self, output_names: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        contiguous = {
            self._inputs[name]: np.ascontiguousarray(value) for name, value in feed.items()
        }
        results = self._request.infer(contiguous, share_inputs=True)
        return [results[self._outputs[name]] for name in output_names]


@dataclass
class _Shape:
    """Sizes that a model's free axes had."""

    uses: int = 0
    model: _FixedModel | None = None
    """Compiled for them."""


class OpenVinoSession:
    """The part of `onnxruntime.InferenceSession` that the engine uses.

    Where the graph leaves sizes free, the model is compiled once more for each shape that comes
    often, at a fixed use and not in the background, so that equal calls have equal results. It is
    about a quarter faster then; compiling takes a tenth of a second.

    Args:
        content: the ONNX file.
        file: its path relative to the bundle.
        external: place relative to the file → content, of tensors that are kept beside it.
        threads: CPU threads.
        bfloat16: compute in bfloat16 where the CPU can; inputs and outputs stay as they are.

    Raises:
        RuntimeError: OpenVINO cannot load the model.
    """

    def __init__(
        self,
        content: bytes,
        file: str,
        external: Mapping[str, bytes],
        threads: int,
        bfloat16: bool,
    ) -> None:
        import onnx
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
            path = Path(folder) / file
            for place, data in (
                (path, content),
                *((path.parent / f, d) for f, d in external.items()),
            ):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            with _signal_stack_kept():
                model = openvino.Core().read_model(path)
                compiled = openvino.compile_model(model, "CPU", settings)
        graph = onnx.load_model_from_string(content).graph
        weights = {tensor.name for tensor in graph.initializer}
        declared = [value for value in graph.input if value.name not in weights]
        # A compiled model's ports may have lost their names to neighbours; their order stays.
        names = [port.get_names() for port in model.inputs]
        self._input_names = [
            next(value.name for value in declared if value.name in known) for known in names
        ]
        self._output_names = [value.name for value in graph.output]
        ports = dict(zip(self._input_names, compiled.inputs, strict=True))
        # Inputs that nothing reads are no ports any more.
        self._inputs = [
            _argument(value.name, ports[value.name]) if value.name in ports else _unused(value)
            for value in declared
        ]
        self._outputs = [
            _argument(name, port)
            for name, port in zip(self._output_names, compiled.outputs, strict=True)
        ]
        self._dtypes = {argument.name: np.dtype(argument.type) for argument in self._inputs}
        self._free = [
            argument.name
            for argument in self._inputs
            if argument.name in ports and not all(isinstance(size, int) for size in argument.shape)
        ]
        make = _FreeModel if self._free else _FixedModel
        self._compiled = make(compiled, self._input_names, self._output_names)
        self._model, self._settings = model, settings
        self._shapes: OrderedDict[tuple[tuple[int, ...], ...], _Shape] = OrderedDict()

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
            ValueError: an input has another dtype than the model, or another shape; OpenVINO would
                convert it.
            RuntimeError: a shape is wrong, or computing failed.
        """
        for name, value in feed.items():
            if value.dtype != self._dtypes[name]:
                raise ValueError(
                    f"found {value.dtype} for the input {name}, expected {self._dtypes[name]}"
                )
        feed = {name: feed[name] for name in self._input_names}
        if not self._free:
            return self._compiled.run(output_names, feed)
        key = tuple(feed[name].shape for name in self._free)
        shape = self._shapes.setdefault(key, _Shape())
        self._shapes.move_to_end(key)
        if len(self._shapes) > _SHAPES:
            self._shapes.popitem(last=False)
        outputs = (shape.model or self._compiled).run(output_names, feed)
        # Only shapes that the model can compute get here.
        shape.uses += 1
        if shape.uses == _OFTEN:
            shape.model = self._compiled_for(key)
        return outputs

    def _compiled_for(self, key: tuple[tuple[int, ...], ...]) -> _FixedModel:
        import openvino

        model = self._model.clone()
        model.reshape(dict(zip(self._free, key, strict=True)))
        with _signal_stack_kept():
            compiled = openvino.compile_model(model, "CPU", self._settings)
            return _FixedModel(compiled, self._input_names, self._output_names)


def _argument(name: str, port: Any) -> Argument:
    shape = tuple(
        dimension.get_length() if dimension.is_static else "free"
        for dimension in port.get_partial_shape()
    )
    return Argument(name, np.dtype(port.get_element_type().to_dtype()).name, shape)


def _unused(value: Any) -> Argument:
    """An input of an ONNX graph as the file describes it."""
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        size.dim_value if size.HasField("dim_value") else "free" for size in tensor.shape.dim
    )
    return Argument(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)
