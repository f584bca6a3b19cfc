"""The command that gives an emulator faults from a terminal."""

import json
from functools import partial

import pytest
from emulators.control_socket import ControlSocket
from emulators.fault import main
from servo_bus_emulator.bus_server import BusServer
from servo_bus_emulator.commands import execute
from servo_bus_emulator.widowx import widowx_bus
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors


@pytest.fixture
def control(tmp_path):
    bus = widowx_bus(load_configuration(default_motors(), default_modes()))
    with (
        BusServer(bus, tmp_path / "port") as server,
        ControlSocket(partial(execute, server), tmp_path / "dxl.sock"),
    ):
        yield str(tmp_path / "dxl.sock")


def test_a_command_reaches_the_emulator_and_its_answer_is_printed(control, capsys):
    assert main([control, "overload", "4"]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert main([control, "state"]) == 0
    states = {servo["id"]: servo for servo in json.loads(capsys.readouterr().out)}
    assert states[4]["Hardware_Error_Status"] == 0x20
    assert states[5]["Hardware_Error_Status"] == 0


def test_what_is_not_understood_and_nobody_there_are_told(control, tmp_path, capsys):
    assert main([control, "overlaod", "4"]) == 1
    assert "unknown command 'overlaod'; expected one of" in capsys.readouterr().err
    assert main([str(tmp_path / "none.sock"), "state"]) == 1
    assert "started with this control socket?" in capsys.readouterr().err
