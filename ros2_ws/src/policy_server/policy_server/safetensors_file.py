"""NumPy arrays in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from node_common.strict_yaml import BundleError
from numpy.typing import NDArray


def write_safetensors(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file that holds the arrays.

    safetensors 0.8 writes memory as it lies: of a transposed, strided, reversed or Fortran-ordered
    array, other elements under the same shape, without an error.

    Args:
        file: To write or replace.
        arrays: Name → array of numbers or bools, of any strides and byte order.

    Raises:
        safetensors.SafetensorError, KeyError: A dtype that the format does not know.
    """
    plain = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        plain[name] = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    safetensors.numpy.save_file(plain, file)


def parse_safetensors(file: Path, content: bytes) -> dict[str, NDArray[Any]]:
    """Read the tensors of a safetensors file.

    Args:
        file: the file's path, for messages.
        content: its bytes.

    Returns:
        Tensor name → array (a copy, row-major).

    Raises:
        BundleError: the bytes are no well-formed safetensors file, or of a dtype that NumPy lacks.
    """
    try:
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BundleError(file, "", f"bytes ({error})", "a safetensors file") from None
    return {name: array.copy() for name, array in tensors.items()}
