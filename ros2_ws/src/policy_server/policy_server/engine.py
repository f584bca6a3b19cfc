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
from numpy.typing import NDArray

from policy_server import openvino_session
from policy_server.bundle import Bundle, ModelSpec, TensorSpec
from policy_server.strict_yaml import BundleError, did_you_mean

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
    device = PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    bfloat16 = not device and openvino_session.has_bfloat16()
    return replace(options, provider="openvino_bfloat16" if bfloat16 else "auto")


def choose_provider(wanted: str) -> str:
    """Return the name of the provider to use: ONNX Runtime's, or OpenVINO's.

    A provider that is not installed is replaced by the CPU, with a `ProviderWarning`.
    """
    if wanted in _OPENVINO:
        if openvino_session.is_available():
            return openvino_session.PROVIDER
        _warn_cpu(wanted, "openvino is not installed: pip install openvino")
        return PROVIDERS["cpu"]
    available = onnxruntime.get_available_providers()
    if wanted == "auto":
        return next(PROVIDERS[name] for name in _AUTO_ORDER if PROVIDERS[name] in available)
    if PROVIDERS[wanted] in available:
        return PROVIDERS[wanted]
    _warn_cpu(wanted, f"this ONNX Runtime has only {available}")
    return PROVIDERS["cpu"]


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


def make_session(
    content: bytes, external: Mapping[str, bytes], provider: str, options: EngineOptions
) -> Any:
    """Load a model; the session has the methods of `onnxruntime.InferenceSession` used here.

    Args:
        content: the ONNX file.
        external: file name → content, of tensors that are kept beside it.
        provider: see `choose_provider`.
        options: threads, and how to compute.
    """
    if provider == openvino_session.PROVIDER:
        return openvino_session.OpenVinoSession(
            content, external, options.thread_count, _OPENVINO[options.provider]
        )
    settings = session_options(options)
    if external:
        settings.add_external_initializers_from_files_in_memory(
            list(external), list(external.values()), [len(data) for data in external.values()]
        )
    providers = list(dict.fromkeys((provider, PROVIDERS["cpu"])))
    return onnxruntime.InferenceSession(content, settings, providers)


class Stage:
    """One model, loaded and checked against its specification."""

    def __init__(self, bundle: Bundle, model: ModelSpec, provider: str, options: EngineOptions):
        self.name = model.name
        self.spec = model
        self.last_run_s = float("nan")
        self._file = bundle.file.parent / model.file
        try:
            # From bytes, not from the path: these are the bytes whose hash was checked.
            self.session = make_session(model.content, bundle.external_data, provider, options)
        except Exception as error:
            first_line = str(error).splitlines()[0]
            raise BundleError(self._file, "", first_line, "a model that can be loaded") from None
        inputs = self._match("inputs", self.session.get_inputs(), model.inputs)
        outputs = self._match("outputs", self.session.get_outputs(), model.outputs)
        self.input_names = {tensor: f"{model.name}/{name}" for name, tensor in inputs.items()}
        self.output_names = [outputs[tensor.name] for tensor in model.outputs]
        self.output_keys = [f"{model.name}/{tensor.name}" for tensor in model.outputs]

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
        self.stages = {
            model.name: Stage(bundle, model, wanted, options)
            for model in bundle.models
            if selected is None or model.name in selected
        }
        used = {stage.session.get_providers()[0] for stage in self.stages.values()}
        self.provider = wanted if used == {wanted} else PROVIDERS["cpu"]
        if self.provider != wanted:
            # ONNX Runtime itself falls back in silence when a device or library is missing.
            _warn_cpu(wanted, "its device or one of its libraries is missing")
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
                ONNX Runtime failed. The memory is as before the tick.
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
                used += key in inputs
            start = time.perf_counter()
            try:
                outputs = self._run_stage(stage, feed)
            except Exception as error:
                first_line = str(error).splitlines()[0]
                raise InferenceError(f"{stage.name}: {first_line}") from error
            stage.last_run_s = time.perf_counter() - start
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
        # Only a tick that completed changes the memory.
        self._state.update({key: _as_array(value) for key, value in next_state.items()})
        return {key: _as_array(value) for key, value in results.items()}

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


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, onnxruntime.OrtValue):
        value = value.numpy()
    return np.asarray(value)
