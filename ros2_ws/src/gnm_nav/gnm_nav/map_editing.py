"""Changes to finished maps: merging drives, pruning, repair, another network, imported images."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from node_common.image_conversion import ImageConverter
from numpy.typing import NDArray

from gnm_nav.localiser import place_descriptors
from gnm_nav.loop_closure import (
    ClosureConfig,
    ClosureRun,
    Edge,
    find_sighting,
    standing_observation,
)
from gnm_nav.map_building import BuilderConfig, turn_edges
from gnm_nav.map_directory import decode_picture
from gnm_nav.topological_map import (
    EDGE_DTYPE,
    EdgeKind,
    MapCode,
    MapError,
    MapModel,
    TopologicalMap,
    edge_array,
    new_name_fault,
)

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationModel

_BATCH = 64


@dataclass(frozen=True)
class Change:
    """A changed map.

    Attributes:
        map: the new map.
        report: what was changed, one line each, for people.
    """

    map: TopologicalMap
    report: tuple[str, ...]


def merge(
    maps: Sequence[TopologicalMap],
    model: NavigationModel,
    closure: ClosureConfig | None = None,
    *,
    name: str = "map",
    allow_apart: bool = False,
) -> Change:
    """Join maps of several drives into one, by the places that they share.

    Where all maps have poses, each map's poses are moved into the frame of the first one by the
    shared places; a map whose poses cannot be placed takes the poses from all. A map of which all
    nodes are in those before it, as the same one once more, is left out.

    Args:
        maps: at least one, all of this network; ids of the first stay, the others' follow.
        model: the network.
        closure: when two nodes count as views of the same way.
        name: of the result.
        allow_apart: accept maps that share no place.

    Raises:
        MapError: OTHER_MODEL; NOT_CONNECTED: a map shares no place with those before it.
    """
    config = closure or ClosureConfig()
    for part in maps:
        _check_model(part, model)
    merged, report = maps[0], []
    known = _views(merged)
    for number, part in enumerate(maps[1:], 2):
        views = _views(part)
        if views <= known:
            report.append(
                f"map {number}, {part.name!r}, left out: all of its nodes are in those before it"
            )
            continue
        known |= views
        merged, lines = _merge_two(merged, part, model, config, allow_apart)
        report += lines
    return Change(dataclasses.replace(merged, name=name), tuple(report))


def prune(
    topological_map: TopologicalMap, *, redundant_steps: float = 2.5, max_edge_steps: float = 8.0
) -> Change:
    """Take out nodes that tell nothing new: views of a way that has other views there.

    A node goes when a closure leads from it to another node within `redundant_steps`, and every
    way through it can be bridged by an edge of at most `max_edge_steps`. Named nodes, ends of
    drives and nodes with turns stay.
    """
    keep = np.ones(len(topological_map), bool)
    keep[list(topological_map.names.values())] = False
    removable = keep.copy()
    keep[:] = True
    outgoing: list[dict[int, tuple[float, int]]] = [{} for _ in range(len(keep))]
    incoming: list[dict[int, tuple[float, int]]] = [{} for _ in range(len(keep))]
    for a, b, steps, kind in topological_map.edges.tolist():
        outgoing[a][b] = incoming[b][a] = (steps, kind)
    for node in range(len(keep)):
        into, out = incoming[node], outgoing[node]
        twins = [
            steps
            for steps, kind in out.values()
            if kind == EdgeKind.CLOSURE and steps <= redundant_steps
        ]
        turns = any(kind == EdgeKind.TURN for _, kind in [*into.values(), *out.values()])
        if not removable[node] or turns or not twins or not into:
            continue
        bridges = [
            (a, b, before + after, max(kind_in, kind_out))
            for a, (before, kind_in) in into.items()
            for b, (after, kind_out) in out.items()
            if a != b
        ]
        if any(steps > max_edge_steps for _, _, steps, _ in bridges):
            continue
        keep[node] = False
        for a in into:
            del outgoing[a][node]
        for b in out:
            del incoming[b][node]
        for a, b, steps, kind in bridges:
            if steps < outgoing[a].get(b, (math.inf, 0))[0]:
                outgoing[a][b] = incoming[b][a] = (steps, kind)
    edges = [
        (a, b, steps, kind)
        for a in np.flatnonzero(keep).tolist()
        for b, (steps, kind) in outgoing[a].items()
    ]
    pruned = select(dataclasses.replace(topological_map, edges=_edges(edges)), keep)
    return Change(pruned, (f"{int((~keep).sum())} redundant nodes of {len(keep)} taken out",))


def repair(
    topological_map: TopologicalMap,
    model: NavigationModel,
    closure: ClosureConfig | None = None,
    *,
    broken_steps: float = 15.0,
) -> Change:
    """Test every edge with the network and mend what is broken.

    Closures that the network does not confirm are taken out. A chain edge that it does not confirm
    stays, as it was driven, but is reported. Neighbours of one drive without an edge are joined
    where the network confirms it. Nodes without any edge are taken out unless they have a name.

    Args:
        topological_map: a map of this network.
        model: the network.
        closure: when two nodes count as views of the same way.
        broken_steps: distance from which an edge counts as not confirmed.

    Raises:
        MapError: OTHER_MODEL.
    """
    _check_model(topological_map, model)
    config = closure or ClosureConfig()
    report: list[str] = []
    edges: list[Edge] = []
    gaps = _gaps(topological_map)
    wanted: dict[int, list[tuple[int, float | None, int]]] = {}
    for a, b, steps, kind in topological_map.edges.tolist():
        wanted.setdefault(a, []).append((b, steps, kind))
    for a, b in gaps:
        wanted.setdefault(a, []).append((b, None, EdgeKind.CHAIN))
    for a, leaving in wanted.items():
        observation = standing_observation(model, topological_map.images[a])
        ends = [b for b, _, _ in leaving]
        seen = model.match(observation, np.asarray(topological_map.images[ends])).distances
        for (b, steps, kind), distance in zip(leaving, map(float, seen), strict=True):
            if steps is None:
                if distance <= config.max_steps + config.tolerance_steps:
                    edges.append((a, b, max(distance, 0.5), kind))
                    report.append(f"edge {a} → {b} added: {distance:.1f} steps")
            elif kind == EdgeKind.CLOSURE and distance > steps + broken_steps / 2.0:
                report.append(
                    f"closure {a} → {b} taken out: {distance:.1f} steps instead of {steps:.1f}"
                )
            else:
                if kind == EdgeKind.CHAIN and distance > broken_steps:
                    report.append(f"edge {a} → {b} is doubtful: {distance:.1f} steps, driven once")
                edges.append((a, b, steps, kind))
    array = _edges(edges)
    linked = np.zeros(len(topological_map), bool)
    linked[array["a"]] = linked[array["b"]] = True
    linked[list(topological_map.names.values())] = True
    lonely = np.flatnonzero(~linked).tolist()
    if lonely and len(topological_map) > len(lonely):
        report.append(f"nodes without an edge taken out: {', '.join(map(str, lonely))}")
    else:
        linked[:] = True
    mended = select(dataclasses.replace(topological_map, edges=array), linked)
    return Change(mended, tuple(report) or ("nothing to mend",))


def convert(
    topological_map: TopologicalMap, model: NavigationModel, closure: ClosureConfig | None = None
) -> Change:
    """The same map for another network: images and embeddings are made anew from the pictures.

    Driven edges keep their length, as steps are time; closures are tested again.

    Raises:
        MapError: INVALID: the map has no pictures for people; CORRUPT: one cannot be read.
    """
    if not len(topological_map.pictures):
        raise MapError(
            MapCode.INVALID,
            f"map {topological_map.name!r}",
            "no pictures",
            "pictures of all nodes, to make images for another network of",
        )
    converter = ImageConverter()
    images = np.stack(
        [
            model.preprocess(decode_picture(content, f"picture of node {node}", converter))
            for node, content in enumerate(topological_map.pictures)
        ]
    )
    converted = dataclasses.replace(
        topological_map,
        model=MapModel.of(model.spec),
        images=images,
        embeddings=embeddings(model, images),
    )
    change = repair(converted, model, closure)
    return Change(change.map, (f"{len(images)} images made for {model.spec.name}", *change.report))


def from_pictures(
    pictures: Sequence[bytes],
    model: NavigationModel,
    *,
    numbers: Sequence[int] | None = None,
    dt_s: float = 1.0,
    name: str = "map",
) -> TopologicalMap:
    """A chain of the original numbered images.

    Args:
        pictures: encoded PNG or JPEG files in the order of the drive.
        model: the network.
        numbers: of the pictures, rising; None: they count from 0 on. Where some are missing, the
            edge is as many times longer.
        dt_s: time between two numbers; it gives the edges their length.
        name: of the map.

    Raises:
        MapError: CORRUPT: a picture cannot be read.
    """
    converter = ImageConverter()
    images = np.stack(
        [
            model.preprocess(decode_picture(content, f"image {index}", converter))
            for index, content in enumerate(pictures)
        ]
    )
    gaps = np.diff(np.arange(len(images)) if numbers is None else np.asarray(numbers))
    steps = [max(0.5, float(gap) * dt_s * model.spec.rate_hz) for gap in gaps]
    return TopologicalMap(
        model=MapModel.of(model.spec),
        images=images,
        edges=_edges([(n, n + 1, cost, int(EdgeKind.CHAIN)) for n, cost in enumerate(steps)]),
        embeddings=embeddings(model, images),
        drives=np.zeros(len(images), np.int32),
        pictures=list(pictures),
        name=name,
    )


def embeddings(model: NavigationModel, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """(N, D) embeddings of (N, h, w, 3) images; None where the network makes none."""
    if not model.spec.embedding_size:
        return None
    return np.concatenate(
        [
            model.embed(np.asarray(images[start : start + _BATCH]))
            for start in range(0, len(images), _BATCH)
        ]
    )


def name_node(topological_map: TopologicalMap, name: str, node: int | None) -> TopologicalMap:
    """Give a node a name, or with None take the name away.

    Raises:
        MapError: INVALID: no such node, or a name that cannot be one.
    """
    names = {key: value for key, value in topological_map.names.items() if key != name}
    if node is not None:
        if fault := new_name_fault(name):
            raise MapError(MapCode.INVALID, f"name {name!r}", "this name", fault)
        names[name] = node
    return dataclasses.replace(topological_map, names=names)


def select(topological_map: TopologicalMap, keep: NDArray[np.bool_]) -> TopologicalMap:
    """The map of some nodes, with the edges between them and new ids in the same order.

    Args:
        topological_map: the map.
        keep: (N,) which nodes stay; at least one.
    """
    chosen = np.flatnonzero(keep)
    renumbered = np.full(len(topological_map), -1, np.int64)
    renumbered[chosen] = np.arange(len(chosen))
    edges = topological_map.edges[
        keep[topological_map.edges["a"]] & keep[topological_map.edges["b"]]
    ].copy()
    edges["a"], edges["b"] = renumbered[edges["a"]], renumbered[edges["b"]]

    def rows(value: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if value is None else value[chosen]

    pictures = topological_map.pictures
    return dataclasses.replace(
        topological_map,
        images=topological_map.images[chosen],
        edges=edges,
        embeddings=rows(topological_map.embeddings),
        poses=rows(topological_map.poses),
        stamps_s=rows(topological_map.stamps_s),
        drives=rows(topological_map.drives),
        names={n: int(renumbered[k]) for n, k in topological_map.names.items() if keep[k]},
        pictures=[pictures[int(node)] for node in chosen] if len(pictures) else (),
    )


def rigid_motion(
    a: NDArray[np.float64], b: NDArray[np.float64], tolerance_m: float = 1.0, seed: int = 0
) -> tuple[float, float, float] | None:
    """The motion (x, y, yaw) that brings points b onto points a, although some pairs are wrong.

    Random samples of two pairs, then least squares over those that agree (Fischler and Bolles,
    1981; Umeyama, 1991, without scale).

    Args:
        a, b: (n, 2) positions [m], pair by pair.
        tolerance_m: how far a pair that agrees may be off.
        seed: of the samples.

    Returns:
        The motion; None where fewer than half of the pairs, or fewer than two, agree.
    """
    if len(a) < 2:
        return None
    rng = np.random.default_rng(seed)
    best: NDArray[np.bool_] | None = None
    for _ in range(200):
        pair = rng.choice(len(a), 2, replace=False)
        if np.linalg.norm(b[pair[0]] - b[pair[1]]) < tolerance_m:
            continue
        motion = _least_squares(a[pair], b[pair])
        agrees = np.linalg.norm(_moved(b, motion) - a, axis=1) <= tolerance_m
        if best is None or agrees.sum() > best.sum():
            best = agrees
    if best is None or best.sum() < max(2.0, len(a) / 2.0):
        return None
    return _least_squares(a[best], b[best])


def _least_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    centre_a, centre_b = a.mean(axis=0), b.mean(axis=0)
    da, db = a - centre_a, b - centre_b
    yaw = math.atan2(
        float((db[:, 0] * da[:, 1] - db[:, 1] * da[:, 0]).sum()), float((da * db).sum())
    )
    turned = _moved(centre_b[None], (0.0, 0.0, yaw))[0]
    x, y = (centre_a - turned).tolist()
    return x, y, yaw


def _moved(points: NDArray[np.float64], motion: tuple[float, float, float]) -> NDArray[np.float64]:
    x, y, yaw = motion
    c, s = math.cos(yaw), math.sin(yaw)
    turned = points @ np.array([[c, s], [-s, c]])
    return np.asarray(turned + np.array([x, y]))


def _views(part: TopologicalMap) -> set[bytes]:
    """What tells nodes apart: two drives never see the very same pixels."""
    return {hashlib.sha256(image.tobytes()).digest() for image in part.images}


def _merge_two(
    first: TopologicalMap,
    second: TopologicalMap,
    model: NavigationModel,
    config: ClosureConfig,
    allow_apart: bool,
) -> tuple[TopologicalMap, list[str]]:
    offset = len(first)
    closures = _closures_between(first, second, model, config)
    if not closures and not allow_apart:
        raise MapError(
            MapCode.NOT_CONNECTED,
            f"maps {first.name!r} and {second.name!r}",
            "no place that both show",
            "drives that share a stretch of way in the same direction, or allow_apart",
        )
    shifted = second.edges.copy()
    shifted["a"] += offset
    shifted["b"] += offset
    report = [f"{second.name!r}: {len(second)} nodes, {len(closures)} edges to the maps before"]
    poses = _joined_poses(first, second, closures, report)
    edges: list[Edge] = [*first.edges.tolist(), *shifted.tolist(), *closures]
    if poses is not None:
        edges += turn_edges(poses, BuilderConfig())
    names = dict(first.names)
    for name, node in second.names.items():
        free = name if name not in names else f"{name}-{offset + node}"
        if free != name:
            report.append(f"the name {name!r} of the second map is now {free!r}")
        names[free] = offset + node
    merged = dataclasses.replace(
        first,
        images=np.concatenate((first.images, second.images)),
        edges=_edges(edges),
        embeddings=_both(first.embeddings, second.embeddings),
        poses=poses,
        stamps_s=_both(first.stamps_s, second.stamps_s),
        drives=_joined_drives(first, second),
        names=names,
        pictures=(
            [*first.pictures, *second.pictures]
            if len(first.pictures) and len(second.pictures)
            else ()
        ),
    )
    return merged, report


def _closures_between(
    first: TopologicalMap,
    second: TopologicalMap,
    model: NavigationModel,
    config: ClosureConfig,
) -> list[Edge]:
    """Edges between two maps, ids of the second one shifted: each looks for the other."""
    offset = len(first)
    images = _Images(first.images, second.images)
    descriptors = [
        part.embeddings if part.embeddings is not None else place_descriptors(model, part.images)
        for part in (first, second)
    ]
    chains = [_chain(first, 0), _chain(second, offset)]

    def following(node: int) -> tuple[int, float] | None:
        return chains[node >= offset][0].get(node)

    def preceding(node: int) -> tuple[int, float] | None:
        return chains[node >= offset][1].get(node)

    edges: list[Edge] = []
    similarity = descriptors[1] @ descriptors[0].T
    for looking, other in ((1, 0), (0, 1)):
        table = similarity if looking == 1 else similarity.T
        shift_view, shift_other = offset * looking, offset * other
        run = ClosureRun(config)
        for view in range(len(table)):
            best = np.argsort(-table[view])[: config.proposals]
            proposals = [
                int(node) + shift_other for node in best if table[view, node] >= config.similarity
            ]
            sighting = None
            if proposals:
                sighting = find_sighting(
                    model,
                    standing_observation(model, images[view + shift_view]),
                    view + shift_view,
                    images,
                    proposals,
                    following,
                    preceding,
                    config,
                )
            edges += run.add(sighting, following)
    return edges


class _Images(Sequence[NDArray[np.uint8]]):
    """Images of two maps one after the other, without a copy of them."""

    def __init__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        self._parts = (first, second)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, index: Any) -> Any:
        first, second = self._parts
        return np.asarray(first[index] if index < len(first) else second[index - len(first)])


_Neighbours = dict[int, tuple[int, float]]


def _chain(part: TopologicalMap, offset: int) -> tuple[_Neighbours, _Neighbours]:
    """The next and the previous node along the drive, ids shifted."""
    following: _Neighbours = {}
    preceding: _Neighbours = {}
    for a, b, steps, kind in part.edges.tolist():
        if kind == EdgeKind.CHAIN:
            following.setdefault(a + offset, (b + offset, steps))
            preceding.setdefault(b + offset, (a + offset, steps))
    return following, preceding


def _joined_poses(
    first: TopologicalMap, second: TopologicalMap, closures: Iterable[Edge], report: list[str]
) -> NDArray[np.float64] | None:
    """Poses of both in the frame of the first one."""
    if first.poses is None or second.poses is None:
        return None
    offset = len(first)
    pairs = [(min(a, b), max(a, b) - offset) for a, b, _, _ in closures]
    motion = None
    if pairs:
        a = np.array([first.poses[i, :2] for i, _ in pairs])
        b = np.array([second.poses[j, :2] for _, j in pairs])
        motion = rigid_motion(a, b)
    if motion is None:
        report.append("the poses of the two cannot be brought together; the map has none")
        return None
    moved = np.column_stack((_moved(second.poses[:, :2], motion), second.poses[:, 2] + motion[2]))
    return np.concatenate((first.poses, moved))


def _joined_drives(first: TopologicalMap, second: TopologicalMap) -> NDArray[np.int32] | None:
    if first.drives is None or second.drives is None:
        return None
    return np.concatenate((first.drives, second.drives + first.drives.max() + 1))


def _both(first: NDArray[Any] | None, second: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if first is None or second is None else np.concatenate((first, second))


def _gaps(topological_map: TopologicalMap) -> list[tuple[int, int]]:
    """Neighbours of one drive, by id, that have no edge."""
    drives = topological_map.drives
    if drives is None:
        return []
    linked = set(zip(*(topological_map.edges[end].tolist() for end in ("a", "b")), strict=True))
    return [
        (node, node + 1)
        for node in range(len(topological_map) - 1)
        if drives[node] == drives[node + 1] and (node, node + 1) not in linked
    ]


def _edges(edges: Sequence[Edge]) -> NDArray[np.void]:
    return edge_array(edges) if edges else np.empty(0, EDGE_DTYPE)


def _check_model(topological_map: TopologicalMap, model: NavigationModel) -> None:
    wanted = MapModel.of(model.spec)
    if topological_map.model.fingerprint != wanted.fingerprint:
        raise MapError(
            MapCode.OTHER_MODEL,
            f"map {topological_map.name!r}",
            f"a map of {topological_map.model.name!r}",
            f"one of {wanted.name!r}; convert it first",
        )
