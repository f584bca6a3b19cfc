"""Unrolls a loop in ONNX: one step is traced once and repeated in the file.

Tracing ten steps of a large network takes ten times as long, and makes the same nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper

_DOMAIN = "unrolled"


def unroll(
    step: onnx.ModelProto,
    carried: tuple[str, str],
    constants: Sequence[Mapping[str, NDArray[Any]]],
    last: onnx.ModelProto,
    start: str,
) -> onnx.ModelProto:
    """A model that runs `step` once per entry of `constants`, and then `last` on the result.

    Args:
        step: One step.
        carried: Its input that is the last step's output, and that output, its only one.
        constants: Values of further inputs of the step. The rest are inputs of the whole.
        last: One input and any outputs, which are those of the whole.
        start: Name of the input that the first step is given.

    Returns:
        The model, checked. Weights are stored once.
    """
    last = onnx.compose.add_prefix(last, "last/", rename_inputs=False, rename_outputs=False)
    fed, result = carried
    given = [
        value for value in step.graph.input if value.name != fed and value.name not in constants[0]
    ]
    first = onnx.ValueInfoProto()
    first.CopyFrom(next(value for value in step.graph.input if value.name == fed))
    first.name = start
    weights = [*step.graph.initializer, *last.graph.initializer]
    nodes = []
    value = start
    for number, values in enumerate(constants):
        names = {fed: value} | {name: f"{name}/{number}" for name in values}
        weights += [
            numpy_helper.from_array(np.asarray(array), names[name])
            for name, array in values.items()
        ]
        value = f"{result}/{number}"
        inputs = [names.get(name, name) for name in _function_inputs(step)]
        nodes.append(helper.make_node("step", inputs, [value], domain=_DOMAIN))
    (taken,) = [entry.name for entry in last.graph.input]
    inputs = [value if name == taken else name for name in _function_inputs(last)]
    outputs = [entry.name for entry in last.graph.output]
    nodes.append(helper.make_node("last", inputs, outputs, domain=_DOMAIN))
    graph = helper.make_graph(
        nodes, step.graph.name, [first, *given], last.graph.output, initializer=weights
    )
    model = helper.make_model(
        graph,
        opset_imports=[*step.opset_import, helper.make_opsetid(_DOMAIN, 1)],
        functions=[_function("step", step), _function("last", last)],
        ir_version=step.ir_version,
    )
    model = inliner.inline_local_functions(model)
    onnx.checker.check_model(model)
    return model


def _function_inputs(model: onnx.ModelProto) -> list[str]:
    return [entry.name for entry in (*model.graph.input, *model.graph.initializer)]


def _function(name: str, model: onnx.ModelProto) -> onnx.FunctionProto:
    return helper.make_function(
        _DOMAIN,
        name,
        _function_inputs(model),
        [entry.name for entry in model.graph.output],
        model.graph.node,
        model.opset_import,
    )
