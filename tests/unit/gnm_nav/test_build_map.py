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
from rosbags.rosbag1 import Writer as Ros1Writer
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


def write_bag(
    path,
    poses,
    seed=0,
    encoding="rgb8",
    odometry_offset_m=0.0,
    with_odometry=True,
    storage=StoragePlugin.MCAP,
    change_image=None,
    change_odometry=None,
):
    """Write a drive at 4 Hz; `change_image` and `change_odometry` get the index and the message."""
    rng = np.random.default_rng(seed)
    writer = Writer(path, version=9, storage_plugin=storage)
    with writer:
        kind = "sensor_msgs/msg/CompressedImage" if encoding == "jpeg" else "sensor_msgs/msg/Image"
        images = writer.add_connection("/camera/image_raw", kind, typestore=TYPES)
        odom = writer.add_connection("/odom", "nav_msgs/msg/Odometry", typestore=TYPES)
        for index, pose in enumerate(poses):
            stamp_s = 1000.0 + 0.25 * index
            if with_odometry:
                moved = odometry(pose + np.array([odometry_offset_m, 0.0, 0.0]), stamp_s)
                if change_odometry is not None:
                    change_odometry(index, moved)
                raw = TYPES.serialize_cdr(moved, "nav_msgs/msg/Odometry")
                writer.write(odom, round(stamp_s * 1e9), raw)
            shown = image(pose, stamp_s, rng, encoding)
            if change_image is not None:
                change_image(index, shown)
            writer.write(images, round(stamp_s * 1e9) + 5_000_000, TYPES.serialize_cdr(shown, kind))
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
    assert "jumps" not in capsys.readouterr().err
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


def built(bag, out, *options):
    """Build a map of a bag by the command line; None: it was refused."""
    arguments = ["--bag", str(bag), "--out", str(out), "--overwrite", *options]
    return load_map(out) if build_map.main(arguments) == 0 else None


STRAIGHT = driven([(0, 0), (5, 0)])


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "short"])
def test_one_bad_image_is_left_out_and_counted(tmp_path, capsys, damage):
    encoding = "rgb8" if damage == "short" else "jpeg"

    def change(index, message):
        if index == 17:
            lengths = {"cut": 300, "zeros": 500, "empty": 0, "short": 20_000}
            zero = 0 if damage == "zeros" else 1
            message.data = (message.data * np.uint8(zero))[: lengths[damage]]

    good = built(write_bag(tmp_path / "good", STRAIGHT, encoding=encoding), tmp_path / "m")
    bag = write_bag(tmp_path / "bad", STRAIGHT, encoding=encoding, change_image=change)
    made = built(bag, tmp_path / "n")
    assert f"{len(STRAIGHT)} images, 1 bad, {len(STRAIGHT) - 1} with a pose" in (
        capsys.readouterr().err
    )
    assert abs(len(made) - len(good)) <= 1


def test_a_bag_without_one_good_image_is_refused(tmp_path, capsys):
    def change(index, message):
        message.data = message.data[:0]

    bag = write_bag(tmp_path / "bag", STRAIGHT, encoding="jpeg", change_image=change)
    assert built(bag, tmp_path / "m") is None
    assert f"none of the {len(STRAIGHT)} images is good" in capsys.readouterr().err


@pytest.mark.parametrize("frozen_s", [0, 1000])
def test_stamps_that_stand_are_refused_with_their_number(tmp_path, capsys, frozen_s):
    def change(index, message):
        message.header.stamp.sec, message.header.stamp.nanosec = frozen_s, 0

    bag = write_bag(tmp_path / "bag", STRAIGHT, change_image=change, change_odometry=change)
    assert built(bag, tmp_path / "m") is None
    expected = f"{len(STRAIGHT) - 1} of {len(STRAIGHT)} images have no newer stamp ({frozen_s}.000)"
    error = capsys.readouterr().err
    assert expected in error and "--recording-time" in error
    good = built(write_bag(tmp_path / "good", STRAIGHT), tmp_path / "m")
    made = built(bag, tmp_path / "n", "--recording-time")
    assert abs(len(made) - len(good)) <= 1 and made.poses is not None


def test_a_few_images_without_a_newer_stamp_are_told(tmp_path, capsys):
    def change(index, message):
        if index in (10, 20):
            seconds = 1000.0 + 0.25 * index - 0.5
            message.header.stamp.sec = int(seconds)
            message.header.stamp.nanosec = round(seconds % 1.0 * 1e9)

    bag = write_bag(tmp_path / "bag", driven([(0, 0), (6, 0)]), change_image=change)
    assert built(bag, tmp_path / "m") is not None
    assert "2 of 48 images have no newer stamp" in capsys.readouterr().err


@pytest.mark.parametrize("where", [0, 20, -1])
@pytest.mark.parametrize("ahead_s", [0.6, 11 * 86400])
def test_odometry_from_the_future_costs_one_pose_at_most(tmp_path, capsys, where, ahead_s):
    where %= len(STRAIGHT)

    def change(index, message):
        if index == where:
            message.header.stamp.sec += int(ahead_s)
            message.header.stamp.nanosec += round(ahead_s % 1 * 1e9)

    bag = write_bag(tmp_path / "bag", STRAIGHT, change_odometry=change)
    found = list(read_drive(bag))
    errors = [
        math.hypot(seen.pose[0] - pose[0], seen.pose[1] - pose[1])
        for seen, pose in zip(found, STRAIGHT, strict=True)
        if seen.pose is not None
    ]
    assert len(errors) >= len(STRAIGHT) - 1 and sorted(errors)[-2] < 0.05
    assert built(bag, tmp_path / "m") is not None
    if where != len(STRAIGHT) - 1:
        told = f"1 of {len(STRAIGHT)} odometry messages left out"
        assert told in capsys.readouterr().err


def test_a_gap_in_the_odometry_is_not_bridged(tmp_path):
    def change(index, message):
        if 10 <= index < 20:
            message.pose.pose.position.x = math.nan

    bag = write_bag(tmp_path / "bag", STRAIGHT, change_odometry=change)
    without = [index for index, seen in enumerate(read_drive(bag)) if seen.pose is None]
    assert without == list(range(10, 20))


def test_an_orientation_of_zeros_is_no_pose(tmp_path, capsys):
    def change(index, message):
        message.pose.pose.orientation.w = message.pose.pose.orientation.z = 0.0

    made = built(write_bag(tmp_path / "bag", STRAIGHT, change_odometry=change), tmp_path / "m")
    assert made.poses is None
    assert f"{len(STRAIGHT)} of {len(STRAIGHT)} odometry messages" in capsys.readouterr().err


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_bag_without_metadata_and_one_file_are_read(tmp_path, storage, capsys):
    bag = write_bag(tmp_path / "bag", STRAIGHT, storage=storage)
    expected = built(bag, tmp_path / "m")
    (file,) = (path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    for source in (file, bag):
        np.testing.assert_array_equal(built(source, tmp_path / "n").images, expected.images)
        (bag / "metadata.yaml").unlink(missing_ok=True)
    shutil.copy(file, bag / f"second{file.suffix}")
    assert built(bag, tmp_path / "n") is None
    assert "no metadata.yaml" in capsys.readouterr().err


def test_what_a_killed_recorder_left_is_read(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", STRAIGHT)
    file = bag / "bag.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 4])
    for _ in range(2):
        assert len(built(bag, tmp_path / "m")) >= 3
        assert "cut off; what is there was read" in capsys.readouterr().err
        (bag / "metadata.yaml").unlink(missing_ok=True)


@pytest.mark.parametrize("with_definition", [False, True])
def test_definitions_of_other_topics_do_not_decide(tmp_path, with_definition):
    poses, rng = STRAIGHT, np.random.default_rng(0)
    other_definition = "" if with_definition else "string data"
    digest = "RIHS01_" + 64 * "0"
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/Image"
        other = writer.add_connection(
            "/other", "some_msgs/msg/Other", msgdef=other_definition, rihs01=digest
        )
        images = writer.add_connection(
            "/camera/image_raw",
            kind,
            **({"typestore": TYPES} if with_definition else {"msgdef": "", "rihs01": digest}),
        )
        writer.write(other, 0, b"\0" * 12)
        for index, pose in enumerate(poses):
            stamp_s = 1000.0 + 0.25 * index
            raw = TYPES.serialize_cdr(image(pose, stamp_s, rng, "rgb8"), kind)
            writer.write(images, round(stamp_s * 1e9), raw)
    assert len(list(read_drive(tmp_path / "bag"))) == len(poses)


def test_a_ros1_bag_is_read(tmp_path):
    types, rng = get_typestore(Stores.ROS1_NOETIC), np.random.default_rng(0)
    kind = "sensor_msgs/msg/Image"
    with Ros1Writer(tmp_path / "office.bag") as writer:
        topic = writer.add_connection("/camera/image_raw", kind, typestore=types)
        for index, pose in enumerate(STRAIGHT):
            modern = image(pose, 1000.0 + 0.25 * index, rng, "rgb8")
            stamp, frame = modern.header.stamp, modern.header.frame_id
            modern.header = types.types["std_msgs/msg/Header"](
                seq=index, stamp=stamp, frame_id=frame
            )
            raw = types.serialize_ros1(modern, kind)
            writer.write(topic, (1000 * 4 + index) * 250_000_000, raw)
    for source in (tmp_path / "office.bag", tmp_path):
        assert [seen.stamp_s for seen in read_drive(source)] == [
            1000.0 + 0.25 * index for index in range(len(STRAIGHT))
        ]


@pytest.mark.parametrize(
    "added",
    [
        ["--ros-args"],
        ["--ros-args", "-r", "camera/image_raw:=/front", "-p", "use_sim_time:=true"],
        ["--ros-args", "-r", "__node:=mapper", "--log-level", "info", "--"],
    ],
)
def test_arguments_for_nodes_are_passed_over(tmp_path, added):
    bag = write_bag(tmp_path / "bag", STRAIGHT)
    assert built(bag, tmp_path / "m", *added) is not None
    assert edit_map.main(["info", str(tmp_path / "m"), *added]) == 0


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


def test_missing_numbers_make_longer_edges_and_other_formats_are_taken(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    poses = driven([(0, 0), (8, 0)])[::6]
    numbers = [1, 2, 3, 7, 8]
    for number, pose in zip(numbers, poses, strict=False):
        suffix = ".png" if number < 7 else ".bmp"
        cv2.imwrite(str(folder / f"{number:03d}{suffix}"), render(pose))
    arguments = ["--images", str(folder), "--out", str(tmp_path / "m"), "--dt-s", "1.5"]
    assert import_images.main(arguments) == 0
    assert "3 → 7" in capsys.readouterr().err
    made = load_map(tmp_path / "m")
    assert made.edges["steps"].tolist() == [6.0, 6.0, 24.0, 6.0]
    expected = cv2.imread(str(folder / "007.bmp"))
    stored = cv2.imdecode(np.frombuffer(made.pictures[3], np.uint8), cv2.IMREAD_COLOR)
    assert (stored == expected).all()
    assert import_images.main([*arguments[:-1], "0", "--overwrite"]) == 1
    assert "--dt-s 0" in capsys.readouterr().err


def test_the_help_says_that_the_original_deployment_does_not_crop(capsys):
    with pytest.raises(SystemExit):
        import_images.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "cropped to 4:3" in said and "rate 1.5 makes 1.5" in said
