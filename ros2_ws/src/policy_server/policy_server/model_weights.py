"""The numbers in an ONNX file, beside it and in its subgraphs: all are there, all can be used.

Some kernels turn what is not a number into one (OpenVINO's Relu and Clip on CPUs), so a spoilt
weight may show in no output. It is looked for in the file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

_FLOATING = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
    TensorProto.COMPLEX64,
    TensorProto.COMPLEX128,
)
_MULTIPLYING = frozenset(
    ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "Attention")
) | frozenset(f"{kind}Normalization" for kind in ("Batch", "Layer", "Instance", "Group", "RMS"))
"""Operators whose parameters are learned; an infinity among them is an overflow."""
_MASK_SHARE = 0.1
"""A mask hides at least so much of what it is added to."""


def check_weights(
    file: Path, name: str, content: bytes, listed: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Check every number of a model, and find the files that hold some of them.

    Not-a-numbers are refused everywhere: initializers, constants, attributes, also in subgraphs
    and functions. Infinities are refused where they cannot be meant: in the parameters of layers,
    and in tensors of other numbers. A tensor whose other numbers are all equal is a bound (of
    Clip) or a mask (0 and -inf), and one with a tenth of infinities is a mask with a bias: they
    pass.

    Args:
        file: the bundle's YAML file.
        name: the model's file as `deployment.files` lists it.
        content: its bytes.
        listed: name → bytes of every listed file.

    Returns:
        Place as the model writes it → bytes, of each file with tensors that lie beside the model.

    Raises:
        BundleError: the file is no ONNX model, a tensor lies in a file that is not listed, or a
            number cannot be used.
    """
    path = file.parent / name
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise BundleError(path, "", "no ONNX file", "a model that can be loaded") from None
    if not model.HasField("graph"):
        raise BundleError(path, "", "no graph", "a model that can be loaded")
    external: dict[str, bytes] = {}
    nodes = [*_nodes(model.graph), *(node for f in model.functions for node in f.node)]
    layers = {tensor for node in nodes if node.op_type in _MULTIPLYING for tensor in node.input}
    for label, tensor in _tensors(model.graph, nodes):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor = _with_data(path, name, label, tensor, listed, external)
        if tensor.data_type in _FLOATING:
            try:
                values = numpy_helper.to_array(tensor)
            except Exception as error:  # as many kinds as there are ways to spoil a tensor
                raise BundleError(path, label, error, "a complete tensor") from None
            _check_numbers(path, label, values, label in layers)
    for label, numbers in _attribute_numbers(nodes):
        _check_numbers(path, label, np.array(numbers), False)
    return external


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _graphs(graph: GraphProto, nodes: list[NodeProto]) -> Iterator[GraphProto]:
    yield graph
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
            yield from attribute.graphs


def _tensors(graph: GraphProto, nodes: list[NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    """Every tensor with numbers, under the name by which nodes use it."""
    for inner in _graphs(graph, nodes):
        for tensor in inner.initializer:
            yield tensor.name, tensor
        for sparse in inner.sparse_initializer:
            yield sparse.values.name, sparse.values
    for node in nodes:
        label = node.output[0] if node.output else node.name
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield label, attribute.t
            if attribute.HasField("sparse_tensor"):
                yield label, attribute.sparse_tensor.values
            for tensor in attribute.tensors:
                yield label, tensor
            for sparse in attribute.sparse_tensors:
                yield label, sparse.values


def _attribute_numbers(nodes: list[NodeProto]) -> Iterator[tuple[str, list[float]]]:
    for node in nodes:
        for attribute in node.attribute:
            numbers = [*attribute.floats]
            if attribute.type == AttributeProto.FLOAT:
                numbers.append(attribute.f)
            if numbers:
                label = node.output[0] if node.output else node.name
                yield f"{label}.{attribute.name}", numbers


def _with_data(
    path: Path,
    name: str,
    label: str,
    tensor: TensorProto,
    listed: Mapping[str, bytes],
    external: dict[str, bytes],
) -> TensorProto:
    """The tensor with its data in it; remembers the file in `external`."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(name), location))
    data = {posixpath.normpath(other): content for other, content in listed.items()}.get(wanted)
    if data is None or not location or posixpath.isabs(location):
        raise BundleError(
            path,
            label,
            f'its data in the file "{location}", which is not listed',
            f"a listed file inside the bundle: list it in deployment.files as {wanted}, with its "
            "SHA-256",
        )
    external[location] = data
    try:
        start = int(entries.get("offset", 0))
        end = start + int(entries["length"]) if "length" in entries else len(data)
    except ValueError:
        raise BundleError(path, label, entries, "whole numbers as offset and length") from None
    if not 0 <= start <= end <= len(data):
        raise BundleError(
            path, label, f"bytes {start} to {end} of {wanted}", f"bytes 0 to {len(data)} at most"
        )
    complete = TensorProto()
    complete.CopyFrom(tensor)
    complete.ClearField("external_data")
    complete.data_location = TensorProto.DEFAULT
    complete.raw_data = data[start:end]
    return complete


def _check_numbers(path: Path, label: str, values: NDArray[Any], layer: bool) -> None:
    # The small types of ml_dtypes have no `isnan` in every release; float32 holds all of theirs.
    numbers = values if values.dtype.itemsize >= 4 else values.astype(np.float32)
    if np.isfinite(numbers).all():
        return
    nans, infinities = np.isnan(numbers), np.isinf(numbers)
    wrong = nans
    if not nans.any():
        others = numbers[~infinities]
        mask = others.size == 0 or (others == others[0]).all() or infinities.mean() >= _MASK_SHARE
        if mask and not layer:
            return
        wrong = infinities
    index = [int(i) for i in np.argwhere(wrong)[0]]
    found = f"{numbers[tuple(index)]} at {index}, {int(wrong.sum())} of {wrong.size} such numbers"
    raise BundleError(path, f"weights {label}", found, "finite numbers: export the model again")
