"""Command line: build a topological map of recorded drives.

    ros2 run gnm_nav build_map --bag drive_1 --bag drive_2 --out maps/office --bundle gnm_sim

Several bags make one map; they must share a stretch of way to be joined.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from node_common.strict_yaml import BundleError
from policy_server.bundle import MODEL_PATH_VARIABLE, find_bundle, model_search_path
from policy_server.engine import InferenceError
from policy_server.navigation_model import NavigationModel, load_navigation_model
from rclpy.utilities import remove_ros_args

from gnm_nav.drive_bag import BagError, DriveCounts, read_drive
from gnm_nav.map_building import BuilderConfig, BuilderCounts, MapBuilder
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


def without_ros_arguments(arguments: Sequence[str] | None) -> list[str]:
    """The program's own arguments: a launch file adds `--ros-args` with what is for nodes.

    Args:
        arguments: None: those of the command line.
    """
    return remove_ros_args(["", *(sys.argv[1:] if arguments is None else arguments)])[1:]


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
        before, found, builder.counts = len(builder), DriveCounts(), BuilderCounts()
        drive = read_drive(
            bag,
            arguments.image_topic,
            odometry,
            recording_time=arguments.recording_time,
            counts=found,
        )
        for seen in drive:
            builder.add(seen.image, seen.stamp_s, seen.pose)
        builder.end_drive()
        used = builder.counts
        fault = used.stamp_fault()
        if used.taken < used.without_newer_stamp:
            raise BagError(
                f"{bag}: {fault}, expected stamps that rise; where the camera gives none, "
                "--recording-time takes the times of the recording"
            )
        nodes = f"{len(builder) - before} nodes, {builder.closures} closures so far"
        bad = f", {found.bad} bad" if found.bad else ""
        print(
            f"{bag}: {found.images} images{bad}, {found.poses} with a pose: {nodes}",
            file=sys.stderr,
        )
        for note in _notes(found, used, fault):
            print(f"{bag}: {note}", file=sys.stderr)
    return builder.finish(name=Path(arguments.out).name)


def _notes(found: DriveCounts, used: BuilderCounts, stamp_fault: str) -> Iterator[str]:
    """What the one who recorded a bag should know."""
    if found.unfinished:
        yield "the recording was cut off; what is there was read"
    if found.bad:
        yield f"{found.bad} images left out: {found.fault}"
    if stamp_fault:
        yield f"{stamp_fault} and were left out"
    if used.drives:
        yield f"{used.drives} gaps in time; the drives between them are joined by closures only"
    if found.odometry_left_out:
        yield (
            f"{found.odometry_left_out} of {found.odometry} odometry messages left out: "
            "out of order in time, or without a pose"
        )
    if 0 < found.poses < found.images - found.bad:
        yield "images without a pose: a map with one of them as a node has no poses"
    for stamp_s, jump_m in used.jumps:
        yield (
            f"odometry jumps by {jump_m:.1f} m at {stamp_s:.3f} s, which no base drives: "
            "poses after it are put into a frame without the jump"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="build_map", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--bag", action="append", required=True, help="bag, or file of one; may be repeated"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the map")
    parser.add_argument("--overwrite", action="store_true", help="replace a map that is there")
    parser.add_argument("--image-topic", default="camera/image_raw", help="%(default)s")
    parser.add_argument("--odometry-topic", default="odom", help="%(default)s")
    parser.add_argument("--no-poses", action="store_true", help="ignore odometry")
    parser.add_argument(
        "--recording-time",
        action="store_true",
        help="take the times of the recording, not the stamps of the messages",
    )
    parser.add_argument(
        "--spacing-steps", type=float, default=4.0, help="model steps between nodes (%(default)s)"
    )
    add_model_arguments(parser)
    parsed = parser.parse_args(without_ros_arguments(arguments))
    try:
        refuse_overwriting(parsed.out, parsed.overwrite)
        built = build(parsed)
        save_map(built, parsed.out)
    except (BagError, MapError, BundleError, InferenceError, OSError, ValueError) as error:
        print(f"build_map: {error}", file=sys.stderr)
        return 1
    print(f"{parsed.out}: {describe(built)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
