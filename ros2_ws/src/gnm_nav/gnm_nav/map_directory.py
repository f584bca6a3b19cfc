"""Topological maps on disk: a directory with checksums, readable by people.

The format is described in docs/topological_map.md.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import safetensors
import safetensors.numpy
from node_common.image_conversion import ImageConverter, ImageError
from numpy.typing import NDArray
from policy_server.safetensors_file import write_safetensors

from gnm_nav.topological_map import (
    EDGE_DTYPE,
    EdgeKind,
    MapCode,
    MapError,
    MapModel,
    TopologicalMap,
    edge_array,
)

FORMAT = "coxswain-topological-map"
FORMAT_VERSION = 1
MAP_FILE = "map.json"
GRAPH_FILE = "graph.geojson"
IMAGES_FILE = "network_images.npy"
EMBEDDINGS_FILE = "embeddings.safetensors"
PICTURES = "images"
PICTURE_SUMS = "images.sha256"

_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
_AT_CURRENT_DIRECTORY = -100
_RENAME_EXCHANGE = 2


class PictureFolder(Sequence[bytes]):
    """Encoded pictures of a folder, read when they are asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Take the files in the order of the nodes."""
        self._files = list(files)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> PictureFolder: ...

    def __getitem__(self, index: int | slice) -> bytes | PictureFolder:
        """Contents of a file. Raises OSError when it has gone."""
        if isinstance(index, slice):
            return PictureFolder(self._files[index])
        return self._files[index].read_bytes()


def save_map(topological_map: TopologicalMap, path: str | Path) -> None:
    """Write a map, atomically: under `path` there is always the old map or the new one.

    Args:
        topological_map: what to write.
        path: directory to make or to replace. One that is no map is never replaced.

    Raises:
        MapError: NOT_WRITABLE.
    """
    target = Path(path).expanduser().absolute()
    if target.exists() and not (target / MAP_FILE).is_file() and any(target.iterdir()):
        raise MapError(
            MapCode.NOT_WRITABLE, target, "a directory that is not a map", "a map or a new path"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise MapError(MapCode.NOT_WRITABLE, target, error, "a writable directory") from None
    try:
        _write(topological_map, beside)
        beside.chmod(0o755)
        if target.exists():
            _exchange(beside, target)
        else:
            beside.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise MapError(MapCode.NOT_WRITABLE, target, error, "enough space and rights") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_map(
    path: str | Path, model: MapModel | None = None, *, check_pictures: bool = True
) -> TopologicalMap:
    """Read a map whole and check it, before anything of it is used.

    The images in the network's size stay on disk and are mapped into memory. A map that is
    replaced by `save_map` afterwards does not disturb one that was loaded.

    Args:
        path: the map's directory.
        model: the network to drive with; None: any.
        check_pictures: also check every picture for people, of which there is one per node.

    Raises:
        MapError: MISSING, VERSION, OTHER_MODEL, CORRUPT or INVALID.
    """
    directory = Path(path).expanduser()
    header = _read_header(directory)
    found = _model(directory, header)
    if model is not None:
        _check_model(directory, found, model)
    contents = _Checked(directory, header)
    graph = contents.json(GRAPH_FILE)
    count = contents.integer("nodes")
    images = _read_images(directory, contents, count, found)
    embeddings = None
    if EMBEDDINGS_FILE in contents.files:
        embeddings = _read_embeddings(directory, contents)
    nodes = _read_graph(directory / GRAPH_FILE, graph, count)
    pictures = _read_pictures(directory, contents, count, check_pictures)
    return TopologicalMap(
        model=found,
        images=images,
        embeddings=embeddings,
        pictures=pictures,
        frame_id=str(header.get("frame_id", "map")),
        name=directory.resolve().name,
        **nodes,
    )


def check_map(path: str | Path) -> TopologicalMap:
    """`load_map` with every check, for a map of any model."""
    return load_map(path)


_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
_LARGEST_GAP = 100
"""Numbers further apart than this do not count images: they are times."""


def numbered_images(folder: str | Path) -> dict[int, Path]:
    """Files of a numbered-image folder by their numbers, in their order.

    Names are numbers, or one text and a number, such as `frame_0012.png`; numbers may be missing.

    Raises:
        MapError: MISSING: no such folder or no image; INVALID: a number is doubled, the numbers do
            not count images, or a file has no number.
    """
    directory = Path(folder).expanduser()
    expected = "images 0.png, 1.png, … in the order of the drive"
    if not directory.is_dir():
        raise MapError(MapCode.MISSING, directory, "no such folder", expected)
    files: dict[int, Path] = {}
    texts: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() not in _IMAGE_SUFFIXES:
            continue
        name = re.fullmatch(r"([^0-9]*)([0-9]+)", file.stem)
        if name is None:
            raise MapError(
                MapCode.INVALID,
                file,
                "a name that is no number",
                f"{expected} only: rename it, or move it elsewhere",
            )
        texts.setdefault(name[1], file)
        if len(texts) > 1:
            raise MapError(
                MapCode.INVALID, file, f"another name than {files[min(files)].name}", expected
            )
        number = int(name[2])
        if number in files:
            raise MapError(MapCode.INVALID, file, "a number that occurs twice", "one image each")
        files[number] = file
    if not files:
        raise MapError(MapCode.MISSING, directory, "no image", expected)
    numbers = sorted(files)
    for before, after in itertools.pairwise(numbers):
        if after - before > _LARGEST_GAP:
            raise MapError(
                MapCode.INVALID,
                files[after],
                f"a number {after - before} after the one before",
                f"numbers that count images, at most {_LARGEST_GAP} apart: rename images whose "
                "names are times to 0.png, 1.png, …",
            )
    return {number: files[number] for number in numbers}


def decode_picture(
    content: bytes, place: object, converter: ImageConverter | None = None
) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG.

    Args:
        content: of the file.
        place: named in errors.
        converter: of the images that belong together; None: this one alone.

    Returns:
        RGB image, (H, W, 3) uint8.

    Raises:
        MapError: CORRUPT.
    """
    try:
        return (converter or ImageConverter()).decode(content)
    except ImageError:
        raise MapError(
            MapCode.CORRUPT, place, f"{len(content)} bytes", "a PNG or JPEG image"
        ) from None


def _suffix(content: bytes, node: int) -> str:
    for magic, suffix in _SUFFIXES.items():
        if content.startswith(magic):
            return suffix
    raise MapError(
        MapCode.INVALID, f"picture of node {node}", f"{content[:4]!r}", "an encoded PNG or JPEG"
    )


def _write(topological_map: TopologicalMap, directory: Path) -> None:
    model = topological_map.model
    files: dict[str, dict[str, Any]] = {}

    def put(name: str, write: Callable[[Path], None]) -> None:
        file = directory / name
        write(file)
        _sync(file)
        files[name] = {"sha256": _sha256(file), "bytes": file.stat().st_size}

    graph = json.dumps(_graph_json(topological_map), separators=(",", ":"))
    # One feature per line: people can read it, and text tools compare it.
    graph = graph.replace('{"type":"Feature"', '\n{"type":"Feature"')
    put(GRAPH_FILE, lambda file: _write_text(file, graph + "\n"))
    put(IMAGES_FILE, lambda file: _write_images(file, topological_map.images))
    embeddings = topological_map.embeddings
    if embeddings is not None:
        put(EMBEDDINGS_FILE, lambda file: write_safetensors(file, {"embeddings": embeddings}))
    if len(topological_map.pictures):
        (directory / PICTURES).mkdir()
        sums = []
        for node, content in enumerate(topological_map.pictures):
            name = f"{PICTURES}/{node}{_suffix(content, node)}"
            (directory / name).write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        put(PICTURE_SUMS, lambda file: _write_text(file, "".join(sums)))
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": topological_map.name,
        "model": {
            "kind": model.kind,
            "name": model.name,
            "fingerprint": model.fingerprint,
            "image_size": list(model.image_size),
            "embedding_size": model.embedding_size,
        },
        "rate_hz": 4.0,
        "frame_id": topological_map.frame_id,
        "nodes": len(topological_map),
        "edges": len(topological_map.edges),
        "names": dict(topological_map.names),
        "files": files,
    }
    # Over the header itself too: a changed name or count must not pass.
    header["sha256"] = _header_sum(header)
    _write_text(directory / MAP_FILE, json.dumps(header, indent=2) + "\n")
    _sync(directory / MAP_FILE)
    _sync(directory)


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _write_images(file: Path, images: NDArray[np.uint8]) -> None:
    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=images.shape)
    for start in range(0, len(images), 1024):
        stored[start : start + 1024] = images[start : start + 1024]
    stored.flush()
    del stored


def _header_sum(header: Mapping[str, Any]) -> str:
    content = {key: value for key, value in header.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(a: Path, b: Path) -> None:
    """Swap two directories in one step; where the system cannot, in two."""
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        code = library.renameat2(
            _AT_CURRENT_DIRECTORY,
            os.fsencode(a),
            _AT_CURRENT_DIRECTORY,
            os.fsencode(b),
            _RENAME_EXCHANGE,
        )
        if code == 0:
            return
    aside = a.with_name(a.name + ".old")
    b.rename(aside)
    a.rename(b)
    aside.rename(a)


def _graph_json(topological_map: TopologicalMap) -> dict[str, Any]:
    """GeoJSON as the Nav2 route server reads it: points, and multi-line strings between them."""
    poses, stamps, drives = (
        topological_map.poses,
        topological_map.stamps_s,
        topological_map.drives,
    )
    names: dict[int, list[str]] = {}
    for name, node in topological_map.names.items():
        names.setdefault(node, []).append(name)

    def point(node: int) -> dict[str, Any] | None:
        if poses is None:
            return None
        return {"type": "Point", "coordinates": poses[node, :2].tolist()}

    def line(a: int, b: int) -> dict[str, Any] | None:
        if poses is None:
            return None
        return {"type": "MultiLineString", "coordinates": [poses[[a, b], :2].tolist()]}

    features: list[dict[str, Any]] = []
    for node in range(len(topological_map)):
        properties: dict[str, Any] = {"id": node, "frame": topological_map.frame_id}
        if node in names:
            properties["names"] = names[node]
        if poses is not None:
            properties["yaw"] = float(poses[node, 2])
        if stamps is not None and math.isfinite(stamps[node]):
            properties["stamp_s"] = float(stamps[node])
        if drives is not None:
            properties["drive"] = int(drives[node])
        features.append(
            {
                "type": "Feature",
                "properties": properties,
                "geometry": point(node),
            }
        )
    first_edge = len(topological_map)
    for index, (a, b, steps, kind) in enumerate(topological_map.edges.tolist()):
        features.append(
            {
                "type": "Feature",
                "properties": {
                    "id": first_edge + index,
                    "startid": a,
                    "endid": b,
                    "cost": steps,
                    "kind": EdgeKind(kind).name.lower(),
                },
                "geometry": line(a, b),
            }
        )
    return {"type": "FeatureCollection", "name": topological_map.name, "features": features}


def _read_header(directory: Path) -> dict[str, Any]:
    file = directory / MAP_FILE
    if not directory.is_dir():
        raise MapError(MapCode.MISSING, directory, "no such directory", "a map's directory")
    if not file.is_file():
        raise MapError(
            MapCode.MISSING,
            directory,
            f"no {MAP_FILE}",
            "a map's directory (make one of a numbered-image folder with import_images)",
        )
    header = _parse_json(file, _read_bytes(file))
    if header.get("format") != FORMAT:
        raise MapError(MapCode.CORRUPT, file, f"format {header.get('format')!r}", f'"{FORMAT}"')
    if header.get("version") != FORMAT_VERSION:
        raise MapError(
            MapCode.VERSION, file, f"version {header.get('version')!r}", f"{FORMAT_VERSION}"
        )
    if header.get("sha256") != _header_sum(header):
        raise MapError(
            MapCode.CORRUPT,
            file,
            "contents that differ from their checksum",
            "an unchanged file (edit maps with edit_map)",
        )
    return header


def _model(directory: Path, header: Mapping[str, Any]) -> MapModel:
    try:
        model = header["model"]
        width, height = model["image_size"]
        return MapModel(
            kind=str(model["kind"]),
            name=str(model["name"]),
            fingerprint=str(model["fingerprint"]),
            image_size=(int(width), int(height)),
            embedding_size=int(model["embedding_size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MapError(
            MapCode.CORRUPT, directory / MAP_FILE, f"a bad model ({error})", "the model's facts"
        ) from None


def _check_model(directory: Path, found: MapModel, wanted: MapModel) -> None:
    if found.fingerprint != wanted.fingerprint or found.kind != wanted.kind:
        raise MapError(
            MapCode.OTHER_MODEL,
            directory,
            f"a map of {found.kind} {found.name!r} ({found.fingerprint[:12]})",
            f"one of {wanted.kind} {wanted.name!r} ({wanted.fingerprint[:12]}); build it again, "
            "or convert it with: edit_map convert",
        )


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise MapError(MapCode.MISSING, file, "no such file", "a whole map") from None
    except OSError as error:
        raise MapError(MapCode.MISSING, file, error, "a readable file") from None


def _parse_json(file: Path, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MapError(MapCode.CORRUPT, file, error, "JSON") from None
    if not isinstance(document, dict):
        raise MapError(MapCode.CORRUPT, file, f"a {type(document).__name__}", "a JSON object")
    return document


class _Checked:
    """Files of a map whose checksums are compared before they are read."""

    def __init__(self, directory: Path, header: Mapping[str, Any]) -> None:
        self._directory = directory
        self._header = header
        files = header.get("files")
        if not isinstance(files, dict):
            raise MapError(
                MapCode.CORRUPT, directory / MAP_FILE, "no list of files", "the map's files"
            )
        self.files = files

    def integer(self, key: str) -> int:
        value = self._header.get(key)
        if not isinstance(value, int) or value < 0:
            raise MapError(
                MapCode.CORRUPT, self._directory / MAP_FILE, f"{key} {value!r}", "a whole number"
            )
        return value

    def check(self, name: str) -> Path:
        file = self._directory / name
        entry = self.files.get(name)
        if not isinstance(entry, dict):
            raise MapError(
                MapCode.CORRUPT, self._directory / MAP_FILE, f"nothing about {name}", "its checksum"
            )
        if not file.is_file():
            raise MapError(MapCode.MISSING, file, "no such file", "a whole map")
        size = file.stat().st_size
        if size != entry.get("bytes"):
            raise MapError(MapCode.CORRUPT, file, f"{size} bytes", f"{entry.get('bytes')} bytes")
        if _sha256(file) != entry.get("sha256"):
            raise MapError(
                MapCode.CORRUPT, file, "contents that differ from their checksum", "a whole map"
            )
        return file

    def json(self, name: str) -> dict[str, Any]:
        file = self.check(name)
        return _parse_json(file, _read_bytes(file))


def _read_images(
    directory: Path, contents: _Checked, count: int, model: MapModel
) -> NDArray[np.uint8]:
    file = contents.check(IMAGES_FILE)
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise MapError(MapCode.CORRUPT, file, error, "a NumPy array") from None
    if images.shape[:1] != (count,):
        raise MapError(MapCode.INVALID, file, f"shape {images.shape}", f"{count} images")
    return np.asanyarray(images)


def _read_embeddings(directory: Path, contents: _Checked) -> NDArray[np.float32]:
    file = contents.check(EMBEDDINGS_FILE)
    try:
        tensors = safetensors.numpy.load_file(file)
        return np.asarray(tensors["embeddings"], np.float32)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise MapError(MapCode.CORRUPT, file, error, 'a tensor "embeddings"') from None


def _read_graph(file: Path, document: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Poses, stamps, drives, names and edges of the GeoJSON file."""
    stamps = np.full(count, math.nan)
    poses: NDArray[np.float64] | None = np.zeros((count, 3))
    drives = np.full(count, -1, np.int32)
    names: dict[str, int] = {}
    edges: list[tuple[int, int, float, int]] = []
    kinds = {kind.name.lower(): int(kind) for kind in EdgeKind}
    seen = 0
    try:
        for feature in document["features"]:
            properties, geometry = feature["properties"], feature["geometry"]
            if "startid" in properties:
                edges.append(
                    (
                        int(properties["startid"]),
                        int(properties["endid"]),
                        float(properties["cost"]),
                        kinds[properties["kind"]],
                    )
                )
                continue
            node = properties["id"]
            if node != seen:
                raise ValueError(f"node {node} where {seen} comes next")
            seen += 1
            stamps[node] = properties.get("stamp_s", math.nan)
            drives[node] = properties.get("drive", -1)
            for name in properties.get("names", ()):
                names[str(name)] = node
            if geometry is None:
                poses = None
            elif poses is not None:
                x, y = geometry["coordinates"]
                poses[node] = (x, y, properties["yaw"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise MapError(MapCode.INVALID, file, repr(error), "nodes and edges as GeoJSON") from None
    if seen != count:
        raise MapError(MapCode.INVALID, file, f"{seen} nodes", f"{count} nodes")
    return {
        "edges": edge_array(edges) if edges else np.empty(0, EDGE_DTYPE),
        "poses": poses,
        "stamps_s": stamps if np.isfinite(stamps).any() else None,
        "drives": drives if (drives >= 0).all() else None,
        "names": names,
    }


def _read_pictures(directory: Path, contents: _Checked, count: int, check: bool) -> Sequence[bytes]:
    if PICTURE_SUMS not in contents.files:
        return ()
    sums = contents.check(PICTURE_SUMS)
    files = []
    for node, (sha256, name) in enumerate(_sum_lines(sums)):
        file = directory / name
        if Path(name).parent != Path(PICTURES) or Path(name).stem != str(node):
            raise MapError(MapCode.INVALID, sums, name, f"{PICTURES}/{node}.png or .jpg")
        if check and hashlib.sha256(_read_bytes(file)).hexdigest() != sha256:
            raise MapError(
                MapCode.CORRUPT, file, "contents that differ from their checksum", "a whole map"
            )
        files.append(file)
    if len(files) != count:
        raise MapError(MapCode.INVALID, sums, f"{len(files)} pictures", f"{count} pictures")
    return PictureFolder(files)


def _sum_lines(file: Path) -> Iterator[tuple[str, str]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        sha256, _, name = line.partition("  ")
        yield sha256, name
