import re
from pathlib import Path

import numpy as np
import pytest
from policy_server.safetensors_file import write_safetensors
from safetensors.numpy import load_file

SOURCES = Path(__file__).resolve().parents[3] / "ros2_ws" / "src"
PLAIN = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
LAYOUTS = {
    "plain": PLAIN,
    "transposed": PLAIN.T,
    "axes moved": np.moveaxis(PLAIN, 0, 1),
    "strided": PLAIN[:, ::2, 1::3],
    "reversed": PLAIN[::-1],
    "Fortran": np.asfortranarray(PLAIN),
    "repeated": np.broadcast_to(PLAIN[0], (3, 5, 6)),
    "concatenated Fortran": np.concatenate([np.asfortranarray(PLAIN[0])] * 2),
    "big-endian": PLAIN.astype(">f4"),
    "big-endian, transposed": PLAIN.astype(">f4").T,
    "field of a record": np.stack([PLAIN, -PLAIN], axis=-1)[..., 1],
    "images, channels first": np.moveaxis(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), -1, 0),
    "without axes": np.array(3.5),
    "empty": PLAIN[:0].T,
    "bools": (PLAIN > 7).T,
    "integers": PLAIN.astype(np.int64)[:, :, ::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_is_what_was_written(layout, tmp_path):
    array = LAYOUTS[layout]
    file = tmp_path / "a.safetensors"
    before = array.copy()
    write_safetensors(file, {"a": array, "b": PLAIN})
    found = load_file(file)
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].shape == array.shape
    assert found["a"].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["b"], PLAIN)
    np.testing.assert_array_equal(array, before)


def test_numpy_scalars_are_written(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"a": np.float32(2.5)})
    assert load_file(tmp_path / "a.safetensors")["a"] == np.float32(2.5)


def test_nothing_else_writes_numpy_arrays_with_safetensors():
    writes = re.compile(r"safetensors\.numpy import .*\bsave|safetensors\.numpy\.save")
    found = {path.name for path in SOURCES.rglob("*.py") if writes.search(path.read_text())}
    assert found == {"safetensors_file.py"}
