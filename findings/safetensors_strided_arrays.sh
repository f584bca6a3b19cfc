#!/bin/bash
# safetensors 0.8.0 with NumPy 2.4.6 (Python 3.11): save_file() writes a transposed, strided, reversed,
# broadcast or Fortran-ordered array as its memory lies. Shape and dtype in the file are those of the
# array, the elements are others, and there is no error or warning. safetensors 0.7.0 with the same
# calls wrote the right elements. Exit status 0: both behave so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/check.py" <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

plain = np.arange(12, dtype=np.float32).reshape(3, 4)
arrays = {
    "contiguous": plain,
    "transposed": plain.T,
    "strided": plain[:, ::2],
    "reversed": plain[::-1],
    "Fortran": np.asfortranarray(plain),
    "broadcast": np.broadcast_to(plain[0], (3, 4)),
}
same = {}
for name, array in arrays.items():
    save_file({"a": array}, sys.argv[1])
    found = load_file(sys.argv[1])["a"]
    assert found.shape == array.shape and found.dtype == array.dtype
    same[name] = bool(np.array_equal(found, array))
print(safetensors.__version__, "read back equal:", same)
wrong = [name for name, equal in same.items() if not equal]
expected = list(arrays)[1:] if safetensors.__version__ == "0.8.0" else []
sys.exit(wrong != expected)
PYTHON
for version in 0.7.0 0.8.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install -q --disable-pip-version-check "safetensors==$version" numpy==2.4.6
    "$work/$version/bin/python" -W error "$work/check.py" "$work/file.safetensors"
done
