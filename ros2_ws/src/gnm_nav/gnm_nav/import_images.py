"""Command line: make a map of a folder of numbered images, as the original deployment keeps them.

ros2 run gnm_nav import_images --images topomaps/images/office --out maps/office
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from policy_server.engine import InferenceError
from policy_server.strict_yaml import BundleError

from gnm_nav.build_map import (
    add_model_arguments,
    describe,
    load_model,
    refuse_overwriting,
    without_ros_arguments,
)
from gnm_nav.drive_bag import BagError
from gnm_nav.map_directory import numbered_images, save_map
from gnm_nav.map_editing import from_pictures
from gnm_nav.topological_map import MapError


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="import_images", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--images", type=Path, required=True, help="folder with 0.png, 1.png, …")
    parser.add_argument("--out", type=Path, required=True, help="directory of the map")
    parser.add_argument("--overwrite", action="store_true", help="replace a map that is there")
    parser.add_argument(
        "--dt-s", type=float, default=1.0, help="time between two images of the drive (%(default)s)"
    )
    add_model_arguments(parser)
    parsed = parser.parse_args(without_ros_arguments(arguments))
    try:
        refuse_overwriting(parsed.out, parsed.overwrite)
        pictures = [file.read_bytes() for file in numbered_images(parsed.images)]
        imported = from_pictures(
            pictures, load_model(parsed), dt_s=parsed.dt_s, name=parsed.out.name
        )
        save_map(imported, parsed.out)
    except (BagError, MapError, BundleError, InferenceError, OSError, ValueError) as error:
        print(f"import_images: {error}", file=sys.stderr)
        return 1
    print(f"{parsed.out}: {describe(imported)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
