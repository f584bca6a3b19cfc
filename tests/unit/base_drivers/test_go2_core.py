"""What the Go2 is asked for, on a clock that the test moves."""

import json
import math
from dataclasses import replace

import pytest
from base_drivers.go2.driver import Go2Core, Posture
from base_drivers.go2.sport_service import (
    Api,
    Mode,
    SportState,
    move,
    velocity_from_parameter,
)
from base_drivers.velocity import Velocity
from hypothesis import given, settings
from hypothesis import strategies as st

STANDING = SportState(
    mode=Mode.BALANCE_STAND,
    error_code=0,
    position_m=(0.0, 0.0, 0.3),
    quaternion_wxyz=(1.0, 0.0, 0.0, 0.0),
    velocity_m_s=(0.0, 0.0, 0.0),
    yaw_rate_rad_s=0.0,
)
TICK_S = 0.02


class Robot:
    """The core and its clock; `mode` is told at every tick while `tells` is true.

    Its stop keeper hears every request while `hears` is true.
    """

    def __init__(self, mode=Mode.BALANCE_STAND):
        self.core = Go2Core(0.2, 0.2, 5.0, 0.3)
        self.core.on_heard()
        self.now_s = 10.0
        self.state = replace(STANDING, mode=mode)
        self.tells = True
        self.hears = True

    def run(self, duration_s, velocity=None):
        asked = []
        for _ in range(round(duration_s / TICK_S)):
            self.now_s += TICK_S
            if self.tells:
                self.core.on_state(self.state, self.now_s)
            if velocity is not None:
                self.core.on_command(velocity, self.now_s)
            new = [request.api for request in self.core.tick(self.now_s)]
            if new and self.hears:
                self.core.on_heard()
            asked += new
        return asked


def test_silence_ends_a_walk_with_repeated_stops_and_then_nothing():
    robot = Robot()
    assert set(robot.run(1.0, Velocity(0.3, 0.1, 0.2))) == {Api.MOVE}
    after = robot.run(1.0)
    walked = after.index(Api.STOP_MOVE)
    assert walked * TICK_S <= 0.22
    assert after[walked:] == [Api.STOP_MOVE] * 5
    assert robot.core.watchdog_stops == 1
    assert robot.run(1.0, Velocity()) == []


def test_a_silent_robot_is_stopped_and_commands_are_refused():
    robot = Robot()
    robot.run(0.5, Velocity(0.3))
    robot.tells = False
    asked = robot.run(0.5, Velocity(0.3))
    assert Api.STOP_MOVE in asked and asked[-1] == Api.STOP_MOVE
    assert robot.core.refused["state_silent"] > 0
    robot.tells = True
    assert robot.run(0.1) == [], "an old command came back"


def test_a_keeper_that_falls_silent_ends_the_walk_until_it_hears_again():
    robot = Robot()
    assert set(robot.run(1.0, Velocity(0.3))) == {Api.MOVE}
    robot.hears = False
    asked = robot.run(1.0, Velocity(0.3))
    walked = asked.index(Api.STOP_MOVE)
    assert walked * TICK_S <= 0.34
    assert Api.MOVE not in asked[walked:]
    assert robot.core.refused["keeper_silent"] > 10
    # It goes on asking for what does no harm, to be heard.
    assert set(robot.run(1.0)) == {Api.STOP_MOVE}
    robot.hears = True
    robot.run(0.2)
    assert set(robot.run(0.5, Velocity(0.3))) == {Api.MOVE}


def test_before_the_keeper_hears_nothing_moves():
    core = Go2Core(0.2, 0.2, 5.0, 0.3)
    core.on_state(STANDING, 10.0)
    core.on_command(Velocity(0.3), 10.0)
    assert core.not_ready(10.0)[0] == "keeper_silent"
    assert [request.api for request in core.tick(10.0)] == [Api.STOP_MOVE]


def test_without_a_keeper_it_drives_if_it_is_told_so():
    core = Go2Core(0.2, 0.2, 5.0, 0.0)
    core.on_state(STANDING, 10.0)
    core.on_command(Velocity(0.3), 10.0)
    assert [request.api for request in core.tick(10.0)] == [Api.MOVE]
    assert core.not_ready(10.15) is None


@pytest.mark.parametrize("mode", [Mode.LIE_DOWN, Mode.JOINT_LOCK, Mode.DAMPING, Mode.SIT, 12])
def test_it_never_changes_its_posture_by_itself(mode):
    robot = Robot(mode)
    assert robot.run(1.0, Velocity(0.3)) == []
    assert set(robot.core.refused) == {"not_standing"}


def test_standing_up_when_asked():
    robot = Robot(Mode.LIE_DOWN)
    robot.run(0.1)
    assert robot.core.change_posture(Posture.STANDING, robot.now_s) == ""
    assert "already" in robot.core.change_posture(Posture.LYING, robot.now_s)
    assert robot.run(0.5, Velocity(0.3)) == [Api.STAND_UP]
    robot.state = replace(robot.state, mode=Mode.JOINT_LOCK)
    assert robot.run(0.5) == [Api.BALANCE_STAND]
    robot.state = replace(robot.state, mode=Mode.BALANCE_STAND)
    robot.run(0.1)
    assert robot.core.outcome.success
    assert Api.MOVE in robot.run(0.1, Velocity(0.3))


def test_lying_down_waits_for_rest_and_gives_up_in_time():
    robot = Robot(Mode.LOCOMOTION)
    robot.run(0.5, Velocity(0.5))
    robot.state = replace(robot.state, velocity_m_s=(0.4, 0.0, 0.0))
    robot.core.change_posture(Posture.LYING, robot.now_s)
    assert set(robot.run(0.4, Velocity(0.5))) == {Api.STOP_MOVE}
    robot.state = replace(robot.state, velocity_m_s=(0.0, 0.0, 0.0))
    asked = robot.run(5.0)
    assert asked.count(Api.STAND_DOWN) >= 2, "a lost request is asked again"
    assert not robot.core.outcome.success and "locomotion" in robot.core.outcome.message


@settings(deadline=None)
@given(st.floats(-2, 2), st.floats(-1, 1), st.floats(-3, 3))
def test_a_velocity_survives_its_json(x, y, yaw):
    request = move(Velocity(x, y, yaw))
    assert set(json.loads(request.parameter)) == {"x", "y", "z"}
    got = velocity_from_parameter(request.parameter)
    assert (got.x, got.y, got.yaw) == pytest.approx((x, y, yaw), abs=1e-4)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_parameter_breaks_its_reader(text):
    velocity_from_parameter(text)


def test_velocity_is_turned_into_the_body():
    half = math.pi / 4
    turned = replace(
        STANDING,
        quaternion_wxyz=(math.cos(half), 0.0, 0.0, math.sin(half)),
        velocity_m_s=(0.0, 0.5, 0.0),
    )
    body = turned.body_velocity(velocity_in_body=False)
    assert (body.x, body.y) == pytest.approx((0.5, 0.0), abs=1e-9)
    assert turned.body_velocity(velocity_in_body=True).y == 0.5
    assert not replace(turned, position_m=(math.nan, 0.0, 0.0)).is_sound()
    assert not replace(turned, quaternion_wxyz=(0.0, 0.0, 0.0, 0.0)).is_sound()
