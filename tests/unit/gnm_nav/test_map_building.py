"""Maps of drives, and changes to them, in the synthetic world."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
import rustworkx as rx
from gnm_nav.map_building import BuilderConfig, MapBuilder, without_drift
from gnm_nav.map_editing import (
    convert,
    from_pictures,
    merge,
    name_node,
    prune,
    repair,
    rigid_motion,
    select,
)
from gnm_nav.planar_pose import compose, inverse
from gnm_nav.route_planner import RoutePlanner
from gnm_nav.topological_map import EdgeKind, MapCode, MapError, edge_array
from synthetic_world import SPACING_M, SyntheticModel, along, build, driven, render, rounded, wrap

STRAIGHT = [(0, 0), (6, 0), (6, 6)]
BESIDE = [(2, 0), (6, 0), (10, 0), (10, 4)]


def reaches(made, start, goal):
    planner = RoutePlanner(made)
    planner.set_goal(goal)
    return math.isfinite(planner.steps_to_goal(start))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing_steps", [3.0, 5.0])
def test_nodes_are_as_far_apart_as_asked(seed, spacing_steps):
    config = BuilderConfig(spacing_steps=spacing_steps, max_steps=8)
    made, truth = build(SyntheticModel(seed), driven([(0, 0), (9, 0)]), seed=seed, config=config)
    steps = np.diff(truth[:, 0]) / SPACING_M
    assert abs(steps.mean() - spacing_steps) < 1.2
    chain = made.edges[made.edges["kind"] == EdgeKind.CHAIN]
    assert len(chain) == len(made) - 1
    assert np.abs(chain["steps"] - steps).mean() < 1.0


def test_a_standing_robot_adds_nothing_whatever_the_cameras_rate():
    model = SyntheticModel()
    rng = np.random.default_rng(0)
    slow, fast = MapBuilder(model), MapBuilder(model)
    poses = driven([(0, 0), (4, 0)])
    for index, pose in enumerate(poses):
        slow.add(render(pose, rng), 0.25 * index)
        for part in range(5):
            fast.add(render(pose, rng), 0.25 * index + 0.05 * part)
    assert abs(len(slow) - len(fast)) <= 1
    count = len(slow)
    standing = render(poses[-1], None)
    for index in range(40):
        slow.add(standing, 0.25 * (len(poses) + index))
    assert len(slow) <= count + 1


def test_poses_that_turn_on_the_spot_make_turns():
    there = driven([(0, 0), (4, 0)])
    on_the_spot = [(4.0, 0.0, yaw) for yaw in np.linspace(0.0, math.pi, 14)]
    back = driven([(4, 0), (0, 0)])
    made, truth = build(SyntheticModel(), np.concatenate((there, on_the_spot, back)))
    turns = made.edges[made.edges["kind"] == EdgeKind.TURN]
    for edge in turns:
        a, b = truth[edge["a"]], truth[edge["b"]]
        assert math.hypot(*(a - b)[:2]) < 0.6 and abs(wrap(a[2] - b[2])) > 0.4
    assert reaches(made, 0, len(made) - 1) and reaches(made, len(made) - 1, 1)


def test_places_that_only_look_alike_are_not_joined_where_poses_say_so():
    drive = driven([(0, 0), (8, 0)])
    model = SyntheticModel()
    builder = MapBuilder(model)
    rng = np.random.default_rng(0)
    # The same pictures twice in one drive, 30 m apart: two corridors that look the same.
    for index, pose in enumerate(np.concatenate((drive, drive))):
        shift = 30.0 if index >= len(drive) else 0.0
        builder.add(render(pose, rng), 0.25 * index, (pose[0] + shift, pose[1], pose[2]))
    assert builder.closures == 0
    unaware = MapBuilder(model)
    for index, pose in enumerate(np.concatenate((drive, drive))):
        unaware.add(render(pose, rng), 0.25 * index)
    assert unaware.closures > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_view_that_is_seen_again_takes_the_drift_out_of_the_poses(seed):
    """There, a turn, back, a turn, and on for a metre: only the first views are seen again."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0.0, math.pi, 14)
    there, back = driven([(0, 0), (6, 0)]), driven([(6, 0), (0, 0)])
    turns = [(6.0, 0.0, yaw) for yaw in turn], [(0.0, 0.0, math.pi + yaw) for yaw in turn]
    poses = np.concatenate((there, turns[0], back, turns[1], there[:8]))
    drift_m = np.linspace(0.0, 1.0, len(poses))
    builder = MapBuilder(SyntheticModel(seed))
    truth = []
    for index, (x, y, yaw) in enumerate(poses):
        odometry = (x, y + drift_m[index], yaw)
        if builder.add(render((x, y, yaw), rng), 0.25 * index, odometry) is not None:
            truth.append((x, y, yaw))
    made = builder.finish()
    assert np.hypot(*(made.poses[-1] - truth[-1])[:2]) < 0.25
    assert np.hypot(*(made.poses - truth)[:, :2].T).max() < 0.4
    assert (made.edges["kind"] == EdgeKind.CLOSURE).any()


def test_another_drives_frame_is_no_drift():
    """The second drive begins where the first one did, its odometry somewhere else."""
    rng = np.random.default_rng(0)
    builder = MapBuilder(SyntheticModel())
    for frame_m in (0.0, 5.0):
        for index, (x, y, yaw) in enumerate(driven([(0, 0), (6, 0)])):
            builder.add(render((x, y, yaw), rng), 0.25 * index, (x, y + frame_m, yaw))
        builder.end_drive()
    made = builder.finish()
    assert (made.edges["kind"] == EdgeKind.CLOSURE).any()
    assert made.poses[:, 1] == pytest.approx(np.where(made.drives == 0, 0.0, 5.0))


def test_drift_is_spread_over_the_way_since_a_view_was_seen_first():
    along_m = np.arange(11.0)
    raw = np.column_stack((along_m, np.zeros(11), np.full(11, 0.3)))
    moved = without_drift(raw, along_m, [(2, 6), (3, 8)])
    assert moved[:3] == pytest.approx(raw[:3])
    assert moved[6, :2] == pytest.approx(raw[2, :2])
    assert moved[4, :2] == pytest.approx([2.0, 0.0])
    # The second pair counts from the first one on, and what comes after keeps the last shift.
    assert moved[8, :2] == pytest.approx(moved[3, :2])
    assert moved[10, 0] - moved[8, 0] == pytest.approx(2.0)
    assert (moved[:, 2] == 0.3).all()
    assert without_drift(raw, along_m, []) == pytest.approx(raw)


@pytest.mark.parametrize("seed", range(3))
def test_two_drives_merge_into_one_connected_graph(seed):
    model = SyntheticModel(seed)
    first, truth = build(model, driven(STRAIGHT), seed=seed)
    moved = driven(BESIDE)
    # The second drive's odometry began elsewhere, turned by a quarter.
    frame = np.column_stack((3.0 - moved[:, 1], 2.0 + moved[:, 0], moved[:, 2] + math.pi / 2))
    builder = MapBuilder(model)
    rng = np.random.default_rng(seed)
    seen = []
    for index, pose in enumerate(moved):
        if builder.add(render(pose, rng), 0.25 * index, tuple(frame[index])) is not None:
            seen.append(pose)
    builder.name_node("end")
    second = builder.finish(name="second")
    change = merge([name_node(first, "end", len(first) - 1), second], model, name="both")
    made = change.map
    assert len(made) == len(first) + len(second) and made.name == "both"
    assert rx.is_weakly_connected(made.graph)
    assert reaches(made, 0, len(made) - 1) and reaches(made, len(first), len(first) - 1)
    assert made.names["end"] == len(first) - 1 and f"end-{len(made) - 1}" in made.names
    places = np.concatenate((truth, seen))
    apart = np.hypot(*(made.poses - places)[:, :2].T)
    assert apart.max() < 0.6
    assert set(made.drives.tolist()) == {0, 1}


def test_a_map_that_is_merged_twice_is_left_out():
    model = SyntheticModel()
    first, _ = build(model, driven(STRAIGHT))
    second, _ = build(model, driven(BESIDE), seed=1)
    both = merge([first, second], model)
    for parts in (
        [first, first],
        [first, second, first],
        [both.map, second],
        [second, first, second],
    ):
        change = merge(parts, model)
        assert len(change.map) in (len(first), len(both.map))
        (line,) = [line for line in change.report if "left out" in line]
        assert f"map {len(parts)}" in line
    assert not any("left out" in line for line in both.report)


@pytest.mark.parametrize("name", ["coffee room.png", "dock.JPG", "last", "12", "", " "])
def test_names_that_could_be_taken_for_something_else_are_refused(name):
    made, _ = build(SyntheticModel(), driven([(0, 0), (2, 0)]))
    with pytest.raises(MapError, match="name"):
        name_node(made, name, 0)
    builder = MapBuilder(SyntheticModel())
    builder.add(render((0.0, 0.0, 0.0)), 0.0)
    with pytest.raises(ValueError, match="name"):
        builder.name_node(name)
    # A drive is not lost by a name.
    assert builder.finish().names == {}
    # A name that an older map has still counts.
    assert dataclasses.replace(made, names={"coffee room.png": 0}).node("coffee room.png") == 0


def test_drives_that_share_nothing_do_not_merge():
    model = SyntheticModel()
    first, _ = build(model, driven(STRAIGHT))
    apart, _ = build(model, driven([(-10, -10), (-10, -4)]))
    with pytest.raises(MapError) as caught:
        merge([first, apart], model)
    assert caught.value.code == MapCode.NOT_CONNECTED
    joined = merge([first, apart], model, allow_apart=True).map
    assert len(joined) == len(first) + len(apart)
    other = SyntheticModel()
    other.spec = dataclasses.replace(other.spec, fingerprint="0" * 64)
    with pytest.raises(MapError) as caught:
        merge([first, apart], other)
    assert caught.value.code == MapCode.OTHER_MODEL


@pytest.mark.parametrize("seed", range(3))
def test_pruning_keeps_every_way(seed):
    model = SyntheticModel(seed)
    drives = [driven(STRAIGHT), driven(BESIDE), driven(STRAIGHT)]
    made, _ = build(model, *drives, seed=seed)
    named = name_node(made, "dock", 3)
    pruned = prune(named).map
    assert len(pruned) < len(made) and pruned.node("dock") >= 0
    kept = [
        int(np.flatnonzero((made.images == image).all(axis=(1, 2, 3)))[0])
        for image in pruned.images
    ]
    for a in range(0, len(kept), 3):
        for b in range(0, len(kept), 3):
            if reaches(made, kept[a], kept[b]):
                assert reaches(pruned, a, b)


def test_repair_takes_out_false_closures_and_mends_gaps():
    model = SyntheticModel()
    made, _ = build(model, driven([(0, 0), (10, 0)]))
    edges = [edge for edge in made.edges.tolist() if edge[:2] != (5, 6)]
    edges.append((1, len(made) - 2, 2.0, EdgeKind.CLOSURE))
    broken = dataclasses.replace(made, edges=edge_array(edges))
    assert not reaches(dataclasses.replace(made, edges=edge_array(edges[:-1])), 0, len(made) - 1)
    change = repair(broken, model)
    pairs = {(a, b) for a, b, _, _ in change.map.edges.tolist()}
    assert (5, 6) in pairs and (1, len(made) - 2) not in pairs
    assert any("taken out" in line for line in change.report)
    lonely = dataclasses.replace(
        made,
        edges=edge_array([edge for edge in made.edges.tolist() if 4 not in edge[:2]]),
        drives=None,
    )
    assert len(repair(lonely, model).map) == len(made) - 1


def test_a_map_is_converted_to_another_network():
    made, _ = build(SyntheticModel(), driven(STRAIGHT))
    other = SyntheticModel(1, embedding_size=16)
    other.spec = dataclasses.replace(other.spec, fingerprint="a" * 64, image_size=(96, 96))
    converted = convert(made, other).map
    assert converted.images.shape == (len(made), 96, 96, 3)
    assert converted.embeddings.shape == (len(made), 16)
    assert converted.model.fingerprint == "a" * 64
    assert (converted.edges["kind"] == EdgeKind.CHAIN).sum() == len(made) - 1
    with pytest.raises(MapError) as caught:
        convert(dataclasses.replace(made, pictures=()), other)
    assert caught.value.code == MapCode.INVALID


def test_numbered_images_become_a_chain():
    poses = driven([(0, 0), (6, 0)])[::6]
    pictures = [cv2.imencode(".png", render(pose))[1].tobytes() for pose in poses]
    made = from_pictures(pictures, SyntheticModel(), dt_s=1.5)
    assert [tuple(edge)[:3] for edge in made.edges.tolist()] == [
        (n, n + 1, 6.0) for n in range(len(poses) - 1)
    ]
    with pytest.raises(MapError) as caught:
        from_pictures([*pictures, b"\x89PNG but cut"], SyntheticModel())
    assert caught.value.code == MapCode.CORRUPT


def test_selected_nodes_keep_what_belongs_to_them():
    made, _ = build(SyntheticModel(), driven(STRAIGHT))
    made = name_node(made, "dock", 7)
    keep = np.ones(len(made), bool)
    keep[[0, 4, 5]] = False
    chosen = select(made, keep)
    assert chosen.names == {"dock": 4}
    np.testing.assert_array_equal(chosen.poses, made.poses[keep])
    np.testing.assert_array_equal(chosen.images, made.images[keep])
    assert list(chosen.pictures) == [p for p, k in zip(made.pictures, keep, strict=True) if k]


@pytest.mark.parametrize("seed", range(10))
def test_a_rigid_motion_is_found_among_wrong_pairs(seed):
    rng = np.random.default_rng(seed)
    motion = (*rng.uniform(-20, 20, 2), rng.uniform(-3, 3))
    b = rng.uniform(-10, 10, (30, 2))
    c, s = math.cos(motion[2]), math.sin(motion[2])
    a = b @ np.array([[c, s], [-s, c]]) + motion[:2] + rng.normal(0.0, 0.1, b.shape)
    a[:10] = rng.uniform(-30, 30, (10, 2))
    found = rigid_motion(a, b)
    assert np.abs(np.array(found)[:2] - motion[:2]).max() < 0.3
    assert abs(wrap(found[2] - motion[2])) < 0.05
    assert rigid_motion(rng.uniform(-30, 30, (30, 2)), b, tolerance_m=0.2) is None


def drive_at(builder, points, rate_hz, odometry=lambda index, pose: tuple(pose), start_s=0.0):
    """Show a drive at nominal speed to a camera of this rate; true poses of the nodes."""
    rng = np.random.default_rng(0)
    poses = along(rounded(points), SPACING_M * 4.0 / rate_hz)
    return [
        pose
        for index, pose in enumerate(poses)
        if builder.add(render(pose, rng), start_s + index / rate_hz, odometry(index, pose))
        is not None
    ]


def chain_ratio(made):
    """Cost of the driven edges, in parts of the time that the drive took."""
    chain = made.edges[made.edges["kind"] == EdgeKind.CHAIN]
    elapsed_s = made.stamps_s[chain["b"]] - made.stamps_s[chain["a"]]
    return chain["steps"].sum() / (elapsed_s.sum() / 0.25)


@pytest.mark.parametrize("seed", range(2))
def test_edges_take_as_long_as_the_drive_whatever_the_cameras_rate(seed):
    ratios = []
    for rate_hz in (20.0, 10.0, 7.0, 4.0, 2.0, 1.0):
        builder = MapBuilder(SyntheticModel(seed))
        drive_at(builder, [(0, 0), (12, 0)], rate_hz)
        ratios.append(chain_ratio(builder.finish()))
    assert max(ratios) < 1.2 * min(ratios), ratios


def test_missing_images_lengthen_the_edge_over_them():
    poses = along([(0, 0), (12, 0)], SPACING_M)
    builder = MapBuilder(SyntheticModel())
    rng = np.random.default_rng(0)
    for index, pose in enumerate(poses):
        if not 40 <= index < 52:
            builder.add(render(pose, rng), 0.25 * index)
    made = builder.finish()
    chain = made.edges[made.edges["kind"] == EdgeKind.CHAIN]
    driven_steps = (made.stamps_s[chain["b"]] - made.stamps_s[chain["a"]]) / 0.25
    assert driven_steps.max() >= 13.0
    longest = int(driven_steps.argmax())
    assert 0.8 < chain["steps"][longest] / driven_steps[longest] < 1.2


@pytest.mark.parametrize("gap_s", [4.0, 6.0, -20.0])
def test_a_long_gap_begins_another_drive(gap_s):
    builder = MapBuilder(SyntheticModel())
    drive_at(builder, [(0, 0), (4, 0)], 10.0)
    first = len(builder)
    drive_at(builder, [(4, 0), (8, 0)], 10.0, start_s=builder.counts.stamp_s + gap_s)
    made = builder.finish()
    is_new = not 0.0 < gap_s < 5.0
    assert builder.counts.drives == int(is_new) == made.drives.max()
    edges = [tuple(edge)[:2] for edge in made.edges.tolist()]
    assert ((first - 1, first) in edges) != is_new


@pytest.mark.parametrize("stamp_s", [0.0, 1000.0])
def test_images_without_a_newer_stamp_are_counted(stamp_s):
    builder = MapBuilder(SyntheticModel())
    for pose in driven([(0, 0), (4, 0)]):
        builder.add(render(pose), stamp_s)
    assert len(builder) == builder.counts.taken == 1
    assert builder.counts.stamp_fault() == f"31 of 32 images have no newer stamp ({stamp_s:.3f})"


def moved_after(index, motion):
    """Odometry that from this image on is in a frame that lies elsewhere."""
    return lambda number, pose: compose(motion, tuple(pose)) if number >= index else tuple(pose)


def reset_at(index, poses, keep_heading):
    """Odometry that begins anew at this image."""
    x, y, yaw = poses[index]
    return moved_after(index, inverse((x, y, 0.0 if keep_heading else yaw)))


LOOP = [(0, 0), (5, 0), (5, 4), (0, 4), (0, 0), (5, 0)]


@pytest.mark.parametrize(
    ("jump", "rate_hz"),
    [("reset", 10.0), ("position", 4.0), ("teleport", 4.0), ("heading", 4.0)],
)
def test_odometry_that_jumps_is_continued(jump, rate_hz):
    poses = along(rounded(LOOP), SPACING_M * 4.0 / rate_hz)
    index = len(poses) // 2
    odometry = {
        "reset": reset_at(index, poses, False),
        "position": reset_at(index, poses, True),
        "teleport": moved_after(index, (2.6, 0.0, 0.0)),
        "heading": moved_after(index, compose(inverse((0, 0, 2.0)), (0.1, 0.0, 0.0))),
    }[jump]
    builder = MapBuilder(SyntheticModel())
    truth = np.array(drive_at(builder, LOOP, rate_hz, odometry))
    made = builder.finish()
    ((jump_s, _),) = builder.counts.jumps
    assert jump_s == pytest.approx(index / rate_hz)
    assert np.hypot(*(made.poses - truth)[:, :2].T).max() < 0.4
    assert np.abs(wrap(made.poses[:, 2] - truth[:, 2])).max() < 0.2
    assert (made.edges["kind"] == EdgeKind.CLOSURE).any()
    found = made.edges[made.edges["kind"] != EdgeKind.CHAIN]
    assert np.hypot(*(truth[found["a"]] - truth[found["b"]])[:, :2].T).max() < 1.0


def test_a_jump_after_a_silence_begins_another_frame():
    """Back past the first places in the other direction, by an odometry that was restarted."""
    way = [(0, 0), (6, 0)]
    builder = MapBuilder(SyntheticModel())
    turn = along(way, SPACING_M)

    def silent_then_restarted(index, pose):
        if index < 30:
            return tuple(pose)
        return None if index < 40 else (pose[0] - turn[40][0], 0.0, math.pi)

    drive_at(builder, way, 4.0, silent_then_restarted)
    with_frames = builder.finish()
    assert len(builder.counts.jumps) == 1
    assert not (with_frames.edges["kind"] == EdgeKind.TURN).any()


def test_a_base_that_is_fast_does_not_jump():
    builder = MapBuilder(SyntheticModel())
    for index in range(40):
        pose = (0.25 * index * 2.8, 0.0, 0.25 * index * 2.5)
        builder.add(render((0.1 * index, 0.0, 0.0)), 0.25 * index, pose)
    assert not builder.counts.jumps
