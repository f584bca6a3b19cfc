"""The camera node as a process: parameters, lifecycle, topics and services."""

import contextlib
import http.server
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from sensor_msgs.srv import SetCameraInfo
from spun_nodes import SpunNodes

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Client:
    """Drives one camera_driver process and keeps what it publishes."""

    def __init__(self, nodes, domain, ros_home):
        self.nodes = nodes
        self.node = node = nodes.add(rclpy.create_node("camera_test", context=nodes.context))
        self.environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_HOME": str(ros_home)}
        self.process = None
        self.images: list[Image] = []
        self.infos: list[CameraInfo] = []
        self.compressed: list[CompressedImage] = []
        self.diagnostics: list[DiagnosticStatus] = []
        node.create_subscription(Image, "camera/image_raw", self.images.append, BEST_EFFORT)
        node.create_subscription(CameraInfo, "camera/camera_info", self.infos.append, BEST_EFFORT)
        node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 10
        )

    def start(self, *files, **parameters):
        command = [sys.executable, "-m", "camera_drivers.camera_driver", "--ros-args"]
        command += ["-r", "__ns:=/camera"]
        for file in files:
            command += ["--params-file", str(file)]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        self.process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def change(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.nodes.call(ChangeState, "/camera/camera_driver/change_state", request).success

    def state(self):
        request = GetState.Request()
        return self.nodes.call(
            GetState, "/camera/camera_driver/get_state", request
        ).current_state.id

    def bring_up(self, **parameters):
        self.start(**parameters)
        assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)

    def set(self, name, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.nodes.call(
            SetParameters, "/camera/camera_driver/set_parameters", request
        ).results[0]

    def latest_condition(self):
        if not self.diagnostics:
            return None, "", {}
        status = self.diagnostics[-1]
        return status.level, status.message, {item.key: item.value for item in status.values}

    def end(self):
        if self.process is None:
            return ""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.communicate(timeout=15)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def wait_until(condition, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def client(free_domain, monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    nodes = SpunNodes(free_domain)
    client = Client(nodes, free_domain, tmp_path)
    yield client
    client.end()
    nodes.close()


@pytest.fixture
def video(tmp_path):
    """A file whose picture is red on the left half and blue on the right."""
    path = tmp_path / "halves.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 50.0, (64, 48))
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32, 2] = 255
    picture[:, 32:, 0] = 255
    for _ in range(25):
        writer.write(picture)
    writer.release()
    return path


class MjpegServer:
    """A network camera: multipart JPEG over HTTP, on one port that can be closed and reopened."""

    def __init__(self):
        self.port = 0
        self.server: http.server.ThreadingHTTPServer | None = None
        self.open_connections: list[socket.socket] = []

    def start(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                outer.open_connections.append(self.connection)
                for count in itertools.count():
                    picture = np.full((48, 64, 3), count * 7 % 256, np.uint8)
                    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
                    try:
                        self.wfile.write(head.encode() + b"\r\n" + jpeg + b"\r\n")
                    except OSError:
                        return
                    time.sleep(0.02)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()
        for connection in self.open_connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.open_connections.clear()


@pytest.fixture
def network_camera():
    server = MjpegServer()
    server.start()
    yield server
    server.stop()


def pixels(message):
    shape = (message.height, message.width, 3)
    return np.frombuffer(message.data, np.uint8).reshape(shape).astype(int)


def test_video_file_is_published_as_rgb_with_its_calibration(client, video, tmp_path):
    calibration = tmp_path / "cam.yaml"
    calibration.write_text(
        "{image_width: 64, image_height: 48, camera_name: camera, distortion_model: plumb_bob,\n"
        "camera_matrix: {rows: 3, cols: 3, data: [60.5, 0, 32, 0, 61, 24, 0, 0, 1]},\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0, 0, 0]},\n"
        "rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]},\n"
        "projection_matrix: {rows: 3, cols: 4, data: [60, 0, 32, 0, 0, 61, 24, 0, 0, 0, 1, 0]}}\n"
    )
    client.bring_up(source=video, frame_id="cam_optical", camera_info_url=calibration.as_uri())
    wait_until(lambda: len(client.images) > 30 and len(client.infos) > 30)

    message = client.images[-1]
    assert (message.encoding, message.width, message.height, message.step) == ("rgb8", 64, 48, 192)
    picture = pixels(message)
    np.testing.assert_allclose(picture[:, 4:28].mean((0, 1)), (255, 0, 0), atol=12)
    np.testing.assert_allclose(picture[:, 36:60].mean((0, 1)), (0, 0, 255), atol=12)

    stamps_s = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in client.images]
    assert np.median(np.diff(stamps_s)) == pytest.approx(0.02, abs=0.001)
    assert 0.0 <= time.time() - stamps_s[-1] < 2.0

    info = client.infos[-1]
    assert info.header.frame_id == message.header.frame_id == "cam_optical"
    assert (info.k[0], info.p[5], info.d[1]) == (60.5, 61.0, -0.2)
    assert info.header.stamp in [m.header.stamp for m in client.images], "stamps pair them"


def test_deactivation_stops_the_images_and_activation_starts_them_again(client, video):
    client.bring_up(source=video)
    wait_until(lambda: client.images)
    assert client.change(Transition.TRANSITION_DEACTIVATE)
    wait_until(lambda: client.latest_condition()[1] == "inactive")
    count = len(client.images)
    seen = len(client.diagnostics)
    wait_until(lambda: len(client.diagnostics) > seen)
    assert len(client.images) == count
    assert client.change(Transition.TRANSITION_ACTIVATE)
    wait_until(lambda: len(client.images) > count)
    assert client.change(Transition.TRANSITION_DEACTIVATE)
    assert client.change(Transition.TRANSITION_CLEANUP)
    assert client.set("rotation_deg", 90).successful
    assert client.change(Transition.TRANSITION_CONFIGURE)
    assert client.change(Transition.TRANSITION_ACTIVATE)
    wait_until(lambda: client.images[-1].width == 48)
    picture = pixels(client.images[-1])
    np.testing.assert_allclose(picture[4:28].mean((0, 1)), (255, 0, 0), atol=12)


def test_jpeg_is_made_when_somebody_wants_it(client, video):
    client.bring_up(source=video)
    wait_until(lambda: client.images)
    subscription = client.node.create_subscription(
        CompressedImage, "camera/image_raw/compressed", client.compressed.append, BEST_EFFORT
    )
    wait_until(lambda: client.compressed)
    message = client.compressed[-1]
    assert message.format == "rgb8; jpeg compressed bgr8"
    picture = np.asarray(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR))
    np.testing.assert_allclose(picture[:, 4:28].mean((0, 1)), (0, 0, 255), atol=15)
    client.node.destroy_subscription(subscription)
    assert client.set("jpeg_quality", 10).successful
    assert not client.set("jpeg_quality", 0).successful


def test_stream_is_found_again_after_its_server_was_gone(client, network_camera):
    client.bring_up(
        source=f"http://admin:secret@127.0.0.1:{network_camera.port}/stream",
        reconnect_initial_s=0.05,
        reconnect_max_s=0.2,
        read_timeout_s=1.0,
    )
    wait_until(lambda: len(client.images) > 5)
    wait_until(lambda: client.latest_condition()[0] == OK)
    for count in (1, 2):
        network_camera.stop()
        wait_until(lambda: client.latest_condition()[0] == ERROR)
        assert "no image" in client.latest_condition()[1]
        network_camera.start()
        seen = len(client.images)
        wait_until(lambda seen=seen: len(client.images) > seen + 5)
        wait_until(lambda: client.latest_condition()[0] == OK)
        assert int(client.latest_condition()[2]["reconnects"]) == count
    assert client.state() == State.PRIMARY_STATE_ACTIVE
    output = client.end()
    assert "secret" not in output
    assert not any("secret" in str(status) for status in client.diagnostics)


def test_server_that_hangs_is_noticed(client, network_camera):
    client.bring_up(
        source=f"http://127.0.0.1:{network_camera.port}/", read_timeout_s=0.5, max_age_s=0.3
    )
    wait_until(lambda: client.images)
    # A server that accepts and then says nothing: no error, only silence.
    network_camera.stop()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", network_camera.port), http.server.BaseHTTPRequestHandler
    ):
        wait_until(lambda: client.latest_condition()[0] == ERROR)
        assert client.change(Transition.TRANSITION_DEACTIVATE), "silence does not block the node"
    network_camera.start()


def test_calibration_from_a_calibration_tool_is_stored_and_used(client, video, tmp_path):
    client.bring_up(source=video, camera_name="wrist")
    wait_until(lambda: client.infos)
    assert client.infos[-1].k[0] == 0.0, "an uncalibrated camera says so"
    info = CameraInfo(
        width=64, height=48, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0]
    )
    info.k = [50.0, 0.0, 32.0, 0.0, 51.0, 24.0, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [50.0, 0.0, 32.0, 0.0, 0.0, 51.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    wrong = CameraInfo(width=640, height=480)
    for request, expected in ((wrong, False), (info, True)):
        response = client.nodes.call(
            SetCameraInfo,
            "/camera/set_camera_info",
            SetCameraInfo.Request(camera_info=request),
        )
        assert response.success is expected, response.status_message
    wait_until(lambda: client.infos[-1].k[0] == 50.0)
    assert (tmp_path / "camera_info" / "wrist.yaml").is_file()
    client.end()
    client.infos.clear()
    client.bring_up(source=video, camera_name="wrist")
    wait_until(lambda: client.infos)
    assert client.infos[-1].k[4] == 51.0, "it is found again after a restart"


def test_calibration_of_an_unknown_model_leaves_the_camera_running(client, video, tmp_path):
    path = tmp_path / "cam.yaml"
    matrix = "{rows: 3, cols: 3, data: [60, 0, 32, 0, 61, 24, 0, 0, 1]}"
    path.write_text(
        "{image_width: 64, image_height: 48, camera_name: camera, distortion_model: double_sphere,"
        "distortion_coefficients: {rows: 1, cols: 2, data: [0.5, -0.2]},"
        f"camera_matrix: {matrix}, rectification_matrix: {matrix},"
        "projection_matrix: {rows: 3, cols: 4, data: [60,0,32,0,0,61,24,0,0,0,1,0]}}"
    )
    client.bring_up(source=video, camera_info_url=f"file://{path}")
    wait_until(lambda: client.images and client.infos)
    assert client.infos[-1].k[0] == 0.0
    wait_until(lambda: "double_sphere" in client.latest_condition()[1])
    assert client.latest_condition()[0] == WARN
    info = CameraInfo(width=64, height=48, distortion_model="fisheye", d=[0.1, 0.0, 0.0, 0.0])
    info.k = [50.0, 0.0, 32.0, 0.0, 51.0, 24.0, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [50.0, 0.0, 32.0, 0.0, 0.0, 51.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    request = SetCameraInfo.Request(camera_info=info)
    assert client.nodes.call(SetCameraInfo, "/camera/set_camera_info", request).success
    wait_until(lambda: client.infos[-1].distortion_model == "equidistant")
    wait_until(lambda: client.latest_condition()[0] == OK)
    assert "double_sphere" in client.end()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"source": ""}, "source is empty"),
        ({"source": "/no/such/file.mp4"}, "does not exist"),
        ({"source": "http://127.0.0.1:1/", "exposure_mode": "manual"}, "exposure_time_us"),
        ({"source": "/dev/video0", "camera_info_url": "file:///no/such.yaml"}, "/no/such.yaml"),
    ],
)
def test_bad_parameters_refuse_configuration_and_the_node_lives_on(client, parameters, message):
    client.start(**{name: value or "''" for name, value in parameters.items()})
    assert not client.change(Transition.TRANSITION_CONFIGURE)
    assert client.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert message in client.end()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"jpeg_quality": 101}, "jpeg_quality"),
        ({"sorce": "/dev/video0"}, 'unknown parameter "sorce", did you mean "source"'),
    ],
)
def test_parameters_out_of_range_or_unknown_end_the_process(client, parameters, message):
    client.start(**parameters)
    output = client.process.communicate(timeout=20)[0]
    assert message in output
    assert "Traceback" not in output
    assert client.process.returncode == 2


def test_parameters_that_shape_the_stream_cannot_change_while_it_runs(client, video):
    client.bring_up(source=video)
    result = client.set("image_width", 32)
    assert not result.successful
    assert "clean up first" in result.reason
    result = client.set("gain", 5)
    assert not result.successful, "a video file has no gain"
    wait_until(lambda: client.latest_condition()[0] == OK)


def test_device_that_is_not_there_is_an_error_in_the_diagnostics(client):
    client.bring_up(source="/dev/video63")
    wait_until(lambda: client.latest_condition()[0] == ERROR)
    assert "/dev/video63 cannot be opened" in client.latest_condition()[1]
    assert client.change(Transition.TRANSITION_DEACTIVATE)


def test_launch_file_brings_a_camera_up(client, video):
    command = ["ros2", "launch", "camera_drivers", "camera.launch.py", f"source:={video}"]
    command += ["image_width:=32", "image_height:=24", "frame_id:=lens"]
    client.process = subprocess.Popen(
        command, env=client.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: client.images, timeout_s=40.0)
    message = client.images[0]
    assert (message.width, message.height, message.header.frame_id) == (32, 24, "lens")
    assert "Traceback" not in client.end()


def test_launch_file_fails_when_the_driver_refuses(client):
    command = ["ros2", "launch", "camera_drivers", "camera.launch.py", "source:=/no/such.mp4"]
    result = subprocess.run(
        command, env=client.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert "/no/such.mp4" in result.stdout + result.stderr
