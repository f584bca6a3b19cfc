"""An emulated arm with the driver on it, in one process."""

import time
from collections import deque

from servo_bus_emulator.bus_server import BusServer
from servo_bus_emulator.commands import execute
from servo_bus_emulator.widowx import widowx_bus
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.driver import XsDriver
from widowx_control.xs_driver.driver_types import DriverSettings, DriverState
from widowx_control.xs_driver.package_files import default_modes, default_motors
from widowx_control.xs_driver.units import rad_from_ticks


def wait_for(condition, timeout_s=10.0, what="the condition"):
    """Return the condition's first true value, or fail after a time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come true within {timeout_s} s")


class Arm:
    """The emulated bus, and drivers that come and go on it."""

    def __init__(self, path, **bus_settings):
        self.configuration = load_configuration(default_motors(), default_modes())
        bus = widowx_bus(self.configuration, **bus_settings)
        self.server = BusServer(bus, path / "ttyDXL", realtime_priority=30)
        self.server.start()
        self.driver = None
        self.events = []
        self.readings = deque(maxlen=100_000)  # (monotonic s, JointReading)

    def start_driver(self, expect=DriverState.RUNNING, **settings):
        chosen = {"reply_margin_s": 0.02, "bus_watchdog_ms": 500} | settings
        self.events = []
        self.readings.clear()
        self.driver = XsDriver(
            self.configuration,
            DriverSettings(port=self.server.port, **chosen),
            lambda reading: self.readings.append((time.monotonic(), reading)),
            lambda level, text: self.events.append((level, text)),
        )
        self.driver.start()
        if expect is not None:
            self.wait_state(expect)
        return self.driver

    def stop_driver(self):
        if self.driver is not None:
            self.driver.stop()
            self.driver = None

    def wait_state(self, state, timeout_s=10.0):
        wait_for(lambda: self.driver.status().state is state, timeout_s, f"{state}")

    def tell(self, line):
        return execute(self.server, line)

    def servo(self, motor, register):
        servo_id = self.configuration.motors[motor].servo_id
        return self.server.call(lambda bus: bus.servo(servo_id).table.get(register))

    def servos(self, attribute):
        return self.server.call(lambda bus: {s.servo_id: getattr(s, attribute) for s in bus.servos})

    def joint(self, name):
        """True angle of a joint, rad."""
        return self.server.call(lambda bus: bus.joint_motion()[name].position_rad)

    def speed(self, name):
        return self.server.call(lambda bus: bus.joint_motion()[name].velocity_rad_s)

    def published(self):
        """Positions of the last reading by joint, rad."""
        _, reading = self.readings[-1]
        return {
            name: rad_from_ticks(state.position)
            for name, state in zip(self.configuration.joint_order, reading.states, strict=True)
        }

    def close(self):
        self.stop_driver()
        self.server.stop()
