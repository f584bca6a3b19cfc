"""NumPy arrays as a safetensors file, whatever lies behind them in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
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
