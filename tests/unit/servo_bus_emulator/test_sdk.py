"""The real SDK, its own port handler included, against the emulator on a pseudo-terminal."""

import dynamixel_sdk as dxl
import pytest
from emulators.control_socket import CommandError
from servo_bus_emulator.bus import BusTiming
from servo_bus_emulator.bus_server import BusServer
from servo_bus_emulator.commands import execute
from servo_bus_emulator.widowx import widowx_bus
from widowx_control.xs_driver.configuration import load_configuration
from widowx_control.xs_driver.package_files import default_modes, default_motors

IDS = tuple(range(1, 10))


@pytest.fixture
def server(tmp_path):
    configuration = load_configuration(default_motors(), default_modes())
    bus = widowx_bus(configuration, timing=BusTiming())
    with BusServer(bus, tmp_path / "ttyDXL", realtime_priority=30) as server:
        yield server


@pytest.fixture
def sdk(server, monkeypatch):
    # How long the SDK waits beyond the time on the wire, ms; a busy machine needs more.
    monkeypatch.setattr(dxl.port_handler, "LATENCY_TIMER", 500)
    port = dxl.PortHandler(server.port)
    assert port.openPort()
    assert port.setBaudRate(1_000_000)
    yield port, dxl.PacketHandler(2.0)
    port.closePort()


def test_every_servo_is_found_with_its_model(sdk):
    port, handler = sdk
    found, result = handler.broadcastPing(port)
    assert result == dxl.COMM_SUCCESS
    models = {servo_id: model for servo_id, (model, _) in found.items()}
    assert models == {i: 1060 if i in (8, 9) else 1020 for i in IDS}


def test_group_reads_and_writes_of_the_sdk(sdk):
    port, handler = sdk
    write = dxl.GroupBulkWrite(port, handler)
    for i in IDS:
        write.addParam(i, 112, 4, [100 + i, 0, 0, 0])
    assert write.txPacket() == dxl.COMM_SUCCESS
    for group in (
        dxl.GroupSyncRead(port, handler, 112, 4),
        dxl.GroupBulkRead(port, handler),
    ):
        for i in IDS:
            group.addParam(i, 112, 4) if isinstance(group, dxl.GroupBulkRead) else group.addParam(i)
        assert group.txRxPacket() == dxl.COMM_SUCCESS
        values = {i: group.getData(i, 112, 4) for i in IDS}
        # 3 listens to 2 and 5 to 4, which come after them in no packet: the last write wins.
        assert values == {i: 100 + i for i in IDS}
    fast = dxl.GroupSyncRead(port, handler, 132, 4)
    for i in IDS:
        fast.addParam(i)
    assert fast.fastSyncRead() == dxl.COMM_SUCCESS
    assert all(0 <= fast.getData(i, 132, 4) <= 4095 for i in IDS)


def test_registered_writes_wait_for_the_action(sdk):
    port, handler = sdk
    assert handler.regWriteTxRx(port, 1, 112, 4, [77, 0, 0, 0]) == (dxl.COMM_SUCCESS, 0)
    assert handler.read4ByteTxRx(port, 1, 112)[0] == 0
    assert handler.action(port, dxl.BROADCAST_ID) == dxl.COMM_SUCCESS
    assert handler.read4ByteTxRx(port, 1, 112)[0] == 77


def test_commands_by_text_and_their_errors(server, sdk):
    port, handler = sdk
    assert execute(server, "unplug_servo 4") == "ok"
    assert handler.ping(port, 4)[1] == dxl.COMM_RX_TIMEOUT
    execute(server, "plug_servo 4")
    assert handler.ping(port, 4)[1] == dxl.COMM_SUCCESS
    execute(server, "overload 2")
    assert handler.read1ByteTxRx(port, 2, 70)[0] == 0x20
    for line in ("fly", "overload", "overload 99", "noise corrupt=2", "noise speed=1", "voltage x"):
        with pytest.raises(CommandError):
            execute(server, line)
