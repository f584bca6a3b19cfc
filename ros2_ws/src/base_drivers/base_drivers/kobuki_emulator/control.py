"""Faults by name: the text commands that the emulator takes while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Final

from emulators.control_socket import do_command
from emulators.line_noise import LineNoise

from base_drivers.kobuki_emulator.base_server import KobukiServer

HELP: Final = """\
unplug | plug                         pull the cable, put it back at the same link
mute | unmute                         no feedback, as a base that is switched off
power_cycle                           switch off and on: encoders and clock begin anew
bumper SIDE ... | cliff SIDE ...      left, center, right; none: released, floor
wheel_drop SIDE ...                   left, right; none: on the floor
overcurrent SIDE ...                  left, right; none
battery VOLTS [CHARGER]               CHARGER: number of the protocol, 0 discharging
noise KEY=VALUE ...                   corrupt, drop (0..1 per byte), truncate; none: quiet
state                                 true pose, speeds and target as JSON
commands                              base control commands since the last call as JSON:
                                      [time on the steady clock in s, m/s, rad/s]
help                                  this text"""

_FRONT: Final = {"right": 1, "center": 2, "left": 4}
_WHEELS: Final = {"right": 1, "left": 2}
_CURRENTS: Final = {"left": 1, "right": 2}


def execute(server: KobukiServer, line: str) -> str:
    """Do one command and return what to print.

    Raises:
        CommandError: unknown command, wrong arguments.
    """
    with server.lock:
        return do_command({name: partial(act, server) for name, act in _COMMANDS.items()}, line)


def _bits(names: tuple[str, ...], table: dict[str, int]) -> int:
    value = 0
    for name in names:
        if name == "none":
            continue
        if name not in table:
            raise ValueError(f"'{name}'; expected one of {[*table, 'none']}")
        value |= table[name]
    return value


def _mute(server: KobukiServer, muted: bool) -> None:
    server.base.muted = muted


def _set_bits(sensor: str, table: dict[str, int]) -> Callable[..., str | None]:
    def command(server: KobukiServer, *names: str) -> None:
        setattr(server.base.sensors, sensor, _bits(names, table))

    return command


def _battery(server: KobukiServer, volts: str, charger: str = "0") -> None:
    server.base.sensors.battery_v = float(volts)
    server.base.sensors.charger = int(charger)


def _noise(server: KobukiServer, *settings: str) -> None:
    noise = LineNoise.of(settings)
    server.base.to_base.noise = server.base.to_host.noise = noise


def _state(server: KobukiServer) -> str:
    body, target = server.base.body, server.base.target
    return json.dumps(
        {
            "x_m": body.x_m,
            "y_m": body.y_m,
            "yaw_rad": body.yaw_rad,
            "travelled_m": body.travelled_m,
            "speed_m_s": body.velocity.x,
            "rate_rad_s": body.velocity.yaw,
            "target": [target.x, target.yaw],
        }
    )


def _commands(server: KobukiServer) -> str:
    taken = [(at, velocity.x, velocity.yaw) for at, velocity in server.log]
    server.log.clear()
    return json.dumps(taken)


_COMMANDS: Final[dict[str, Callable[..., str | None]]] = {
    "unplug": lambda server: server.unplug(),
    "plug": lambda server: server.plug(),
    "mute": lambda server: _mute(server, True),
    "unmute": lambda server: _mute(server, False),
    "power_cycle": lambda server: server.base.power_cycle(),
    "bumper": _set_bits("bumper", _FRONT),
    "cliff": _set_bits("cliff", _FRONT),
    "wheel_drop": _set_bits("wheel_drop", _WHEELS),
    "overcurrent": _set_bits("overcurrent", _CURRENTS),
    "battery": _battery,
    "noise": _noise,
    "state": _state,
    "commands": _commands,
    "help": lambda server: HELP,
}
