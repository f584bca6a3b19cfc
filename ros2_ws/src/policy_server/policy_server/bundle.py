"""Reading and verifying policy bundles: LEAPP directories with a `deployment:` section.

A bundle is a directory `<name>/` with `<name>.yaml` and the files that it names. Nothing in it is
executed while reading: the YAML is plain, hashes are checked before a model is handed to
ONNX Runtime, and every file must lie inside the directory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from node_common.strict_yaml import BundleError, Section, did_you_mean, read_yaml_mapping
from numpy.typing import NDArray

from policy_server.deployment import Deployment, parse_deployment
from policy_server.git_lfs import FETCH_ADVICE, is_pointer
from policy_server.safetensors_file import parse_safetensors

MODEL_PATH_VARIABLE = "COXSWAIN_MODEL_PATH"
"""Environment variable with directories of bundles, separated as in PATH; it replaces the rest."""

LEAPP_CONFIG_VERSIONS = ("1.1", "1.2", "1.3")
TOP_LEVEL_KEYS = ("models", "pipeline", "system information", "deployment")
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
)


@dataclass(frozen=True)
class TensorSpec:
    """Name, NumPy dtype name and shape of one input or output of a model."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """One node of the pipeline.

    Attributes:
        name: the node's name.
        file: file name relative to the bundle.
        content: the file's bytes, whose hash was checked.
        external_data: place as the file writes it → bytes, of weights that lie beside it.
        inputs, outputs: tensors in the model's own order.
        bind_by_name: whether the ONNX file uses these names. LEAPP does so for models it
            exported; for ready-made files only the order counts.
    """

    name: str
    file: str
    content: bytes
    external_data: Mapping[str, bytes]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bind_by_name: bool


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Tensors are written `node/name` throughout.

    Attributes:
        name: name of the directory.
        file: the YAML file.
        models: in order of execution.
        data_flow: output → inputs that take its value in the same tick.
        feedback_flow: output → inputs that take its value in the next tick.
        external_inputs: inputs that the caller supplies.
        initial_values: value of every fed-back input at reset.
        deployment: the `deployment:` section.
    """

    name: str
    file: Path
    models: tuple[ModelSpec, ...]
    data_flow: Mapping[str, tuple[str, ...]]
    feedback_flow: Mapping[str, tuple[str, ...]]
    external_inputs: tuple[str, ...]
    initial_values: Mapping[str, NDArray[Any]]
    deployment: Deployment

    def input(self, tensor: str) -> TensorSpec:
        """The specification of an input. Raises KeyError when there is none."""
        return _tensors(self.models, "inputs")[tensor]

    def output(self, tensor: str) -> TensorSpec:
        """The specification of an output. Raises KeyError when there is none."""
        return _tensors(self.models, "outputs")[tensor]


def model_search_path(environment: Mapping[str, str], start_points: Sequence[Path]) -> list[Path]:
    """Directories that may contain bundles, best first.

    Args:
        environment: environment variables.
        start_points: `models/` of each of these directories and of those above it is searched,
            when it exists.
    """
    if environment.get(MODEL_PATH_VARIABLE):
        return [Path(entry) for entry in environment[MODEL_PATH_VARIABLE].split(os.pathsep)]
    found: list[Path] = []
    for start in start_points:
        for directory in (start, *start.parents):
            models = directory / "models"
            if models.is_dir() and models not in found:
                found.append(models)
    return found


def find_bundle(model: str, search_path: list[Path]) -> Path:
    """Find a bundle by path or by name.

    Args:
        model: path of a bundle's directory or of its YAML file, or a bundle's name.
        search_path: directories that may contain bundles of that name.

    Returns:
        The path of the YAML file, which exists.

    Raises:
        BundleError: there is no such bundle.
    """
    given = Path(model).expanduser()
    candidates = [given, *(directory / model for directory in search_path)]
    for candidate in candidates if model else []:
        if candidate.is_dir():
            file = candidate / f"{candidate.resolve().name}.yaml"
            if file.is_file():
                return file
            raise BundleError(candidate, "", "no such YAML", f"a bundle with {file.name}")
        if candidate.is_file() and candidate.suffix == ".yaml":
            return candidate
    known = known_bundles(search_path)
    raise BundleError(
        model or "model",
        "",
        "no such bundle",
        f"the path of a bundle or one of {known}{did_you_mean(model, known)}",
    )


def known_bundles(search_path: Sequence[Path]) -> list[str]:
    """Names of the bundles in directories, sorted."""
    return sorted(
        {
            child.name
            for directory in search_path
            if directory.is_dir()
            for child in directory.iterdir()
            if (child / f"{child.name}.yaml").is_file()
        }
    )


def load_bundle(file: Path) -> Bundle:
    """Read a bundle and check everything that can be checked without running it.

    Args:
        file: the bundle's YAML file.

    Returns:
        The bundle, with the verified content of its model files.

    Raises:
        BundleError: naming file, field, what was found and what was expected.
    """
    document = read_yaml_mapping(file)
    for key in document:
        if key not in TOP_LEVEL_KEYS:
            expected = f"one of {list(TOP_LEVEL_KEYS)}{did_you_mean(str(key), TOP_LEVEL_KEYS)}"
            raise BundleError(file, str(key), "an unknown key", expected)
    root = Section(file, "", document)
    version = root.section("system information").string("leapp config version")
    if version not in LEAPP_CONFIG_VERSIONS:
        raise BundleError(
            file,
            "system information.leapp config version",
            version,
            f"one of {list(LEAPP_CONFIG_VERSIONS)}",
        )
    deployment = parse_deployment(root.section("deployment"))
    contents = _read_files(file, deployment.files)
    models = _parse_models(root.section("models"), contents)
    pipeline = root.section("pipeline")
    inputs, outputs = _tensors(models, "inputs"), _tensors(models, "outputs")
    order = [model.name for model in models]
    data_flow = _parse_flow(pipeline, "data_flow", inputs, outputs)
    feedback_flow = _parse_flow(pipeline, "feedback_flow", inputs, outputs)
    for source, destinations in data_flow.items():
        for destination in destinations:
            if order.index(_node(source)) >= order.index(_node(destination)):
                raise BundleError(
                    file,
                    f"pipeline.data_flow.{source}",
                    destination,
                    "an input of a model that comes later in `models`",
                )
    external = _parse_ports(pipeline, "inputs", inputs)
    _parse_ports(pipeline, "outputs", outputs)
    _check_sources(file, inputs, external, data_flow, feedback_flow)
    initial_values = _initial_values(pipeline, inputs, feedback_flow, contents)
    _check_against_models(file, deployment, inputs, outputs, order, external)
    return Bundle(
        name=file.resolve().parent.name,
        file=file,
        models=models,
        data_flow=data_flow,
        feedback_flow=feedback_flow,
        external_inputs=external,
        initial_values=initial_values,
        deployment=deployment,
    )


def _read_files(file: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    root = file.resolve().parent
    contents = {}
    for name, expected in digests.items():
        field = f"deployment.files.{name}"
        path = (file.parent / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(root):
            raise BundleError(file, field, str(path), f"a file inside {root}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(file, field, error.strerror or error, "the file, readable") from None
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            if is_pointer(content):
                found = FETCH_ADVICE
            raise BundleError(file.parent / name, "SHA-256", found, f"{expected} ({field})")
        contents[name] = content
    return contents


def _parse_models(section: Section, contents: Mapping[str, bytes]) -> tuple[ModelSpec, ...]:
    # It needs onnx, a third of a second that those who only look for bundles can do without.
    from policy_server.model_weights import check_weights

    models = []
    for name in section.keys():  # noqa: SIM118
        node = section.section(name)
        parameters = node.section("parameters")
        backend = parameters.value("backend")
        if backend != "onnx":
            raise parameters.error("backend", '"onnx", the only one that runs here')
        warp_segments = parameters.optional("warp_segments")
        if warp_segments not in (None, 0):
            raise parameters.error("warp_segments", "0: Warp kernels need a custom library")
        file = parameters.string("model_path")
        if file not in contents:
            expected = f"a file that deployment.files lists, one of {sorted(contents)}"
            raise parameters.error("model_path", expected)
        found = hashlib.sha256(contents[file]).hexdigest()
        if parameters.string("sha256sum") != found:
            raise parameters.error("sha256sum", f"{found}, the hash of {file}")
        models.append(
            ModelSpec(
                name=name,
                file=file,
                content=contents[file],
                external_data=check_weights(section.file, file, contents[file], contents),
                inputs=_parse_tensors(node, "inputs"),
                outputs=_parse_tensors(node, "outputs"),
                bind_by_name="opset_version" in parameters,
            )
        )
    if not models:
        raise BundleError(section.file, section.path, "no model", "at least one")
    return tuple(models)


def _parse_tensors(node: Section, key: str) -> tuple[TensorSpec, ...]:
    records = node.value(key)
    if not isinstance(records, list) or not records:
        raise node.error(key, "a non-empty list of tensors")
    tensors: list[TensorSpec] = []
    for index, record in enumerate(records):
        item = Section(node.file, f"{node.field(key)}[{index}]", record)
        shape = item.value("shape")
        if not isinstance(shape, list) or not all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape
        ):
            raise item.error("shape", "a list of positive integers")
        tensor = TensorSpec(item.string("name"), item.string("dtype", DTYPES), tuple(shape))
        if tensor.name in [other.name for other in tensors]:
            raise item.error("name", "a name that no other tensor of the list has")
        tensors.append(tensor)
    return tuple(tensors)


def _tensors(models: tuple[ModelSpec, ...], key: str) -> dict[str, TensorSpec]:
    return {
        f"{model.name}/{tensor.name}": tensor for model in models for tensor in getattr(model, key)
    }


def _node(tensor: str) -> str:
    return tensor.split("/", 1)[0]


def _parse_flow(
    pipeline: Section,
    key: str,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> dict[str, tuple[str, ...]]:
    if pipeline.optional(key) is None:
        return {}
    section = pipeline.section(key)
    flow = {}
    for source in section.keys():  # noqa: SIM118
        destinations = section.strings(source)
        if source not in outputs:
            raise BundleError(
                section.file, section.field(source), source, f"one of {sorted(outputs)}"
            )
        for destination in destinations:
            if destination not in inputs:
                raise BundleError(
                    section.file, section.field(source), destination, f"one of {sorted(inputs)}"
                )
            from_spec, to_spec = outputs[source], inputs[destination]
            if (from_spec.dtype, from_spec.shape) != (to_spec.dtype, to_spec.shape):
                raise BundleError(
                    section.file,
                    section.field(source),
                    f"{from_spec.dtype} {list(from_spec.shape)}",
                    f"{to_spec.dtype} {list(to_spec.shape)}, as {destination}",
                )
        flow[source] = destinations
    return flow


def _parse_ports(pipeline: Section, key: str, tensors: Mapping[str, TensorSpec]) -> tuple[str, ...]:
    if pipeline.optional(key) is None:
        return ()
    section = pipeline.section(key)
    ports = []
    for node in section.keys():  # noqa: SIM118
        for name in section.strings(node) if section.value(node) else ():
            port = f"{node}/{name}"
            if port not in tensors:
                raise BundleError(
                    section.file, section.field(node), name, f"one of {sorted(tensors)}"
                )
            ports.append(port)
    return tuple(ports)


def _check_sources(
    file: Path,
    inputs: Mapping[str, TensorSpec],
    external: tuple[str, ...],
    data_flow: Mapping[str, tuple[str, ...]],
    feedback_flow: Mapping[str, tuple[str, ...]],
) -> None:
    sources: dict[str, list[str]] = {name: [] for name in inputs}
    for name in external:
        sources[name].append("pipeline.inputs")
    for key, flow in (("data_flow", data_flow), ("feedback_flow", feedback_flow)):
        for source, destinations in flow.items():
            for destination in destinations:
                sources[destination].append(f"pipeline.{key}.{source}")
    for name, found in sources.items():
        if len(found) != 1:
            raise BundleError(
                file,
                "pipeline",
                f"{len(found)} sources for the input {name} {found}",
                "exactly one of inputs, data_flow and feedback_flow",
            )


def _initial_values(
    pipeline: Section,
    inputs: Mapping[str, TensorSpec],
    feedback_flow: Mapping[str, tuple[str, ...]],
    contents: Mapping[str, bytes],
) -> dict[str, NDArray[Any]]:
    fed_back = [name for destinations in feedback_flow.values() for name in destinations]
    stored: dict[str, NDArray[Any]] = {}
    if pipeline.optional("initial_values") is not None:
        file = pipeline.string("initial_values")
        if file not in contents:
            expected = f"a file that deployment.files lists, one of {sorted(contents)}"
            raise pipeline.error("initial_values", expected)
        path = pipeline.file.parent / file
        stored = parse_safetensors(path, contents[file])
        for name, array in stored.items():
            if name not in fed_back:
                raise BundleError(path, name, "a tensor", f"one of {sorted(fed_back)}")
            spec = inputs[name]
            if (str(array.dtype), array.shape) != (spec.dtype, spec.shape):
                raise BundleError(
                    path,
                    name,
                    f"{array.dtype} {list(array.shape)}",
                    f"{spec.dtype} {list(spec.shape)}",
                )
            if not np.isfinite(array).all():
                raise BundleError(path, name, array.tolist(), "finite numbers")
    return {
        name: stored.get(name, np.zeros(inputs[name].shape, inputs[name].dtype))
        for name in fed_back
    }


def _check_against_models(
    file: Path,
    deployment: Deployment,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    nodes: list[str],
    external: tuple[str, ...],
) -> None:
    for role, node in deployment.stages.items():
        if node not in nodes:
            raise BundleError(file, f"deployment.stages.{role}", node, f"one of {nodes}")
    action = deployment.action
    if action.tensor not in outputs:
        raise BundleError(
            file, "deployment.action.tensor", action.tensor, f"one of {sorted(outputs)}"
        )
    spec = outputs[action.tensor]
    if not spec.shape or spec.shape[-1] != len(action.names):
        raise BundleError(
            file,
            "deployment.action.names",
            f"{len(action.names)} names",
            f"one per entry of the last axis of {action.tensor} {list(spec.shape)}",
        )
    navigation = deployment.navigation
    for key in ("distance", "embedding") if navigation else ():
        tensor = getattr(navigation, key)
        if tensor and tensor not in outputs:
            raise BundleError(
                file, f"deployment.navigation.{key}", tensor, f"one of {sorted(outputs)}"
            )
    for observation in deployment.observations:
        for tensor in observation.tensors:
            field = f"deployment.observations {observation.name}"
            if tensor not in external:
                raise BundleError(
                    file, field, tensor, f"an input that nothing else feeds: {sorted(external)}"
                )
            dtype, shape = observation.tensor
            found = inputs[tensor]
            if (found.dtype, found.shape) != (dtype, shape):
                raise BundleError(
                    file,
                    f"{field}: {tensor}",
                    f"{found.dtype} {list(found.shape)}",
                    f"{dtype} {list(shape)}",
                )
