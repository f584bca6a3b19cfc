"""The launch files of navigation, as a user calls them."""

import pytest


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
        ("explore.launch.py", ["base:=kobuki", "port:=/dev/no"], "60-kobuki.rules"),
        ("explore.launch.py", ["camera:=99"], "the camera /dev/video99 does not exist"),
    ],
)
def test_wrong_arguments_for_robots_are_named(start, file, arguments, named):
    launch = start("launch", "gnm_nav", file, *arguments)
    assert launch.wait(60.0) != 0
    assert named in launch.output
    launch.assert_nothing_left()
