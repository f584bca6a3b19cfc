import http.client
import json
import time

import cv2
import numpy as np
import pytest
from episode_tools.monitor_server import MonitorServer, MonitorState


@pytest.fixture
def served():
    state = MonitorState(max_stream_hz=50.0)
    server = MonitorServer(state, port=0)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    yield state, connection
    connection.close()
    server.close()


def test_serves_the_page_and_its_state(served):
    state, connection = served
    state.update("policy", {"task": "open_drawer", "rate_hz": None})
    connection.request("GET", "/")
    page = connection.getresponse().read().decode()
    assert "/camera.mjpg" in page and "http://" not in page and "https://" not in page
    connection.request("GET", "/state.json")
    assert json.loads(connection.getresponse().read()) == {
        "policy": {"task": "open_drawer", "rate_hz": None}
    }


def test_refuses_other_paths_and_other_host_names(served):
    _, connection = served
    connection.request("GET", "/../setup.py")
    response = connection.getresponse()
    response.read()
    assert response.status == 404
    connection.request("GET", "/state.json", headers={"Host": "attacker.example"})
    assert connection.getresponse().status == 403


def test_streams_each_new_image_and_notices_when_the_viewer_leaves(served):
    state, connection = served
    connection.request("GET", "/camera.mjpg")
    response = connection.getresponse()
    for colour in ([200, 30, 30], [30, 30, 200]):
        image = np.full((48, 64, 3), colour, np.uint8)
        state.set_image(image)
        length = 0
        while (line := response.fp.readline().strip()) or not length:
            if line.startswith(b"Content-Length"):
                length = int(line.split(b":")[1])
        jpeg = np.frombuffer(response.fp.read(length), np.uint8)
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        shown = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        assert np.abs(shown.astype(int) - image).max() < 12
        response.fp.readline()
    assert state.viewers == 1
    response.close()
    connection.close()
    deadline_s = time.monotonic() + 5
    while state.viewers:
        assert time.monotonic() < deadline_s
        state.set_image(image)
        time.sleep(0.01)


def test_viewers_who_leave_while_the_camera_is_dead_are_forgotten(served):
    state, connection = served
    port = connection.port
    streams = []
    for _ in range(20):
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        stream.request("GET", "/camera.mjpg")
        streams.append((stream, stream.getresponse()))
    wait_for_viewers(state, 20)
    for stream, response in streams[1:]:
        response.close()
        stream.close()
    wait_for_viewers(state, 1)
    streams[0][0].close()
    streams[0][1].close()


def wait_for_viewers(state, count):
    deadline_s = time.monotonic() + 10
    while state.viewers != count:
        assert time.monotonic() < deadline_s, state.viewers
        time.sleep(0.01)
