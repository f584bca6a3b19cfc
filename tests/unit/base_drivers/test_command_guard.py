"""The guard's decisions, on clocks that the test moves."""

import math

import numpy as np
import pytest
from base_drivers.command_guard import (
    BUMPER,
    COMMAND_LATE,
    COMMAND_OUT_OF_ORDER,
    COMMAND_SILENT,
    CONTACTS_SILENT,
    EMERGENCY_STOP,
    EMERGENCY_STOP_SILENT,
    SCAN_SLOW,
    SCAN_STOP,
    Command,
    CommandGuard,
    State,
)
from base_drivers.contact_rules import Contacts, allowed_motion
from base_drivers.guard_parameters import PARAMETERS, config_from
from base_drivers.velocity import REST, Velocity
from hypothesis import given, settings
from hypothesis import strategies as st


def make_guard(**changes):
    values = {entry.name: entry.default for entry in PARAMETERS} | changes
    return CommandGuard(config_from(values))


class Drive:
    """A guard and its clocks."""

    def __init__(self, **changes):
        self.guard = make_guard(**changes)
        self.now_s = 100.0

    def send(self, *components, **command):
        self.now_s += 0.02
        self.guard.on_command(Command(Velocity(*components), **command), self.now_s, self.now_s)
        return self.decide()

    def decide(self):
        return self.guard.decide(self.now_s, self.now_s)

    def cruise(self, *components, duration_s=1.0):
        for _ in range(round(duration_s / 0.05)):
            self.now_s += 0.03
            decision = self.send(*components)
        return decision

    def wait(self, duration_s):
        self.now_s += duration_s
        return self.decide()


def test_silence_slows_and_stops_then_goes_quiet():
    drive = Drive()
    assert drive.decide().state is State.WAITING and drive.decide().output is None
    assert drive.cruise(0.4).output == Velocity(0.4)
    # A command that comes a little late changes nothing; from half its time on it fades.
    assert drive.wait(0.09).output == Velocity(0.4)
    slowed = drive.wait(0.06)
    assert (slowed.state, slowed.finding.code) == (State.SLOWING, COMMAND_LATE)
    assert slowed.output.x == pytest.approx(0.2)
    stopped = drive.wait(0.06)
    assert (stopped.state, stopped.finding.code) == (State.HOLDING, COMMAND_SILENT)
    assert stopped.output == REST
    assert drive.wait(0.9).output == REST
    quiet = drive.wait(0.2)
    assert quiet.output is None and quiet.finding.code == COMMAND_SILENT


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("command"), st.floats(), st.floats(), st.floats()),
            st.tuples(st.just("contacts"), st.integers(0, 255)),
            st.tuples(st.just("scan"), st.floats(0.05, 3.0), st.floats(-3.1, 3.1)),
            st.tuples(st.just("wait"), st.floats(0.0, 0.5)),
            st.tuples(st.just("stop")),
            st.tuples(st.just("rearm")),
        ),
        max_size=40,
    )
)
def test_whatever_happens_the_output_is_finite_and_within_the_limits(events):
    drive = Drive()
    guard = drive.guard
    limits = guard.config.limits
    last_command_s = -math.inf
    for kind, *values in events:
        if kind == "command":
            guard.on_command(Command(Velocity(*values)), drive.now_s, drive.now_s)
            last_command_s = drive.now_s
        elif kind == "contacts":
            flags = [bool(values[0] >> bit & 1) for bit in range(8)]
            guard.on_contacts(Contacts(*flags), drive.now_s)
        elif kind == "scan":
            point = values[0] * np.array([[math.cos(values[1]), math.sin(values[1])]])
            guard.on_scan(point, drive.now_s, drive.now_s)
        elif kind == "wait":
            drive.now_s += values[0]
        elif kind == "stop":
            guard.stop()
        else:
            guard.rearm(drive.now_s)
        decision = drive.decide()
        output = decision.output
        if output is None:
            continue
        assert output.is_finite()
        assert abs(output.x) <= limits.max_linear_m_s * 1.001 and output.y == 0.0
        assert abs(output.yaw) <= limits.max_angular_rad_s * 1.001
        if not output.is_rest():
            assert drive.now_s - last_command_s <= guard.config.command_timeout_s
            assert decision.state in (State.PASSING, State.SLOWING)


def test_a_late_command_leaves_the_one_before_in_force_and_nan_does_not():
    drive = Drive()
    drive.cruise(0.4)
    assert drive.send(0.1, stamp_s=drive.now_s - 1.0).output == Velocity(0.4)
    assert drive.wait(0.25).finding.code == "command_stale"
    drive.cruise(0.4)
    assert drive.send(math.nan, 0.0, 0.0).output == REST
    assert drive.decide().finding.code == "command_not_finite"
    assert drive.send(0.05).state is not State.HOLDING


def test_order_is_kept_and_a_clock_set_back_is_survived():
    drive = Drive()
    drive.send(0.02, stamp_s=drive.now_s)
    drive.send(0.01, stamp_s=drive.now_s - 0.05)
    assert drive.guard.counts == {COMMAND_OUT_OF_ORDER: 1}
    drive.now_s += 0.05
    command = Command(Velocity(0.01), stamp_s=3.0)
    drive.guard.on_command(command, drive.now_s, 3.0)
    assert drive.guard.decide(drive.now_s, 3.0).output == Velocity(0.01)


@pytest.mark.parametrize(
    ("contacts", "wanted", "expected"),
    [
        (Contacts(bumper_center=True), Velocity(0.3, 0.0, 0.5), REST),
        (Contacts(bumper_center=True), Velocity(-0.3, 0.0, 0.5), Velocity(-0.3, 0.0, 0.5)),
        (Contacts(bumper_left=True), Velocity(0.3, 0.0, -0.5), Velocity(0.0, 0.0, -0.5)),
        (Contacts(bumper_left=True), Velocity(0.3, 0.0, 0.5), REST),
        (Contacts(cliff_right=True), Velocity(0.0, 0.2, 0.5), Velocity(0.0, 0.0, 0.5)),
        (Contacts(cliff_right=True, bumper_left=True), Velocity(0.1, 0.0, 0.5), REST),
        (Contacts(), Velocity(0.3, 0.1, 0.5), Velocity(0.3, 0.1, 0.5)),
    ],
)
def test_contacts_leave_only_ways_out(contacts, wanted, expected):
    assert allowed_motion(wanted, contacts) == expected


def test_a_pressed_bumper_holds_until_released_and_lost_contacts_hold():
    drive = Drive()
    drive.guard.on_contacts(Contacts(), drive.now_s)
    assert drive.send(0.05).state is not State.HOLDING
    drive.guard.on_contacts(Contacts(bumper_right=True), drive.now_s)
    assert drive.decide().finding.code == BUMPER and drive.decide().output == REST
    assert drive.send(-0.01).output == Velocity(-0.01)
    drive.guard.on_contacts(Contacts(), drive.now_s)
    assert drive.send(0.01).output == Velocity(0.01)
    for _ in range(6):
        drive.now_s += 0.05
        drive.send(0.05)
    assert drive.decide().finding.code == CONTACTS_SILENT


def test_the_scan_slows_then_stops_and_leaves_the_turn():
    drive = Drive()
    seen = []
    # The wall comes nearer, as it does to a base that drives.
    for gap_m in np.linspace(1.0, 0.1, 60):
        drive.now_s += 0.05
        wall = np.array([[0.18 + gap_m, y] for y in np.linspace(-1.0, 1.0, 41)])
        drive.guard.on_scan(wall, drive.now_s, drive.now_s)
        decision = drive.send(0.4)
        seen.append((decision.finding.code, decision.output.x))
    slow = [speed for code, speed in seen if code == SCAN_SLOW]
    assert slow == sorted(slow, reverse=True) and 0.0 < slow[-1] < 0.15
    assert seen[-1] == (SCAN_STOP, 0.0)
    turning = drive.send(0.4, 0.0, 0.2)
    assert turning.output.x == 0.0 and turning.output.yaw > 0.0
    assert turning.finding.code == SCAN_STOP
    assert drive.send(-0.01).output == Velocity(-0.01)


def test_rearm_is_refused_while_the_cause_is_there():
    drive = Drive(emergency_stop_timeout_s=0.5)
    drive.cruise(0.4)
    drive.guard.on_emergency_stop(True, drive.now_s)
    assert drive.decide().finding.code == EMERGENCY_STOP and drive.decide().output == REST
    assert drive.guard.rearm(drive.now_s)[0] is False
    drive.guard.on_emergency_stop(False, drive.now_s)
    assert drive.cruise(0.4, duration_s=0.2).state is State.STOPPED
    assert drive.guard.rearm(drive.now_s)[0] is True
    assert drive.decide().state is State.WAITING
    assert drive.send(0.01).output == Velocity(0.01)
    for _ in range(12):
        drive.now_s += 0.05
        drive.send(0.01)
    assert drive.decide().finding.code == EMERGENCY_STOP_SILENT
    assert drive.guard.rearm(drive.now_s)[0] is False


def test_a_lifted_base_stays_stopped_when_it_is_put_down():
    drive = Drive()
    drive.guard.on_contacts(Contacts(wheel_drop_left=True), drive.now_s)
    assert not drive.guard.rearm(drive.now_s)[0]
    drive.guard.on_contacts(Contacts(), drive.now_s)
    assert drive.send(0.05).state is State.STOPPED
    drive.guard.reset()
    assert drive.send(0.05).state is State.STOPPED
    assert not drive.guard.rearm(drive.now_s)[0], "contacts were forgotten"
    drive.guard.on_contacts(Contacts(), drive.now_s)
    assert drive.guard.rearm(drive.now_s)[0]


def test_a_scan_that_says_nothing_is_not_free_space():
    drive = Drive()
    assert drive.cruise(0.3).output == Velocity(0.3)
    for code in ("scan_blind", "scan_frame", "scan_malformed"):
        drive.guard.refuse_scan(code, "told so")
        held = drive.send(0.3)
        assert (held.state, held.finding.code, held.output) == (State.HOLDING, code, REST)
    drive.guard.on_scan(np.zeros((0, 2)), drive.now_s, drive.now_s)
    assert drive.send(0.3).output.x > 0.0
    # Refused scans are not missing ones.
    for _ in range(20):
        drive.guard.refuse_scan("scan_blind", "told so")
        last = drive.send(0.3)
    assert last.finding.code == "scan_blind" and drive.guard.counts["scan_blind"] == 21


@pytest.mark.parametrize(
    ("stamp_s", "code", "said"),
    [
        (0.0, "scan_stale", "no stamp"),
        (99.0, "scan_stale", "old"),
        (math.nan, "scan_stale", "old"),
        (160.0, "scan_future", "future"),
    ],
)
def test_scans_are_judged_by_their_stamps(stamp_s, code, said):
    drive = Drive()
    drive.cruise(0.3)
    drive.guard.on_scan(np.zeros((0, 2)), stamp_s, drive.now_s)
    held = drive.send(0.3)
    assert (held.finding.code, held.output) == (code, REST) and said in held.finding.message


@pytest.mark.parametrize(
    ("stamp_s", "node_s", "code", "said"),
    [
        (0.0, 1.8e9, "command_stale", "no stamp"),
        (1.0, 1.8e9, "command_stale", "late"),
        (math.nan, 1.8e9, "command_stale", "late"),
        (1.8e9 + 5.0, 1.8e9, "command_future", "future"),
        (1.8e9, 0.0, "clock_stands", "use_sim_time"),
    ],
)
def test_the_reason_names_what_is_wrong_with_a_stamp(stamp_s, node_s, code, said):
    guard = make_guard()
    guard.on_command(Command(Velocity(0.3), stamp_s=stamp_s), 5.0, node_s)
    decision = guard.decide(5.0, node_s)
    assert (decision.state, decision.finding.code) == (State.HOLDING, code)
    assert said in decision.finding.message


@pytest.mark.parametrize("stands_at_s", [0.0, 12.3])
def test_a_clock_that_stands_is_named(stands_at_s):
    guard = make_guard()
    for step in range(100):
        steady_s = 5.0 + 0.02 * step
        guard.on_command(Command(Velocity(0.3)), steady_s, stands_at_s)
        decision = guard.decide(steady_s, stands_at_s)
    assert (decision.finding.code, decision.output) == ("clock_stands", REST)
    # It goes on when the clock does.
    for step in range(100, 160):
        now_s = 5.0 + 0.02 * step
        guard.on_command(Command(Velocity(0.3)), now_s, stands_at_s + 0.02 * step)
        decision = guard.decide(now_s, stands_at_s + 0.02 * step)
    assert decision.output == Velocity(0.3)


def test_the_reason_follows_the_newest_refused_command():
    guard = make_guard()
    for frame in ("base_footprint", "odom", "/base_link"):
        guard.on_command(Command(Velocity(0.3), stamp_s=9.9, frame=frame), 5.0, 10.0)
        assert f"'{frame}'" in guard.decide(5.0, 10.0).finding.message
