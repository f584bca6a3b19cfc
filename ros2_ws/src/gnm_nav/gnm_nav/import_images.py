"""Command line: make a map of a folder of numbered images, as the original deployment keeps them.

ros2 run gnm_nav import_images --images topomaps/images/office --out maps/office
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from node_common.strict_yaml import BundleError
from policy_server.engine import InferenceError

from gnm_nav.build_map import (
    add_model_arguments,
    describe,
    load_model,
    refuse_overwriting,
    without_ros_arguments,
)
from gnm_nav.drive_bag import BagError
from gnm_nav.map_directory import decode_picture, numbered_images, save_map
from gnm_nav.map_editing import from_pictures
from gnm_nav.topological_map import MapError


def _storable(file: Path) -> bytes:
    """The bytes of a PNG or JPEG file; what another format holds, as PNG."""
    content = file.read_bytes()
    if file.suffix.lower() in (".png", ".jpg", ".jpeg"):
        return content
    image = decode_picture(content, file)
    return bytes(cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="import_images",
        description=(__doc__ or "").split("\n")[0],
        epilog="The original deployment resizes whole images, though its networks are trained on "
        "images that are cropped to 4:3 first. Here all images are cropped as in training: with a "
        "camera of another shape, the same checkpoint sees less at the sides, undistorted.",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        help="folder with 0.png, 1.png, …; PNG, JPEG, WebP, BMP, TIFF",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the map")
    parser.add_argument("--overwrite", action="store_true", help="replace a map that is there")
    parser.add_argument(
        "--dt-s",
        type=float,
        default=1.0,
        help="time between two images of the drive; create_topomap with --dt 1 on a bag that is "
        "played at rate 1.5 makes 1.5 (%(default)s)",
    )
    add_model_arguments(parser)
    parsed = parser.parse_args(without_ros_arguments(arguments))
    try:
        refuse_overwriting(parsed.out, parsed.overwrite)
        if not 0.0 < parsed.dt_s < 1e3:
            raise ValueError(f"found --dt-s {parsed.dt_s:g}, expected a positive time in s")
        files = numbered_images(parsed.images)
        imported = from_pictures(
            [_storable(file) for file in files.values()],
            load_model(parsed),
            numbers=list(files),
            dt_s=parsed.dt_s,
            name=parsed.out.name,
        )
        save_map(imported, parsed.out)
    except (BagError, MapError, BundleError, InferenceError, OSError, ValueError) as error:
        print(f"import_images: {error}", file=sys.stderr)
        return 1
    print(f"{parsed.out}: {describe(imported)}")
    gaps = [(a, b) for a, b in itertools.pairwise(files) if b - a > 1]
    if gaps:
        told = ", ".join(f"{a} → {b}" for a, b in gaps[:10]) + (", …" if len(gaps) > 10 else "")
        print(f"{parsed.out}: numbers are missing; longer edges join {told}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
