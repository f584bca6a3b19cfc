"""Running a bundle's models with ONNX Runtime, or with OpenVINO.

`Pipeline` implements LEAPP's run rules: models in order, outputs copied along the data flow in the
same tick and along the feedback flow into the next one, fed-back inputs restored on reset.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
from node_common.strict_yaml import BundleError, did_you_mean
from numpy.typing import NDArray

from policy_server import gpu_libraries, openvino_session
from policy_server.bundle import Bundle, ModelSpec, TensorSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# Computed by OpenVINO itself, beside whichever ONNX Runtime is installed: key → in bfloat16.
_OPENVINO = {"openvino": False, "openvino_bfloat16": True}
PROVIDER_NAMES = ("auto", "fastest", *PROVIDERS, *_OPENVINO)
"""What `EngineOptions.provider` may be."""
# TensorRT is not tried by itself: it builds its engines for minutes on the first run.
_AUTO_ORDER = ("cuda", "cpu")
_DEVICE_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")

_TOLERANCE = 1e-3
_TOLERANCE_GPU = 0.03
_TOLERANCE_BFLOAT16 = 0.1
"""Largest difference to ONNX Runtime on the CPU in a model's first run, as a share of the output's
largest number: rounding of 24 bits in another order of sums, of the 11 bits with which GPUs
multiply, of 8 bits. A wrong kernel or a spoilt weight is beyond all of them."""
_SMALLEST_SCALE = 0.5
"""An output whose largest number is smaller is compared as if it were this: sums of larger numbers
that cancel out keep their rounding."""

_DTYPE_OF_ONNX = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(uint32)": "uint32",
    "tensor(int32)": "int32",
    "tensor(uint64)": "uint64",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class ProviderWarning(UserWarning):
    """The wanted execution provider is not used."""


class InferenceError(RuntimeError):
    """A tick could not be computed."""


@dataclass(frozen=True)
class EngineOptions:
    """How models are run.

    Attributes:
        provider: one of `PROVIDER_NAMES`. "auto" is a GPU, or ONNX Runtime on the CPU; "fastest" is
            a GPU, or "openvino_bfloat16" on CPUs that can, or "auto". "openvino_bfloat16" computes
            in bfloat16 where the CPU can: faster, with three digits.
        threads: CPU threads per model; 0 chooses half of the cores, at least 1 and at most 4, so
            that camera, controller and simulator keep some.
        io_binding: keep tensors between models on the device; None: exactly on GPUs. ONNX Runtime
            only.
        fuse: let ONNX Runtime fuse layers and choose memory layouts, which is faster for
            convolutions and differs from the exporter's arithmetic by rounding.
    """

    provider: str = "auto"
    threads: int = 0
    io_binding: bool | None = None
    fuse: bool = False

    def __post_init__(self) -> None:
        if self.provider not in PROVIDER_NAMES:
            raise ValueError(
                f"found the provider {self.provider!r}, expected one of {list(PROVIDER_NAMES)}"
                f"{did_you_mean(self.provider, PROVIDER_NAMES)}"
            )
        if not 0 <= self.threads <= 64:
            raise ValueError(f"found {self.threads} threads, expected 0 (automatic) to 64")

    @property
    def thread_count(self) -> int:
        """The number of threads per model, at least 1."""
        return self.threads or max(1, min(4, len(os.sched_getaffinity(0)) // 2))


def resolve(options: EngineOptions) -> EngineOptions:
    """Replace "fastest" by what it stands for on this machine."""
    if options.provider != "fastest":
        return options
    available = onnxruntime.get_available_providers()
    device = PROVIDERS["cuda"] in available and not gpu_libraries.problem("cuda")
    bfloat16 = not device and openvino_session.has_bfloat16()
    return replace(options, provider="openvino_bfloat16" if bfloat16 else "auto")


def choose_provider(wanted: str) -> str:
    """Return the name of the provider to use: ONNX Runtime's, or OpenVINO's.

    A provider that is not installed, or lacks a library or its device, is replaced by the CPU,
    with a `ProviderWarning`.
    """
    if wanted in _OPENVINO:
        if openvino_session.is_available():
            return openvino_session.PROVIDER
        _warn_cpu(wanted, "openvino is not installed: pip install openvino")
        return PROVIDERS["cpu"]
    available = onnxruntime.get_available_providers()
    if wanted == "auto":
        wanted = next(name for name in _AUTO_ORDER if PROVIDERS[name] in available)
    if PROVIDERS[wanted] not in available:
        _warn_cpu(wanted, f"this ONNX Runtime has only {available}")
        return PROVIDERS["cpu"]
    problem = gpu_libraries.problem(wanted)
    if problem:
        _warn_cpu(wanted, problem)
        return PROVIDERS["cpu"]
    return PROVIDERS[wanted]


def _warn_cpu(wanted: str, reason: str) -> None:
    message = f'the provider "{wanted}" cannot be used ({reason}); running on the CPU'
    warnings.warn(message, ProviderWarning, stacklevel=3)


def session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    """Return the session options used for every model."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.thread_count
    settings.inter_op_num_threads = 1
    # The level the exporter validated with; the higher ones fuse layers into other arithmetic.
    level = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = (
        level.ORT_ENABLE_ALL if options.fuse else level.ORT_ENABLE_BASIC
    )
    # Between two ticks idle threads must sleep: the robot's other nodes need the cores. Within a
    # run of fused layers, each a fraction of a millisecond, waking them would take too long.
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.fuse)))
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.log_severity_level = 3
    return settings


def make_session(model: ModelSpec, provider: str, options: EngineOptions) -> Any:
    """Load a model; the session has the methods of `onnxruntime.InferenceSession` used here.

    Args:
        model: loaded from its bytes, not from the path: these are the ones whose hash was checked.
        provider: see `choose_provider`.
        options: threads, and how to compute.
    """
    if provider == openvino_session.PROVIDER:
        return openvino_session.OpenVinoSession(
            model.content,
            model.file,
            model.external_data,
            options.thread_count,
            _OPENVINO[options.provider],
        )
    settings = session_options(options)
    external = model.external_data
    if external:
        settings.add_external_initializers_from_files_in_memory(
            list(external), list(external.values()), [len(data) for data in external.values()]
        )
    providers = list(dict.fromkeys((provider, PROVIDERS["cpu"])))
    return onnxruntime.InferenceSession(model.content, settings, providers)


class Stage:
    """One model, loaded and checked against its specification."""

    def __init__(self, bundle: Bundle, model: ModelSpec, provider: str, options: EngineOptions):
        self.name = model.name
        self.spec = model
        self.last_run_s = float("nan")
        self._file = bundle.file.parent / model.file
        try:
            self.session = make_session(model, provider, options)
        except Exception as error:
            raise BundleError(
                self._file, "", _first_line(error), "a model that can be loaded"
            ) from None
        inputs = self._match("inputs", self.session.get_inputs(), model.inputs)
        outputs = self._match("outputs", self.session.get_outputs(), model.outputs)
        self.input_names = {tensor: f"{model.name}/{name}" for name, tensor in inputs.items()}
        self.output_names = [outputs[tensor.name] for tensor in model.outputs]
        self.output_keys = [f"{model.name}/{tensor.name}" for tensor in model.outputs]
        plain = self.session.get_providers()[0] == PROVIDERS["cpu"] and not options.fuse
        self._options = None if plain else options

    def compare_once(self, feed: Mapping[str, Any], outputs: list[Any]) -> None:
        """Compare the first run with what ONNX Runtime computes on the CPU without fusing layers.

        What a model draws by chance is not compared, and neither are numbers that are counted.

        Raises:
            InferenceError: an output differs by more than rounding.
        """
        options, self._options = self._options, None
        if options is None:
            return
        reference = make_session(
            self.spec, PROVIDERS["cpu"], replace(options, provider="cpu", fuse=False)
        )
        feed = {name: _as_array(value) for name, value in feed.items()}
        expected = reference.run(self.output_names, feed)
        again = reference.run(self.output_names, feed)
        provider = self.session.get_providers()[0]
        tolerance = _tolerance(provider, options)
        for key, output, value, repeated in zip(
            self.output_keys, map(_as_array, outputs), expected, again, strict=True
        ):
            if value.dtype.kind != "f" or not np.array_equal(value, repeated, equal_nan=True):
                continue
            scale = np.abs(value, where=np.isfinite(value), out=np.zeros_like(value)).max(initial=0)
            allowed = tolerance * max(float(scale), _SMALLEST_SCALE)
            if not np.allclose(output, value, rtol=0.0, atol=allowed, equal_nan=True):
                worst = float(np.max(np.abs(output - value)))
                raise InferenceError(
                    f"{key}: found a difference of {worst:.3g} between {provider} and ONNX Runtime "
                    f"on the CPU at the first run, expected at most {allowed:.3g}: "
                    "choose the provider cpu"
                )

    def _match(
        self, side: str, found: list[Any], declared: tuple[TensorSpec, ...]
    ) -> dict[str, str]:
        """Compare the graph's tensors with the YAML's; return YAML name → ONNX name."""
        names = [tensor.name for tensor in declared]
        found_names = [argument.name for argument in found]
        field = f"models.{self.name}.{side}"
        if len(found) != len(declared):
            raise BundleError(self._file, field, found_names, f"{names}, as in the YAML")
        if self.spec.bind_by_name:
            if sorted(found_names) != sorted(names):
                raise BundleError(self._file, field, found_names, f"{names}, as in the YAML")
            found = sorted(found, key=lambda argument: names.index(argument.name))
        for argument, tensor in zip(found, declared, strict=True):
            dtype = _DTYPE_OF_ONNX.get(argument.type, argument.type)
            place = f"{field}.{tensor.name}"
            if dtype != tensor.dtype:
                raise BundleError(
                    self._file, f"{place}.dtype", dtype, f"{tensor.dtype}, as in the YAML"
                )
            shape = list(argument.shape)
            # A symbolic size in the graph accepts the declared one.
            if len(shape) != len(tensor.shape) or any(
                isinstance(size, int) and size != wanted
                for size, wanted in zip(shape, tensor.shape, strict=True)
            ):
                raise BundleError(
                    self._file, f"{place}.shape", shape, f"{list(tensor.shape)}, as in the YAML"
                )
        return {t.name: a.name for a, t in zip(found, declared, strict=True)}

    def symbolic_batch(self, tensor: str) -> bool:
        """Whether the first axis of the input `tensor` (without node) is free in the graph."""
        onnx_name = next(n for n, key in self.input_names.items() if key.endswith(f"/{tensor}"))
        argument = next(a for a in self.session.get_inputs() if a.name == onnx_name)
        return bool(argument.shape) and not isinstance(argument.shape[0], int)


def _tolerance(provider: str, options: EngineOptions) -> float:
    if provider == openvino_session.PROVIDER:
        return _TOLERANCE_BFLOAT16 if _OPENVINO[options.provider] else _TOLERANCE
    return _TOLERANCE if provider == PROVIDERS["cpu"] else _TOLERANCE_GPU


class Pipeline:
    """The models of a bundle, run as one function with memory.

    Args:
        bundle: a verified bundle.
        options: provider and threads.
        nodes: the models to load, None for all. Left-out ones can not be run.

    Raises:
        BundleError: a model cannot be loaded or disagrees with the YAML.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions | None = None,
        nodes: Iterable[str] | None = None,
    ) -> None:
        options = resolve(options or EngineOptions())
        self.bundle = bundle
        wanted = choose_provider(options.provider)
        selected = None if nodes is None else set(nodes)
        self.provider = wanted
        self.stages: dict[str, Stage] = {}
        for model in bundle.models:
            if selected is not None and model.name not in selected:
                continue
            stage = self.stages[model.name] = Stage(bundle, model, self.provider, options)
            if stage.session.get_providers()[0] != self.provider:
                # ONNX Runtime falls back by itself, and prints why; once is enough.
                _warn_cpu(wanted, "ONNX Runtime could not start it")
                self.provider = PROVIDERS["cpu"]
        device = self.provider in _DEVICE_PROVIDERS
        bound = device if options.io_binding is None else options.io_binding
        self._io_binding = bound and self.provider != openvino_session.PROVIDER
        self._device = "cuda" if device else "cpu"
        self._state: dict[str, NDArray[Any]] = {}
        self._plans: dict[tuple[str, ...] | None, list[Stage]] = {None: list(self.stages.values())}
        self.reset()

    def reset(self) -> None:
        """Restore the initial value of every fed-back input."""
        self._state = dict(self.bundle.initial_values)

    @property
    def stage_times_s(self) -> dict[str, float]:
        """Duration of each model's latest run [s], NaN before the first."""
        return {name: stage.last_run_s for name, stage in self.stages.items()}

    def run(
        self, inputs: Mapping[str, NDArray[Any]], nodes: tuple[str, ...] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run one tick.

        Args:
            inputs: `node/input` → array for every input that neither data flow nor feedback
                feeds; also for inputs whose source is not among `nodes`.
            nodes: the models to run, in any order; None runs all.

        Returns:
            `node/output` → array for every output of the models that ran.

        Raises:
            InferenceError: an input is missing, unknown, or has the wrong dtype or shape, or
                computing failed; an input, or a value that goes on to another model or tick, is
                not finite. The memory is as before the tick.
        """
        stages = self._plan(nodes)
        values: dict[str, Any] = {**self._state, **inputs}
        data_flow, feedback_flow = self.bundle.data_flow, self.bundle.feedback_flow
        results: dict[str, Any] = {}
        next_state: dict[str, Any] = {}
        used = 0
        for stage in stages:
            feed = {}
            for onnx_name, key in stage.input_names.items():
                if key not in values:
                    raise InferenceError(f"found no value for the input {key}, expected one")
                feed[onnx_name] = values[key]
                check_finite(key, values[key])
                used += key in inputs
            start = time.perf_counter()
            try:
                outputs = self._run_stage(stage, feed)
            except Exception as error:
                raise InferenceError(f"{stage.name}: {_first_line(error)}") from error
            stage.last_run_s = time.perf_counter() - start
            stage.compare_once(feed, outputs)
            for key, output in zip(stage.output_keys, outputs, strict=True):
                results[key] = output
                for destination in data_flow.get(key, ()):
                    values[destination] = output
                for destination in feedback_flow.get(key, ()):
                    next_state[destination] = output
        if used != len(inputs):
            known = [key for stage in stages for key in stage.input_names.values()]
            unknown = sorted(set(inputs) - set(known))
            raise InferenceError(f"found the inputs {unknown}, expected only {sorted(known)}")
        results = {key: _as_array(value) for key, value in results.items()}
        for key, value in results.items():
            if key in data_flow or key in feedback_flow:
                check_finite(key, value)
        # Only a tick that completed changes the memory.
        self._state.update({key: _as_array(value) for key, value in next_state.items()})
        return results

    def _plan(self, nodes: tuple[str, ...] | None) -> list[Stage]:
        if nodes not in self._plans:
            assert nodes is not None
            missing = [name for name in nodes if name not in self.stages]
            if missing:
                raise InferenceError(
                    f"found the models {missing}, expected some of {[*self.stages]}"
                )
            self._plans[nodes] = [stage for stage in self.stages.values() if stage.name in nodes]
        return self._plans[nodes]

    def _run_stage(self, stage: Stage, feed: Mapping[str, Any]) -> list[Any]:
        if not self._io_binding:
            return list(stage.session.run(stage.output_names, feed))
        binding = stage.session.io_binding()
        for name, value in feed.items():
            if isinstance(value, onnxruntime.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        for name in stage.output_names:
            binding.bind_output(name, self._device)
        stage.session.run_with_iobinding(binding)
        return list(binding.get_outputs())


def _first_line(error: Exception) -> str:
    """What an engine says; OpenVINO begins with places in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return next(iter(told), type(error).__name__)


def check_finite(key: str, value: Any) -> None:
    """Raise InferenceError if an array of floats holds infinities or not-a-numbers.

    Some kernels would turn them into numbers. Values on a device are left to a later check.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return
    finite = np.isfinite(value)
    if not finite.all():
        index = [int(i) for i in np.argwhere(~finite)[0]]
        raise InferenceError(
            f"{key}: found {value[tuple(index)]} at {index}, expected finite numbers"
        )


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, onnxruntime.OrtValue):
        value = value.numpy()
    return np.asarray(value)
