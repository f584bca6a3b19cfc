"""Command `servo_bus_emulator`: the servo bus of a WidowX 250 6DOF on a pseudo-terminal."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from functools import partial
from pathlib import Path

from emulators.control_socket import ControlSocket
from node_common.realtime import prefer_process, settle_process
from widowx_control.xs_driver.configuration import ConfigurationError, load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors

from servo_bus_emulator.bus import BusTiming
from servo_bus_emulator.bus_server import BusServer
from servo_bus_emulator.commands import HELP, execute
from servo_bus_emulator.widowx import widowx_bus


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="servo_bus_emulator",
        description="Emulates the DYNAMIXEL servos of a WidowX 250 6DOF on a serial port.",
        epilog=f"Commands on --control, one per connection or line:\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--link", type=Path, required=True, help="link to the port, e.g. /tmp/DXL")
    parser.add_argument("--control", type=Path, help="Unix socket that takes commands")
    parser.add_argument("--motor-configs", type=Path, help="default: the wx250s.yaml shipped")
    parser.add_argument("--baud-rate", type=int, default=1_000_000, help="for the timing")
    parser.add_argument("--usb-latency-ms", type=float, default=1.0, help="adapter's latency timer")
    parser.add_argument("--no-timing", action="store_true", help="answer at once")
    parser.add_argument("--factory-settings", action="store_true", help="unconfigured EEPROM")
    parser.add_argument("--seed", type=int, default=0, help="of the line noise")
    parser.add_argument(
        "--realtime-priority",
        type=int,
        default=30,
        help="of the bus, where the system allows it; 0: none",
    )
    arguments, _ = parser.parse_known_args(argv)
    return arguments


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted. Returns the exit status."""
    arguments = _arguments(argv)
    try:
        configuration = load_configuration(
            arguments.motor_configs or default_motors(), default_modes()
        )
    except ConfigurationError as error:
        print(f"servo_bus_emulator: {error}", file=sys.stderr)
        return 2
    timing = None
    if not arguments.no_timing:
        timing = BusTiming(arguments.baud_rate, arguments.usb_latency_ms * 1e-3)
    bus = widowx_bus(
        configuration,
        timing=timing,
        seed=arguments.seed,
        factory_settings=arguments.factory_settings,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    with (
        contextlib.suppress(KeyboardInterrupt),
        BusServer(bus, arguments.link, arguments.realtime_priority) as server,
    ):
        settle_process()
        if arguments.realtime_priority:
            prefer_process(max(1, arguments.realtime_priority // 2))
        print(f"servo_bus_emulator: {len(bus.servos)} servos on {server.port}", flush=True)
        control = (
            contextlib.nullcontext()
            if arguments.control is None
            else ControlSocket(partial(execute, server), arguments.control)
        )
        with control:
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
