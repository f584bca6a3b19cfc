"""Command line: build a topological map of recorded drives.

    ros2 run gnm_nav build_map --bag drive_1 --bag drive_2 --out maps/office --bundle gnm_sim

Several bags make one map; they must share a stretch of way to be joined.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from policy_server.bundle import MODEL_PATH_VARIABLE, find_bundle, model_search_path
from policy_server.engine import InferenceError
from policy_server.navigation_model import NavigationModel, load_navigation_model
from policy_server.strict_yaml import BundleError

from gnm_nav.drive_bag import BagError, read_drive
from gnm_nav.map_building import BuilderConfig, MapBuilder
from gnm_nav.map_directory import MAP_FILE, save_map
from gnm_nav.topological_map import EdgeKind, MapError, TopologicalMap


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that choose the network."""
    parser.add_argument(
        "--bundle",
        default="gnm_sim",
        help="navigation model: path of a bundle, or its name below "
        f"{MODEL_PATH_VARIABLE} (default: models/ here or above; %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (%(default)s)")


def load_model(arguments: argparse.Namespace) -> NavigationModel:
    """The network that the options choose.

    Raises:
        BundleError: there is no such bundle, or it is broken.
    """
    start_points = [Path.cwd(), Path(__file__).resolve()]
    file = find_bundle(arguments.bundle, model_search_path(os.environ, start_points))
    return load_navigation_model(file, threads=arguments.threads)


def refuse_overwriting(out: Path, overwrite: bool) -> None:
    """Refuse to replace a map unless that is wanted.

    Raises:
        BagError: there is a map already.
    """
    if (out / MAP_FILE).exists() and not overwrite:
        raise BagError(f"{out}: found a map, expected a new path or --overwrite")


def describe(topological_map: TopologicalMap) -> str:
    """Size of a map, for people."""
    kinds = topological_map.edges["kind"]
    counts = ", ".join(f"{int((kinds == kind).sum())} {kind.name.lower()}" for kind in EdgeKind)
    return f"{len(topological_map)} nodes, {len(kinds)} edges ({counts})"


def build(arguments: argparse.Namespace) -> TopologicalMap:
    """Read the bags and build.

    Raises:
        BagError, MapError, BundleError: what is wrong with which of them.
    """
    model = load_model(arguments)
    builder = MapBuilder(model, BuilderConfig(spacing_steps=arguments.spacing_steps))
    odometry = "" if arguments.no_poses else arguments.odometry_topic
    for bag in arguments.bag:
        before, images, poses = len(builder), 0, 0
        for seen in read_drive(bag, arguments.image_topic, odometry):
            builder.add(seen.image, seen.stamp_s, seen.pose)
            images += 1
            poses += seen.pose is not None
        builder.end_drive()
        print(
            f"{bag}: {images} images, {poses} with a pose: {len(builder) - before} nodes, "
            f"{builder.closures} closures so far",
            file=sys.stderr,
        )
    return builder.finish(name=Path(arguments.out).name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="build_map", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--bag", action="append", required=True, help="rosbag2 bag; may be repeated"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the map")
    parser.add_argument("--overwrite", action="store_true", help="replace a map that is there")
    parser.add_argument("--image-topic", default="camera/image_raw", help="%(default)s")
    parser.add_argument("--odometry-topic", default="odom", help="%(default)s")
    parser.add_argument("--no-poses", action="store_true", help="ignore odometry")
    parser.add_argument(
        "--spacing-steps", type=float, default=4.0, help="model steps between nodes (%(default)s)"
    )
    add_model_arguments(parser)
    parsed = parser.parse_args(arguments)
    try:
        refuse_overwriting(parsed.out, parsed.overwrite)
        built = build(parsed)
        save_map(built, parsed.out)
    except (BagError, MapError, BundleError, InferenceError, ValueError) as error:
        print(f"build_map: {error}", file=sys.stderr)
        return 1
    print(f"{parsed.out}: {describe(built)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
