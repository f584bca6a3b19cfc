"""Faults by name: the text commands that an emulator takes while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Final

from widowx_control.xs_driver.control_table import ERROR_OVERLOAD

from servo_bus_emulator.bus import EmulatedBus
from servo_bus_emulator.faults import LineNoise
from servo_bus_emulator.pseudo_terminal import BusServer

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


class CommandError(ValueError):
    """A command was not understood; the text says what was expected."""


def execute(server: BusServer, line: str) -> str:
    """Do one command and return what to print.

    Raises:
        CommandError: unknown command, wrong number of arguments, no such servo, bad value.
    """
    words = line.split()
    if not words:
        raise CommandError("empty command; 'help' lists them")
    name, arguments = words[0], words[1:]
    command = _COMMANDS.get(name)
    if command is None:
        raise CommandError(f"unknown command '{name}'; expected one of {sorted(_COMMANDS)}")
    try:
        return command(server, *arguments)
    except TypeError as error:
        raise CommandError(f"{name}: wrong arguments {arguments}; 'help' lists them") from error
    except (ValueError, KeyError) as error:
        raise CommandError(f"{name}: {error}") from error


def _unplug_bus(server: BusServer) -> str:
    server.unplug()
    return "ok"


def _plug_bus(server: BusServer) -> str:
    server.plug()
    return "ok"


def _set_unplugged(server: BusServer, servo_id: str, unplugged: bool) -> str:
    server.call(lambda bus: setattr(bus.servo(int(servo_id)), "unplugged", unplugged))
    return "ok"


def _unplug_servo(server: BusServer, servo_id: str) -> str:
    return _set_unplugged(server, servo_id, True)


def _plug_servo(server: BusServer, servo_id: str) -> str:
    return _set_unplugged(server, servo_id, False)


def _power_cycle(server: BusServer) -> str:
    server.call(lambda bus: bus.power_cycle())
    return "ok"


def _reboot(server: BusServer, servo_id: str) -> str:
    server.call(lambda bus: bus.servo(int(servo_id)).reboot(bus.now_s))
    return "ok"


def _overload(server: BusServer, servo_id: str) -> str:
    server.call(lambda bus: bus.servo(int(servo_id)).raise_error(ERROR_OVERLOAD))
    return "ok"


def _temperature(server: BusServer, servo_id: str, celsius: str) -> str:
    server.call(lambda bus: bus.servo(int(servo_id)).set_temperature(float(celsius)))
    return "ok"


def _voltage(server: BusServer, volts: str) -> str:
    server.call(lambda bus: bus.set_supply_voltage(float(volts)))
    return "ok"


def _noise(server: BusServer, *settings: str) -> str:
    noise = LineNoise()
    known = {f.name for f in fields(LineNoise)}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in known:
            raise ValueError(f"unknown key '{key}'; expected one of {sorted(known)}")
        noise = replace(noise, **{key: float(value)})

    def apply(bus: EmulatedBus) -> None:
        bus.to_servos.noise = noise
        bus.to_host.noise = noise

    server.call(apply)
    return "ok"


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


def _help(_: BusServer) -> str:
    return HELP


_COMMANDS: Final[dict[str, Callable[..., str]]] = {
    "unplug_bus": _unplug_bus,
    "plug_bus": _plug_bus,
    "unplug_servo": _unplug_servo,
    "plug_servo": _plug_servo,
    "power_cycle": _power_cycle,
    "reboot": _reboot,
    "overload": _overload,
    "temperature": _temperature,
    "voltage": _voltage,
    "noise": _noise,
    "state": _state,
    "register": _register,
    "writes": _writes,
    "stalls": _stalls,
    "help": _help,
}
