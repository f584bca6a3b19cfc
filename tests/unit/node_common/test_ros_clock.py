"""Pacing by a simulated clock."""

import threading
import time

from node_common.ros_clock import SimulatedTickClock
from rclpy.clock import ClockType, ROSClock
from rclpy.time import Time

STALL_S = 0.5


def simulated(time_s):
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    advance(clock, time_s)
    return clock


def advance(clock, time_s):
    clock.set_ros_time_override(
        Time(nanoseconds=round(time_s * 1e9), clock_type=ClockType.ROS_TIME)
    )


def test_waiting_ends_at_its_time_and_when_the_clock_goes_back():
    for then_s in (200.25, 3.0):
        clock = simulated(200.0)
        ticks = SimulatedTickClock(clock, threading.Event(), 30.0, print)
        threading.Timer(0.1, advance, (clock, then_s)).start()
        began_s = time.monotonic()
        assert ticks.wait_until(200.2)
        assert time.monotonic() - began_s < 10.0
        assert ticks.now() == then_s
        ticks.close()


def test_a_clock_that_stands_ends_the_waiting_with_its_reason():
    told = []
    ticks = SimulatedTickClock(simulated(200.0), threading.Event(), STALL_S, told.append)
    assert not ticks.wait_until(200.2)
    assert told == [f"the simulated clock stood still for {STALL_S} s"]
    ticks.close()
