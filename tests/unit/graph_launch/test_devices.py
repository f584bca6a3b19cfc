"""Devices that cannot be used are told before anything starts."""

import os
import pty
import socket
import subprocess
import sys

import pytest

pytest.importorskip("psutil")
from graph_launch.devices import camera_problem, serial_port_problem, tcp_port_problem


@pytest.fixture
def port(tmp_path):
    master, slave = pty.openpty()
    link = tmp_path / "ttyDXL"
    link.symlink_to(os.ttyname(slave))
    yield str(link)
    os.close(master)
    os.close(slave)


def problem(path):
    return serial_port_problem("port", str(path), "README.md")


def test_a_port_that_is_there_is_none(port):
    assert problem(port) is None
    assert problem(port) is None  # nor does the look keep it


def test_an_absent_port_names_the_argument_and_the_rule(tmp_path):
    text = problem(tmp_path / "ttyDXL")
    assert "does not exist" in text and "port:=" in text and "udev rule" in text
    assert "README.md" in text


def test_what_is_no_serial_port_is_said(tmp_path):
    file = tmp_path / "ttyDXL"
    file.touch()
    assert "no serial port" in problem(file)
    assert "cannot be opened" in problem(tmp_path)


def test_a_port_in_use_names_the_program(port):
    code = "import sys, serial; s = serial.Serial(sys.argv[1], exclusive=True); print(); input()"
    user = subprocess.Popen(
        [sys.executable, "-u", "-c", code, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        user.stdout.readline()
        assert f"pid {user.pid}" in problem(port)
    finally:
        user.kill()
        user.wait()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_no_permission_names_the_group(tmp_path):
    file = tmp_path / "ttyDXL"
    file.touch(mode=0)
    assert "usermod -aG" in problem(file)


def test_a_tcp_port_that_is_taken_is_said():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        number = server.getsockname()[1]
        assert "viewer_port:=" in tcp_port_problem("viewer_port", number)
    assert tcp_port_problem("viewer_port", number) is None


@pytest.mark.parametrize("source", ["rtsp://camera/1", "realsense://", "/dev/null"])
def test_a_camera_that_may_be_there_is_left_to_its_driver(source):
    assert camera_problem("camera", source) is None


@pytest.mark.parametrize("source", ["/dev/video99", "99", "/no/such/video.mp4"])
def test_an_absent_camera_is_named(source):
    text = camera_problem("camera", source)
    assert text.startswith("camera: ") and "does not exist" in text
