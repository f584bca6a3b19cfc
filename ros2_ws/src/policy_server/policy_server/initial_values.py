"""Initial values of recurrent tensors, stored by LEAPP in a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}


def parse_safetensors(file: Path, content: bytes) -> dict[str, NDArray[Any]]:
    """Read the tensors of a safetensors file.

    Args:
        file: the file's path, for messages.
        content: its bytes: an 8-byte little-endian header length, a JSON header, raw data.

    Returns:
        Tensor name → array (a copy, row-major).

    Raises:
        BundleError: the bytes are not a well-formed safetensors file.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise BundleError(file, "", f"{len(content)} bytes", "a complete safetensors file")
    try:
        header = json.loads(content[8 : 8 + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        data = memoryview(content)[8 + length :]
        tensors = {}
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= len(data):
                raise ValueError(f"{name} lies outside the data")
            dtype = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
            flat = np.frombuffer(data[begin:end], dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"]).astype(dtype.newbyteorder("="))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(file, "", f"a bad header ({error})", "a safetensors file") from None
    return tensors
