"""The topological map: places as images, directed edges as temporal distances.

A node is one view: what the robot saw at a place while facing one way. An edge a → b says that a
robot that sees a reaches b by driving, and how long that takes in model steps (1/4 s at the robot's
nominal speed). The same place seen in the other direction is another node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rustworkx as rx
from numpy.typing import NDArray

if TYPE_CHECKING:
    from policy_server.navigation_model import NavigationSpec

LAST = "last"
"""Name that always means the node with the highest id."""


class MapCode(StrEnum):
    """What is wrong with a map."""

    MISSING = "missing"
    """A file or the whole map is not there."""
    CORRUPT = "corrupt"
    """A file is not what was written: its checksum, size or contents differ."""
    VERSION = "version"
    """A version of the format that this program does not know."""
    OTHER_MODEL = "other_model"
    """The map's distances come from another network than the one to drive with."""
    INVALID = "invalid"
    """The contents contradict each other."""
    NOT_WRITABLE = "not_writable"
    UNKNOWN_NODE = "unknown_node"
    NOT_CONNECTED = "not_connected"
    """Maps to be merged share no place."""


class MapError(ValueError):
    """A map that cannot be used or written.

    Attributes:
        code: what kind of fault.
        place: file or part of the map.
        found: what was found there.
        expected: what would have been accepted, or what to do.
    """

    def __init__(self, code: MapCode, place: object, found: object, expected: str) -> None:
        self.code = code
        self.place = str(place)
        self.found = str(found)
        self.expected = expected
        super().__init__(f"{self.place}: found {self.found}, expected {expected} [{code}]")


@dataclass(frozen=True)
class MapModel:
    """The network that a map's distances and embeddings come from.

    Attributes:
        kind: gnm, vint or nomad.
        name: the bundle's name, for people.
        fingerprint: hash of the bundle; maps of another one are refused.
        image_size: width and height of the network's images [pixels].
        embedding_size: length of an embedding; 0: the network makes none.
    """

    kind: str
    name: str
    fingerprint: str
    image_size: tuple[int, int]
    embedding_size: int

    @classmethod
    def of(cls, spec: NavigationSpec) -> MapModel:
        """The facts of a loaded network."""
        width, height = spec.image_size
        return cls(spec.kind, spec.name, spec.fingerprint, (width, height), spec.embedding_size)


class EdgeKind(IntEnum):
    """Where an edge comes from."""

    CHAIN = 0
    """Driven from one node to the next."""
    CLOSURE = 1
    """Two views of the same way, found by the network."""
    TURN = 2
    """Turning on the spot from one view of a place to another."""


EDGE_DTYPE = np.dtype([("a", "<i4"), ("b", "<i4"), ("steps", "<f4"), ("kind", "u1")])
"""One edge: from node a to node b, its length in model steps, an `EdgeKind`."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""A goal that ends like this is an image's file."""
_CHAIN, _TURN = int(EdgeKind.CHAIN), int(EdgeKind.TURN)


class Edge(NamedTuple):
    """One edge by itself, with the fields of `EDGE_DTYPE`.

    Plain numbers: a tick looks at tens of edges, and each field of an array's row costs more than
    all that is done with it.
    """

    a: int
    b: int
    steps: float
    kind: int

    @property
    def is_turn(self) -> bool:
        """Whether it is a turn on the spot."""
        return self.kind == _TURN

    @property
    def is_chain(self) -> bool:
        """Whether it was driven from one node to the next."""
        return self.kind == _CHAIN


def edge_array(edges: Sequence[tuple[int, int, float, int]]) -> NDArray[np.void]:
    """Edges as a structured array of `EDGE_DTYPE`, sorted by (a, b).

    Of edges with the same ends the shortest is kept.
    """
    array = np.array(list(edges), dtype=EDGE_DTYPE)
    if not len(array):
        return array
    array = array[np.lexsort((array["steps"], array["b"], array["a"]))]
    same = (array["a"][1:] == array["a"][:-1]) & (array["b"][1:] == array["b"][:-1])
    return array[np.concatenate(([True], ~same))]


def name_fault(name: str) -> str:
    """What is expected of a name that this is not; empty: it can be one."""
    if not name or name == LAST or name.lstrip("-").isdigit():
        return f'a name that is no number and not "{LAST}"'
    return ""


def new_name_fault(name: str) -> str:
    """As `name_fault`, for a name that is given now: it shall not be taken for a file."""
    if name.lower().endswith(IMAGE_SUFFIXES):
        return f"a name that does not end like an image: {', '.join(IMAGE_SUFFIXES)}"
    return name_fault(name.strip())


@dataclass(frozen=True)
class TopologicalMap:
    """A map. It does not change; editing makes a new one.

    Attributes:
        model: the network of its distances.
        images: (N, h, w, 3) uint8 RGB in the network's size; may be mapped from a file.
        edges: (E,) `EDGE_DTYPE`, sorted by (a, b), no doubles, no edge from a node to itself.
        embeddings: (N, D) float32 unit vectors, or None.
        poses: (N, 3) float64 x [m], y [m], yaw [rad] in the frame `frame_id`, or None. For
            drawing, turning and blocking, and to say which of two alike places a robot can be at.
        stamps_s: (N,) float64 time of the image; NaN: not known.
        drives: (N,) int32 index of the drive that a node comes from.
        names: name → node.
        pictures: encoded camera images (PNG or JPEG) for people, one per node, or empty.
        frame_id: frame of the poses.
        name: of the map, for people.
    """

    model: MapModel
    images: NDArray[np.uint8]
    edges: NDArray[np.void]
    embeddings: NDArray[np.float32] | None = None
    poses: NDArray[np.float64] | None = None
    stamps_s: NDArray[np.float64] | None = None
    drives: NDArray[np.int32] | None = None
    names: Mapping[str, int] = field(default_factory=dict)
    pictures: Sequence[bytes] = ()
    frame_id: str = "map"
    name: str = "map"

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            MapError: INVALID, naming the part.
        """
        n = len(self.images)
        width, height = self.model.image_size
        if self.images.dtype != np.uint8 or self.images.shape != (n, height, width, 3):
            raise self._invalid(
                "images",
                f"{self.images.dtype} {self.images.shape}",
                f"uint8 (N, {height}, {width}, 3) as the network's image size",
            )
        if n == 0:
            raise self._invalid("images", "no node", "at least one node")
        shapes: dict[str, tuple[object, tuple[int, ...]]] = {
            "embeddings": (self.embeddings, (n, self.model.embedding_size)),
            "poses": (self.poses, (n, 3)),
            "stamps_s": (self.stamps_s, (n,)),
            "drives": (self.drives, (n,)),
        }
        for part, (value, shape) in shapes.items():
            if isinstance(value, np.ndarray) and value.shape != shape:
                raise self._invalid(part, f"shape {value.shape}", f"shape {shape}")
        for part in ("embeddings", "poses"):
            value = getattr(self, part)
            if value is not None and not np.isfinite(value).all():
                raise self._invalid(part, "values that are not finite", "finite numbers")
        if len(self.pictures) not in (0, n):
            raise self._invalid("pictures", len(self.pictures), f"{n}, one per node, or none")
        self._check_edges(n)
        for name, node in self.names.items():
            if not 0 <= node < n:
                raise self._invalid(f"name {name!r}", f"node {node}", f"a node below {n}")
            if fault := name_fault(name):
                raise self._invalid(f"name {name!r}", "this name", fault)

    def _check_edges(self, n: int) -> None:
        edges = self.edges
        if edges.dtype != EDGE_DTYPE:
            raise self._invalid("edges", edges.dtype, f"the dtype {EDGE_DTYPE}")
        if not len(edges):
            return
        ends = np.stack((edges["a"], edges["b"]))
        if ends.min() < 0 or ends.max() >= n:
            raise self._invalid("edges", "an end that is no node", f"nodes 0 … {n - 1}")
        if (ends[0] == ends[1]).any():
            raise self._invalid("edges", "an edge from a node to itself", "two different ends")
        if not (np.isfinite(edges["steps"]) & (edges["steps"] > 0.0)).all():
            raise self._invalid("edges", "a length that is not positive", "positive model steps")
        order = ends[0].astype(np.int64) * n + ends[1]
        if (np.diff(order) <= 0).any():
            raise self._invalid("edges", "doubled or unsorted edges", "edges made by edge_array")
        if edges["kind"].max() > max(EdgeKind):
            raise self._invalid("edges", f"kind {edges['kind'].max()}", "a known EdgeKind")

    def _invalid(self, part: str, found: object, expected: str) -> MapError:
        return MapError(MapCode.INVALID, f"map {self.name!r}, {part}", found, expected)

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.images)

    @cached_property
    def graph(self) -> rx.PyDiGraph:
        """The graph: node weights are ids, edge weights are model steps. Do not change it."""
        graph: rx.PyDiGraph = rx.PyDiGraph(multigraph=False)
        graph.add_nodes_from(range(len(self)))
        graph.add_edges_from(
            list(
                zip(
                    self.edges["a"].tolist(),
                    self.edges["b"].tolist(),
                    self.edges["steps"].tolist(),
                    strict=True,
                )
            )
        )
        return graph

    @cached_property
    def _first_edge(self) -> NDArray[np.int64]:
        return np.searchsorted(self.edges["a"], np.arange(len(self) + 1))

    @cached_property
    def _incoming(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.edges["b"], kind="stable")
        return order, np.searchsorted(self.edges["b"][order], np.arange(len(self) + 1))

    def out_edges(self, node: int) -> list[Edge]:
        """Edges that leave a node."""
        return [Edge._make(edge) for edge in self.edges[self.out_slice(node)].tolist()]

    def out_slice(self, node: int) -> slice:
        """Where in `edges` those that leave a node are."""
        return slice(int(self._first_edge[node]), int(self._first_edge[node + 1]))

    def in_edges(self, node: int) -> list[Edge]:
        """Edges that enter a node."""
        order, first = self._incoming
        rows = order[first[node] : first[node + 1]]
        return [Edge._make(edge) for edge in self.edges[rows].tolist()]

    def ahead(self, node: int, max_steps: float) -> dict[int, float]:
        """Nodes that can be driven to from a node within some steps, with their distance.

        Turns are left out: a view after a turn is not ahead. The cost depends on how many nodes
        lie that near, never on the size of the map.

        Args:
            node: where to start; it is in the result with 0.0.
            max_steps: longest way [model steps].
        """
        distances: dict[int, float] = {}
        open_nodes = {node: 0.0}
        while open_nodes:
            nearest = min(open_nodes, key=open_nodes.__getitem__)
            so_far = open_nodes.pop(nearest)
            distances[nearest] = so_far
            for edge in self.out_edges(nearest):
                following, steps = edge.b, so_far + edge.steps
                if edge.is_turn or following in distances or steps > max_steps:
                    continue
                if steps < open_nodes.get(following, np.inf):
                    open_nodes[following] = steps
        return distances

    def node(self, name: str | int) -> int:
        """The node that a name, a number, or "last" stands for. -1 is the last node too.

        Raises:
            MapError: UNKNOWN_NODE.
        """
        text = str(name).strip()
        if text in (LAST, "-1"):
            return len(self) - 1
        if text in self.names:
            return self.names[text]
        if text.isdigit() and int(text) < len(self):
            return int(text)
        known = ", ".join(sorted(self.names)[:8])
        raise MapError(
            MapCode.UNKNOWN_NODE,
            f"map {self.name!r}",
            f"the goal {text!r}",
            f'a node 0 … {len(self) - 1}, "{LAST}"'
            + (f", or a name such as {known}" * bool(known)),
        )

    def label(self, node: int) -> str:
        """A node for people: its name, if it has one, and its number."""
        names = [name for name, named in self.names.items() if named == node]
        return f"{node} ({names[0]})" if names else str(node)
