"""Maps from recorded bags, by the command line."""

import json
import math
import shutil

import cv2
import gnm_nav.build_map as build_map
import gnm_nav.edit_map as edit_map
import gnm_nav.import_images as import_images
import numpy as np
import pytest
from gnm_nav.drive_bag import BagError, read_drive
from gnm_nav.map_directory import load_map
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from synthetic_world import SyntheticModel, driven, render

TYPES = get_typestore(Stores.ROS2_KILTED)


def message(name, **fields):
    return TYPES.types[name](**fields)


def header(stamp_s, frame):
    seconds = int(stamp_s)
    stamp = message(
        "builtin_interfaces/msg/Time", sec=seconds, nanosec=round((stamp_s - seconds) * 1e9)
    )
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def image(pose, stamp_s, rng, encoding):
    rgb = render(pose, rng)
    if encoding == "jpeg":
        data = cv2.imencode(".jpg", rgb[:, :, ::-1])[1].ravel()
        return message(
            "sensor_msgs/msg/CompressedImage",
            header=header(stamp_s, "camera"),
            format="jpeg",
            data=data,
        )
    pixels = rgb[:, :, ::-1] if encoding == "bgr8" else rgb
    # Rows with padding, as some drivers send them.
    padded = np.zeros((120, 160 * 3 + 12), np.uint8)
    padded[:, : 160 * 3] = pixels.reshape(120, -1)
    return message(
        "sensor_msgs/msg/Image",
        header=header(stamp_s, "camera"),
        height=120,
        width=160,
        encoding=encoding,
        is_bigendian=0,
        step=160 * 3 + 12,
        data=padded.ravel(),
    )


def odometry(pose, stamp_s):
    x, y, yaw = (float(value) for value in pose)
    point = message("geometry_msgs/msg/Point", x=x, y=y, z=0.0)
    turn = message(
        "geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2)
    )
    zero = message("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    return message(
        "nav_msgs/msg/Odometry",
        header=header(stamp_s, "odom"),
        child_frame_id="base_link",
        pose=message(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=message("geometry_msgs/msg/Pose", position=point, orientation=turn),
            covariance=np.zeros(36),
        ),
        twist=message(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=message("geometry_msgs/msg/Twist", linear=zero, angular=zero),
            covariance=np.zeros(36),
        ),
    )


def write_bag(path, poses, seed=0, encoding="rgb8", odometry_offset_m=0.0, with_odometry=True):
    rng = np.random.default_rng(seed)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        kind = "sensor_msgs/msg/CompressedImage" if encoding == "jpeg" else "sensor_msgs/msg/Image"
        images = writer.add_connection("/camera/image_raw", kind, typestore=TYPES)
        odom = writer.add_connection("/odom", "nav_msgs/msg/Odometry", typestore=TYPES)
        for index, pose in enumerate(poses):
            stamp_s = 1000.0 + 0.25 * index
            if with_odometry:
                moved = pose + np.array([odometry_offset_m, 0.0, 0.0])
                raw = TYPES.serialize_cdr(odometry(moved, stamp_s), "nav_msgs/msg/Odometry")
                writer.write(odom, round(stamp_s * 1e9), raw)
            raw = TYPES.serialize_cdr(image(pose, stamp_s, rng, encoding), kind)
            writer.write(images, round(stamp_s * 1e9) + 5_000_000, raw)
    return path


@pytest.fixture(autouse=True)
def synthetic_network(monkeypatch):
    for module in (build_map, edit_map, import_images):
        monkeypatch.setattr(module, "load_model", lambda arguments: SyntheticModel())


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "jpeg"])
def test_every_encoding_gives_the_same_pixels(tmp_path, encoding):
    poses = driven([(0, 0), (1, 0)])
    write_bag(tmp_path / "drive", poses, encoding=encoding)
    rng = np.random.default_rng(0)
    for pose, seen in zip(poses, read_drive(tmp_path / "drive"), strict=True):
        expected = render(pose, rng)
        difference = np.abs(seen.image.astype(int) - expected)
        assert difference.mean() < (6.0 if encoding == "jpeg" else 1e-9)
        np.testing.assert_allclose(seen.pose, pose, atol=1e-6)


def test_bags_become_one_map(tmp_path, capsys):
    write_bag(tmp_path / "one", driven([(0, 0), (6, 0), (6, 4)]))
    write_bag(tmp_path / "two", driven([(2, 0), (6, 0), (10, 0)]), seed=1)
    bags = ["--bag", str(tmp_path / "one"), "--bag", str(tmp_path / "two")]
    assert build_map.main([*bags, "--out", str(tmp_path / "office")]) == 0
    made = load_map(tmp_path / "office")
    assert made.name == "office" and set(made.drives.tolist()) == {0, 1}
    assert (made.edges["kind"] == 1).any() and made.poses is not None
    assert len(made.pictures) == len(made)
    # A map that is there is not replaced unless that is wanted.
    assert build_map.main([*bags, "--out", str(tmp_path / "office")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert build_map.main([*bags, "--out", str(tmp_path / "office"), "--overwrite"]) == 0


def test_a_drive_without_odometry_makes_a_map_without_poses(tmp_path):
    write_bag(tmp_path / "one", driven([(0, 0), (3, 0)]), with_odometry=False)
    assert build_map.main(["--bag", str(tmp_path / "one"), "--out", str(tmp_path / "m")]) == 0
    assert load_map(tmp_path / "m").poses is None


def test_bad_bags_are_refused_and_leave_no_map(tmp_path, capsys):
    write_bag(tmp_path / "drive", driven([(0, 0), (3, 0)]))
    out = ["--out", str(tmp_path / "m")]
    assert build_map.main(["--bag", str(tmp_path / "nowhere"), *out]) == 1
    other = ["--image-topic", "front/image"]
    assert build_map.main(["--bag", str(tmp_path / "drive"), *other, *out]) == 1
    assert "/camera/image_raw" in capsys.readouterr().err
    mcap = next((tmp_path / "drive").glob("*.mcap"))
    content = mcap.read_bytes()
    for damaged in (content[: len(content) // 2], b""):
        mcap.write_bytes(damaged)
        assert build_map.main(["--bag", str(tmp_path / "drive"), *out]) == 1
    assert not (tmp_path / "m").exists()
    with pytest.raises(BagError):
        list(read_drive(tmp_path))


def test_editing_by_command_line(tmp_path, capsys):
    write_bag(tmp_path / "one", driven([(0, 0), (6, 0), (6, 4)]))
    write_bag(tmp_path / "two", driven([(2, 0), (6, 0), (10, 0)]), seed=1, odometry_offset_m=5.0)
    for name in ("one", "two"):
        out = str(tmp_path / f"map_{name}")
        assert build_map.main(["--bag", str(tmp_path / name), "--out", out]) == 0
    both = str(tmp_path / "both")
    maps = [str(tmp_path / "map_one"), str(tmp_path / "map_two")]
    assert edit_map.main(["merge", *maps, "--out", both]) == 0
    assert edit_map.main(["name", both, "kitchen", "3"]) == 0
    assert load_map(both).node("kitchen") == 3
    for change in ("repair", "prune"):
        assert edit_map.main([change, both]) == 0
    capsys.readouterr()
    assert edit_map.main(["info", both]) == 0
    text = capsys.readouterr().out
    assert "kitchen" in text and "1 connected" in text
    assert edit_map.main(["name", both, "kitchen"]) == 0
    assert "kitchen" not in load_map(both).names
    file = tmp_path / "both" / "map.json"
    document = json.loads(file.read_text())
    document["nodes"] += 1
    file.write_text(json.dumps(document))
    assert edit_map.main(["info", both]) == 1
    assert "corrupt" in capsys.readouterr().err


def test_a_folder_of_numbered_images_is_imported(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    poses = driven([(0, 0), (8, 0)])[::6]
    for number, pose in enumerate(poses):
        cv2.imwrite(str(folder / f"{number}.png"), render(pose))
    arguments = ["--images", str(folder), "--out", str(tmp_path / "m"), "--dt-s", "1.5"]
    assert import_images.main(arguments) == 0
    made = load_map(tmp_path / "m")
    assert len(made) == len(poses) and made.poses is None
    # What was imported can be taken back, byte for byte.
    assert made.pictures[3] == (folder / "3.png").read_bytes()
    shutil.copy(folder / "0.png", folder / "goal.png")
    assert import_images.main([*arguments, "--overwrite"]) == 1
    assert "goal.png" in capsys.readouterr().err
