"""The launch files of navigation, as a user calls them."""

import json

import pytest

LAUNCH_S = 400.0


def test_the_main_job_in_simulation(start, tmp_path):
    report, maps = tmp_path / "report.json", tmp_path / "maps"
    launch = start(
        "launch", "gnm_nav", "sim.launch.py", "robot:=locobot", "goal:=last", "seed:=10001",
        f"report:={report}", f"keep_map:={maps}",
    )  # fmt: skip
    status = launch.wait(LAUNCH_S)
    document = json.loads(report.read_text())
    assert document["summary"]["trials"] == 1
    (trial,) = document["trials"]
    assert trial["horizons"] >= 5.0
    assert status == 0, launch.output
    assert trial["success"]
    assert trial["stopped"] and trial["away_m"] <= document["goal_radius_m"]
    launch.assert_nothing_left()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["robot:=lokobot"], "locobot"),
        (["goall:=last"], "goal"),
        (["bundle:=gmn_sim"], "gnm_sim"),
        (["seed:=7"], "seed"),
        (["map:=/nowhere/map"], "/nowhere/map"),
    ],
)
def test_wrong_arguments_of_the_simulation_are_named(start, arguments, named):
    launch = start("launch", "gnm_nav", "sim.launch.py", *arguments)
    assert launch.wait(60.0) != 0
    assert named in launch.output
    launch.assert_nothing_left()


@pytest.mark.parametrize(
    ("file", "arguments", "named"),
    [
        ("navigate.launch.py", ["map:=/nowhere/map"], "/nowhere/map"),
        ("navigate.launch.py", [], "map"),
        ("navigate.launch.py", ["map:=/tmp", "port:=/dev/x"], "base:=kobuki"),
        ("explore.launch.py", ["duration_s:=-1"], "duration_s"),
    ],
)
def test_wrong_arguments_for_robots_are_named(start, file, arguments, named):
    launch = start("launch", "gnm_nav", file, *arguments)
    assert launch.wait(60.0) != 0
    assert named in launch.output
    launch.assert_nothing_left()
