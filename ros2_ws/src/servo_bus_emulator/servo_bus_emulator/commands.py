"""Faults by name: the text commands that an emulator takes while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from emulators.control_socket import do_command
from emulators.line_noise import LineNoise
from widowx_control.xs_driver.control_table import ERROR_OVERLOAD

from servo_bus_emulator.bus import EmulatedBus
from servo_bus_emulator.bus_server import BusServer

HELP: Final = """\
unplug_bus | plug_bus                 pull the USB plug, put it back at the same link
unplug_servo ID | plug_servo ID       cut one servo off the line
power_cycle                           switch the supply off and on
reboot ID                             one servo restarts (brown-out)
overload ID                           latch an overload error
temperature ID CELSIUS                heat a servo
voltage VOLTS                         change the supply
noise KEY=VALUE ...                   corrupt, drop, truncate, delay (0..1), delay_s; none: quiet
state                                 every servo as JSON
register ID NAME                      value of a register of the control table
writes                                writes since the last call as JSON: [time on the steady
                                      clock in s, packet id, instruction, parameters in hex]
stalls                                delays of the emulator itself by the computer since the last
                                      call, those over 5 ms, as JSON: [s, ...]
help                                  this text"""


def execute(server: BusServer, line: str) -> str:
    """Do one command and return what to print.

    Raises:
        CommandError: unknown command, wrong arguments.
    """
    return do_command({name: partial(act, server) for name, act in _COMMANDS.items()}, line)


def _set_unplugged(server: BusServer, servo_id: str, unplugged: bool) -> None:
    server.call(lambda bus: setattr(bus.servo(int(servo_id)), "unplugged", unplugged))


def _reboot(server: BusServer, servo_id: str) -> None:
    server.call(lambda bus: bus.servo(int(servo_id)).reboot(bus.now_s))


def _overload(server: BusServer, servo_id: str) -> None:
    server.call(lambda bus: bus.servo(int(servo_id)).raise_error(ERROR_OVERLOAD))


def _temperature(server: BusServer, servo_id: str, celsius: str) -> None:
    server.call(lambda bus: bus.servo(int(servo_id)).set_temperature(float(celsius)))


def _voltage(server: BusServer, volts: str) -> None:
    server.call(lambda bus: bus.set_supply_voltage(float(volts)))


def _noise(server: BusServer, *settings: str) -> None:
    noise = LineNoise.of(settings)

    def apply(bus: EmulatedBus) -> None:
        bus.to_servos.noise = noise
        bus.to_host.noise = noise

    server.call(apply)


def _state(server: BusServer) -> str:
    def collect(bus: EmulatedBus) -> list[Mapping[str, object]]:
        return [dict(servo.summary(bus.now_s)) for servo in bus.servos]

    return json.dumps(server.call(collect))


def _register(server: BusServer, servo_id: str, name: str) -> str:
    return str(server.call(lambda bus: bus.servo(int(servo_id)).table.get(name)))


def _writes(server: BusServer) -> str:
    def take(bus: EmulatedBus) -> list[tuple[float, int, int, str]]:
        taken = [
            (server.steady_time(at), packet.servo_id, packet.code, packet.parameters.hex())
            for at, packet in bus.writes
        ]
        bus.writes.clear()
        return taken

    return json.dumps(server.call(take))


def _stalls(server: BusServer) -> str:
    return json.dumps(server.call(lambda _: server.take_stalls()))


_COMMANDS: Final[dict[str, Callable[..., str | None]]] = {
    "unplug_bus": BusServer.unplug,
    "plug_bus": BusServer.plug,
    "unplug_servo": lambda server, servo_id: _set_unplugged(server, servo_id, True),
    "plug_servo": lambda server, servo_id: _set_unplugged(server, servo_id, False),
    "power_cycle": lambda server: server.call(EmulatedBus.power_cycle),
    "reboot": _reboot,
    "overload": _overload,
    "temperature": _temperature,
    "voltage": _voltage,
    "noise": _noise,
    "state": _state,
    "register": _register,
    "writes": _writes,
    "stalls": _stalls,
    "help": lambda server: HELP,
}
