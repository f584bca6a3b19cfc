#!/bin/bash
# rosbags-image 0.10.4 (rosbags 0.11.9, OpenCV 5.0.0.93, NumPy 2.4.6, Python 3.11): image_to_cvimage()
# ignores `step`. A valid sensor_msgs/Image whose rows are padded (4 bytes here) comes back skewed, of
# the right shape and without an error or warning; unpadded it comes back right. A valid nv12 image of
# 6 rows becomes rgb8 of 4 rows. Exit status 0: it behaves so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/check.py" <<'PYTHON'
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
from rosbags.image import image_to_cvimage

image = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)


def read(padding):
    rows = np.pad(image.reshape(6, 30), ((0, 0), (0, padding)))
    message = SimpleNamespace(
        height=6, width=10, step=rows.shape[1], encoding="rgb8", is_bigendian=0, data=rows.ravel()
    )
    found = image_to_cvimage(message)
    assert found.shape == image.shape and found.dtype == image.dtype
    return bool(np.array_equal(found, image))


# 6 rows of brightness, 3 of colours.
message = SimpleNamespace(
    height=6, width=10, step=10, encoding="nv12", is_bigendian=0, data=np.full(90, 128, np.uint8)
)
nv12_rows = len(image_to_cvimage(message, "rgb8"))
without, padded = read(0), read(4)
print(
    "rosbags-image", version("rosbags-image"), "equal without padding:", without,
    "with padding:", padded, "rows of nv12 with 6:", nv12_rows,
)
sys.exit(not (without and not padded and nv12_rows == 4))
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check rosbags-image==0.10.4 rosbags==0.11.9 \
    opencv-python-headless==5.0.0.93 numpy==2.4.6
"$work/venv/bin/python" "$work/check.py"
