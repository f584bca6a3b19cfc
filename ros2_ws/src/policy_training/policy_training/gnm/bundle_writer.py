"""Writes navigation bundles: LEAPP's YAML over ready-made ONNX files, and the deployment section.

LEAPP's own tracer fixes every shape, but a matcher needs a free number of goals. Its format allows
for ready-made models with symbolic sizes; the YAML then declares the shape for one goal.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
import yaml
from policy_server.bundle import load_bundle
from torch import Tensor, nn

from policy_training.rounding import ExportError, check_outputs, expected_outputs

LEAPP_CONFIG_VERSION = "1.3"
OPSET = 18


@dataclass(frozen=True)
class StageExport:
    """One ONNX file to be.

    Attributes:
        name: Node name; also its file's stem.
        module: Takes the inputs in order and returns a tensor or a tuple of them.
        inputs: Name → example, at least two rows along a free axis.
        outputs: Names.
        free: Inputs and outputs whose first axis is free.
        rows: Input or output with a free axis → its size in the YAML, where it is not 1.
        make_model: Makes the ONNX model where tracing the module would take long.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    free: frozenset[str] = frozenset()
    rows: Mapping[str, int] = field(default_factory=dict)
    make_model: Callable[[], onnx.ModelProto] | None = None


def export_onnx(stage: StageExport) -> bytes:
    """Export one stage to ONNX."""
    model = stage.make_model() if stage.make_model is not None else trace_onnx(stage)
    return bytes(model.SerializeToString())


def trace_onnx(stage: StageExport) -> onnx.ModelProto:
    """Trace the module of a stage."""
    example = tuple(stage.inputs.values())
    batch = torch.export.Dim("batch", min=1, max=65536)
    shapes = tuple({0: batch} if name in stage.free else None for name in stage.inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _no_garbage_collection():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            stage.module.eval(),
            example,
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_shapes=shapes if stage.free else None,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Tracing makes millions of objects; looking through them takes a fifth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def largest_difference(
    stage: StageExport, content: bytes, examples: Sequence[Mapping[str, Tensor]]
) -> float:
    """Largest difference of ONNX Runtime to the stage in double precision over the examples.

    Raises:
        ExportError: It is more than rounding explains.
    """
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for example in examples:
        expected = expected_outputs(stage.module, list(example.values()))
        feeds = {name: value.numpy() for name, value in example.items()}
        found = session.run(list(stage.outputs), feeds)
        named = dict(zip(stage.outputs, found, strict=True))
        differences = check_outputs(f"{stage.name}: ONNX Runtime", named, expected)
        worst = max(worst, *differences.values())
    return worst


def write_bundle(
    out: str | Path,
    stages: Sequence[StageExport],
    data_flow: Mapping[str, Sequence[str]],
    deployment: Mapping[str, Any],
    examples: Mapping[str, Sequence[Mapping[str, Tensor]]],
    frequency_hz: float,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Export, check and write a bundle to the directory `out`, replacing one that is there.

    Args:
        out: Directory; its name becomes the bundle's.
        stages: In order of execution.
        data_flow: `node/output` → `node/input`s.
        deployment: The section without `files` and `validation`.
        examples: Stage → inputs on which ONNX Runtime is compared with torch.
        frequency_hz: Rate of the pipeline.
        report: Told in words what comes next: large networks take a minute.

    Returns:
        The whole deployment section.

    Raises:
        ExportError: The name is not an identifier, or an output differs by more than rounding
            explains.
        BundleError: The strict reader refuses what was written.
    """
    target = Path(out)
    name = target.name
    if not name.isidentifier():
        raise ExportError(f"found bundle name {name!r}, expected an identifier")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        worst, models = 0.0, {}
        for number, stage in enumerate(stages, start=1):
            report(f"stage {stage.name} ({number} of {len(stages)}): exporting")
            content = export_onnx(stage)
            report(f"stage {stage.name} ({number} of {len(stages)}): comparing with the network")
            worst = max(worst, largest_difference(stage, content, examples[stage.name]))
            (folder / f"{stage.name}.onnx").write_bytes(content)
            models[stage.name] = _model_record(stage, content)
        fed = {to for destinations in data_flow.values() for to in destinations}
        section = dict(deployment) | {
            "files": {
                f"{stage.name}.onnx": models[stage.name]["parameters"]["sha256sum"]
                for stage in stages
            },
            "validation": {
                "passes": min(len(values) for values in examples.values()),
                "max_abs_error": worst,
            },
        }
        document = {
            "models": models,
            "pipeline": {
                "configs": {"frequency": frequency_hz},
                "data_flow": {source: list(to) for source, to in data_flow.items()},
                "feedback_flow": {},
                "inputs": {
                    stage.name: names
                    for stage in stages
                    if (names := [i for i in stage.inputs if f"{stage.name}/{i}" not in fed])
                },
                "outputs": {
                    stage.name: names
                    for stage in stages
                    if (names := [o for o in stage.outputs if f"{stage.name}/{o}" not in data_flow])
                },
            },
            "system information": {
                "leapp config version": LEAPP_CONFIG_VERSION,
                "python version": platform.python_version(),
                "torch version": str(torch.__version__),
            },
            "deployment": section,
        }
        file = folder / f"{name}.yaml"
        # Through JSON, so that nothing is shared: YAML would write anchors.
        plain = json.loads(json.dumps(document))
        file.write_text(yaml.safe_dump(plain, sort_keys=False))
        load_bundle(file)
        target.mkdir(parents=True, exist_ok=True)
        for old in [*target.glob("*.onnx"), *target.glob("*.yaml")]:
            old.unlink()
        for item in folder.iterdir():
            shutil.copyfile(item, target / item.name)
            (target / item.name).chmod(0o644)
    return section


def _model_record(stage: StageExport, content: bytes) -> dict[str, Any]:
    graph = onnx.load_from_string(content).graph

    def tensors(values: Sequence[Any]) -> list[dict[str, Any]]:
        records = []
        for value in values:
            kind = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            rows = stage.rows.get(value.name, 1)
            shape = [size.dim_value or rows for size in kind.shape.dim]
            records.append({"name": value.name, "dtype": dtype, "shape": shape, "type": "tensor"})
        return records

    return {
        "inputs": tensors(graph.input),
        "outputs": tensors(graph.output),
        "parameters": {
            "model_path": f"{stage.name}.onnx",
            "sha256sum": hashlib.sha256(content).hexdigest(),
            "backend": "onnx",
            "warp_segments": 0,
        },
    }
