"""Command line: look at, check and change topological maps.

ros2 run gnm_nav edit_map info maps/office
ros2 run gnm_nav edit_map name maps/office kitchen 42
ros2 run gnm_nav edit_map merge maps/day_1 maps/day_2 --out maps/office --bundle gnm_sim
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import rustworkx as rx
from node_common.strict_yaml import BundleError
from policy_server.engine import InferenceError

from gnm_nav.build_map import add_model_arguments, describe, load_model, without_ros_arguments
from gnm_nav.map_directory import load_map, save_map
from gnm_nav.map_editing import Change, convert, merge, name_node, prune, repair
from gnm_nav.topological_map import MapError, TopologicalMap


def information(topological_map: TopologicalMap) -> list[str]:
    """Lines about a map, for people."""
    model = topological_map.model
    parts = rx.strongly_connected_components(topological_map.graph)
    lines = [
        f"name        {topological_map.name}",
        f"model       {model.kind} {model.name} ({model.fingerprint[:12]})",
        f"size        {describe(topological_map)}",
        f"parts       {rx.number_weakly_connected_components(topological_map.graph)} connected; "
        f"within {max(map(len, parts))} nodes every node can be reached from every other",
        f"poses       {'yes' if topological_map.poses is not None else 'no'}",
        f"embeddings  {'yes' if topological_map.embeddings is not None else 'no'}",
        f"pictures    {'yes' if len(topological_map.pictures) else 'no'}",
    ]
    if topological_map.drives is not None:
        lines.append(f"drives      {len(set(topological_map.drives.tolist()))}")
    lines += [f"name        {name}: {node}" for name, node in sorted(topological_map.names.items())]
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edit_map", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, maps: str = "?") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        if maps == "+":
            added.add_argument("map", type=Path, nargs="+")
        else:
            added.add_argument("map", type=Path)
        return added

    command("info", "check every file of a map and describe it")
    named = command("name", "give a node a name, or take a name away")
    named.add_argument("name")
    named.add_argument("node", type=int, nargs="?", help="absent: take the name away")
    merged = command("merge", "join maps that share places", "+")
    merged.add_argument("--out", type=Path, required=True)
    merged.add_argument("--allow-apart", action="store_true", help="also maps that share no place")
    add_model_arguments(merged)
    for name, text in (
        ("prune", "take out nodes that tell nothing new"),
        ("repair", "test every edge with the network and mend what is broken"),
        ("convert", "make the map one of another network"),
    ):
        changed = command(name, text)
        changed.add_argument("--out", type=Path, help="absent: replace the map")
        if name != "prune":
            add_model_arguments(changed)
    return parser


def _change(arguments: argparse.Namespace) -> Change:
    if arguments.command == "merge":
        return merge(
            [load_map(path) for path in arguments.map],
            load_model(arguments),
            name=arguments.out.name,
            allow_apart=arguments.allow_apart,
        )
    loaded = load_map(arguments.map)
    if arguments.command == "name":
        return Change(name_node(loaded, arguments.name, arguments.node), ())
    if arguments.command == "prune":
        return prune(loaded)
    change = convert if arguments.command == "convert" else repair
    return change(loaded, load_model(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parsed = _parser().parse_args(without_ros_arguments(arguments))
    try:
        if parsed.command == "info":
            print("\n".join(information(load_map(parsed.map))))
            return 0
        change = _change(parsed)
        out = getattr(parsed, "out", None) or parsed.map
        save_map(change.map, out)
    except (MapError, BundleError, InferenceError, OSError, ValueError) as error:
        print(f"edit_map: {error}", file=sys.stderr)
        return 1
    for line in change.report:
        print(line)
    print(f"{out}: {describe(change.map)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
