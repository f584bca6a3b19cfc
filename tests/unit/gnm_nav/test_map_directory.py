"""Maps on disk: what was written is read again, and nothing else is accepted."""

import dataclasses
import hashlib
import json

import cv2
import numpy as np
import pytest
from gnm_nav import map_directory
from gnm_nav.map_directory import load_map, numbered_images, save_map
from gnm_nav.topological_map import (
    EdgeKind,
    MapCode,
    MapError,
    MapModel,
    TopologicalMap,
    edge_array,
)
from synthetic_world import SyntheticModel, driven, render

MODEL = MapModel("gnm", "synthetic", "f" * 64, (85, 64), 24)


def make_map(seed, count=12, poses=True, embeddings=True, pictures=True):
    rng = np.random.default_rng(seed)
    network = SyntheticModel(seed)
    views = driven([(0, 0), (6, 0), (6, 6)])[::4][:count]
    native = [render(pose, rng) for pose in views]
    images = np.stack([network.preprocess(image) for image in native])
    chain = [(n, n + 1, float(rng.uniform(1, 6)), EdgeKind.CHAIN) for n in range(count - 1)]
    closures = [(count - 1, 2, 1.5, EdgeKind.CLOSURE), (3, 0, 25.0, EdgeKind.TURN)]
    encoded = [
        cv2.imencode(".png" if n % 2 else ".jpg", image[:, :, ::-1])[1].tobytes()
        for n, image in enumerate(native)
    ]
    return TopologicalMap(
        model=MODEL,
        images=images,
        edges=edge_array(chain + closures),
        embeddings=network.embed(images) if embeddings else None,
        poses=views if poses else None,
        stamps_s=np.arange(count) * 0.25 if poses else None,
        drives=np.zeros(count, np.int32) if poses else None,
        names={"kitchen": 3, "Büro": count - 1},
        pictures=encoded if pictures else (),
        name="office",
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [{}, {"poses": False}, {"embeddings": False, "pictures": False}])
def test_what_was_saved_is_loaded(tmp_path, seed, parts):
    saved = make_map(seed, **parts)
    save_map(saved, tmp_path / "office")
    loaded = load_map(tmp_path / "office", MODEL)
    for part in ("images", "edges", "embeddings", "poses", "stamps_s", "drives"):
        a, b = getattr(saved, part), getattr(loaded, part)
        assert (a is None) == (b is None), part
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=part)
    assert loaded.names == saved.names and loaded.name == "office"
    assert list(loaded.pictures) == list(saved.pictures)
    assert isinstance(loaded.images, np.memmap)


def test_a_replaced_map_does_not_disturb_a_loaded_one(tmp_path):
    first, second = make_map(0), make_map(1, count=5)
    save_map(first, tmp_path / "office")
    loaded = load_map(tmp_path / "office")
    save_map(second, tmp_path / "office")
    np.testing.assert_array_equal(loaded.images, first.images)
    assert len(load_map(tmp_path / "office")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["office"]


def test_a_failed_write_leaves_the_old_map(tmp_path, monkeypatch):
    save_map(make_map(0), tmp_path / "office")
    broken = dataclasses.replace(make_map(1, count=5), pictures=[b"no image"] * 5)
    with pytest.raises(MapError):
        save_map(broken, tmp_path / "office")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(map_directory, "_sync", full)
    with pytest.raises(MapError) as caught:
        save_map(make_map(2, count=4), tmp_path / "office")
    assert caught.value.code == MapCode.NOT_WRITABLE
    assert len(load_map(tmp_path / "office")) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["office"]


def test_a_directory_that_is_no_map_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter_1.tex").write_text("years of work")
    with pytest.raises(MapError) as caught:
        save_map(make_map(0), tmp_path / "thesis")
    assert caught.value.code == MapCode.NOT_WRITABLE
    assert (tmp_path / "thesis" / "chapter_1.tex").exists()


FILES = (
    "map.json",
    "graph.geojson",
    "network_images.npy",
    "embeddings.safetensors",
    "images.sha256",
    "images/0.jpg",
    "images/7.png",
)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("seed", range(6))
def test_any_damage_is_refused(tmp_path, file, seed):
    save_map(make_map(seed), tmp_path / "office")
    path = tmp_path / "office" / file
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    kind = seed % 3
    if kind == 0:
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del content[int(rng.integers(len(content))) :]
    else:
        content += b"\0"
    path.write_bytes(bytes(content))
    # White space after the JSON of the header changes nothing; all else must be found.
    if file == "map.json" and kind == 2:
        content[-1:] = b"}"
        path.write_bytes(bytes(content))
    with pytest.raises(MapError) as caught:
        load_map(tmp_path / "office", MODEL)
    assert caught.value.code in (MapCode.CORRUPT, MapCode.VERSION, MapCode.OTHER_MODEL)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(tmp_path, file):
    save_map(make_map(0), tmp_path / "office")
    (tmp_path / "office" / file).unlink()
    with pytest.raises(MapError, match=file.split("/")[-1]) as caught:
        load_map(tmp_path / "office")
    assert caught.value.code == MapCode.MISSING


def rewrite(path, change):
    """Change the header and give it a fitting checksum, as another program would."""
    header = json.loads(path.read_text())
    change(header)
    del header["sha256"]
    header["sha256"] = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(header))


def test_other_versions_and_models_are_told_apart(tmp_path):
    save_map(make_map(0), tmp_path / "office")
    with pytest.raises(MapError, match="convert") as caught:
        load_map(tmp_path / "office", dataclasses.replace(MODEL, fingerprint="0" * 64))
    assert caught.value.code == MapCode.OTHER_MODEL
    rewrite(tmp_path / "office" / "map.json", lambda header: header.update(version=2))
    with pytest.raises(MapError) as caught:
        load_map(tmp_path / "office")
    assert caught.value.code == MapCode.VERSION


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph["features"].pop(3),
        lambda graph: graph["features"][-1]["properties"].update(endid=99),
        lambda graph: graph["features"][-1]["properties"].update(cost=-1.0),
        lambda graph: graph["features"][-1]["properties"].update(cost=float("nan")),
        lambda graph: graph["features"][-1]["properties"].update(kind="wormhole"),
        lambda graph: graph["features"][2]["geometry"].update(coordinates=[1.0]),
        lambda graph: graph.pop("features"),
    ],
)
def test_a_well_formed_contradiction_is_refused(tmp_path, change):
    save_map(make_map(0), tmp_path / "office")
    file = tmp_path / "office" / "graph.geojson"
    graph = json.loads(file.read_text())
    change(graph)
    file.write_text(json.dumps(graph))
    entry = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    rewrite(
        tmp_path / "office" / "map.json",
        lambda header: header["files"].update({"graph.geojson": entry}),
    )
    with pytest.raises(MapError) as caught:
        load_map(tmp_path / "office")
    assert caught.value.code == MapCode.INVALID


def test_pictures_lie_inside_the_map(tmp_path):
    save_map(make_map(0), tmp_path / "office")
    file = tmp_path / "office" / "images.sha256"
    file.write_text(file.read_text().replace("images/0.jpg", "../../0.jpg"))
    entry = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    rewrite(
        tmp_path / "office" / "map.json",
        lambda header: header["files"].update({"images.sha256": entry}),
    )
    with pytest.raises(MapError) as caught:
        load_map(tmp_path / "office")
    assert caught.value.code == MapCode.INVALID


def numbered(folder, *names):
    for file in folder.iterdir():
        file.unlink()
    for name in names:
        (folder / name).write_bytes(b"")
    return list(numbered_images(folder))


def test_numbered_images_come_in_the_order_of_numbers(tmp_path):
    assert numbered(tmp_path, *(f"{number}.png" for number in range(12))) == list(range(12))
    assert numbered(tmp_path, "1.png", "2.jpg", "5.webp", "10.bmp", "notes.txt") == [1, 2, 5, 10]
    assert numbered(tmp_path, "frame_0003.png", "frame_0012.png") == [3, 12]
    for names, problem in (
        (("1.png", "001.jpg"), "occurs twice"),
        (("1.png", "img2.png"), "img2.png.*another name than 1.png"),
        (("1700000000000000000.png", "1700000000250000000.png"), "names are times"),
        (("12.50.png", "12.75.png"), "12.50.png.*no number.*rename"),
    ):
        with pytest.raises(MapError, match=problem):
            numbered(tmp_path, *names)
    with pytest.raises(MapError, match="map_of_house"):
        numbered(tmp_path, "0.png", "map_of_house.png")
    with pytest.raises(MapError) as caught:
        numbered_images(tmp_path / "nowhere")
    assert caught.value.code == MapCode.MISSING
