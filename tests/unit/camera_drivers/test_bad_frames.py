"""One frame that cannot be decoded is left out and counted; the source stays open."""

import http.server
import itertools
import threading
import time

import cv2
import numpy as np
import pytest
from camera_drivers.camera_config import CameraConfig
from camera_drivers.camera_diagnostics import Level, judge
from camera_drivers.capture_loop import Backoff, CaptureLoop, CaptureState
from camera_drivers.source_factory import make_source

PERIOD_S = 0.04


def picture(number):
    """A picture whose upper and lower halves both say its number (0 ... 15)."""
    image = np.random.default_rng(number).integers(0, 12, (96, 128, 3)).astype(np.uint8)
    return image + np.uint8(16 * (number % 16))


def number_of(image):
    """The number that both halves of a whole picture say; None: they differ."""
    halves = [round((float(half.mean()) - 5.5) / 16) for half in (image[:48], image[48:])]
    return halves[0] if halves[0] == halves[1] else None


def jpeg(number):
    return cv2.imencode(".jpg", picture(number))[1].tobytes()


DAMAGES = {
    "half": lambda data: data[: len(data) // 2],
    "nine tenths": lambda data: data[: 9 * len(data) // 10],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(500),
    "headers alone": lambda data: data[:300],
    "text": lambda data: b"503 busy",
}


class Server:
    """Multipart JPEG over HTTP; `damage(number, data)` is what it sends as a part."""

    def __init__(self, damage, with_length=True):
        self.connections = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for number in itertools.count():
                    data = damage(number, jpeg(number))
                    if data is None:
                        return
                    length = f"Content-Length: {len(data)}\r\n" if with_length else ""
                    head = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n"
                    try:
                        self.wfile.write(head.encode() + data + b"\r\n")
                    except OSError:
                        return
                    time.sleep(PERIOD_S)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def serve():
    servers = []

    def start(damage, **arguments):
        servers.append(Server(damage, **arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


class Capture:
    """A running loop over a source, as the driver has it."""

    def __init__(self, source, **settings):
        stop = threading.Event()
        self.reasons = []
        self.loop = CaptureLoop(
            make_source(CameraConfig(str(source), **settings), stop),
            stop,
            Backoff(5.0, 5.0),
            on_bad_frame=self.reasons.append,
        )

    def __enter__(self):
        self.loop.start()
        return self

    def __exit__(self, *_):
        assert self.loop.stop(10.0)

    def frames(self, enough, timeout_s=20.0):
        """Takes frames until `enough(frames, status)`."""
        frames, deadline_s = [], time.monotonic() + timeout_s
        while not enough(frames, self.loop.status()):
            assert time.monotonic() < deadline_s, (len(frames), self.loop.status())
            frame = self.loop.take(0.1)
            if frame is not None:
                frames.append(frame)
        return frames

    def condition(self):
        return judge(self.loop.status(), max_age_s=1.0, frozen_limit_frames=0, notes=())


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_part_of_a_stream_is_left_out(serve, kind):
    server = serve(lambda number, data: DAMAGES[kind](data) if number % 8 == 5 else data)
    with Capture(server.url) as capture:
        frames = capture.frames(lambda frames, status: status.bad_frames >= 3)
        status, condition = capture.loop.status(), capture.condition()
    assert server.connections == 1 and status.reconnects == status.failed_attempts == 0
    numbers = [number_of(frame.image) for frame in frames]
    assert None not in numbers, "no half picture is given out"
    assert not {5, 13} & set(numbers)
    steps = np.diff(numbers) % 16
    assert max(steps) <= 2, "only the damaged ones are missing"
    assert condition.level is Level.WARN
    assert "were left out: an image cannot be decoded" in condition.message
    assert int(condition.values["bad_frames"]) == status.bad_frames
    assert capture.reasons


def test_parts_without_a_length_and_jpegs_without_an_end_marker_are_taken(serve):
    server = serve(
        lambda number, data: {0: data[:-2], 1: data + bytes(40)}.get(number % 3, data),
        with_length=False,
    )
    with Capture(server.url) as capture:
        frames = capture.frames(lambda frames, status: len(frames) >= 9)
        assert capture.loop.status().bad_frames == 0
    assert None not in [number_of(frame.image) for frame in frames]


def test_a_stream_of_bad_frames_alone_is_opened_anew_and_says_so(serve):
    server = serve(lambda number, data: data if number < 3 else data[: len(data) // 2])
    with Capture(server.url) as capture:
        capture.frames(lambda frames, status: status.failed_attempts >= 1)
        status = capture.loop.status()
    assert status.bad_frames >= 5
    assert "images in a row cannot be decoded" in status.reason


def test_the_end_of_a_stream_is_called_so(serve):
    server = serve(lambda number, data: data if number < 4 else None)
    with Capture(server.url, read_timeout_s=5.0) as capture:
        capture.frames(lambda frames, status: status.state is CaptureState.RETRYING)
        status = capture.loop.status()
    assert "the server ended the stream" in status.reason
    assert status.bad_frames == 0 and "5 s" not in status.reason


def damaged_avi(path, bad):
    """An AVI of JPEGs in which the frames `bad` are zeros."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50.0, (128, 96))
    for number in range(16):
        writer.write(picture(number))
    writer.release()
    content = bytearray(path.read_bytes())
    start = content.index(b"movi")
    for number in range(16):
        start = content.index(b"00dc", start)
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        if number in bad:
            content[start + 8 : start + 8 + size] = bytes(size)
        start += 8 + size
    path.write_bytes(content)


def damaged_folder(path, bad):
    path.mkdir()
    for number in range(16):
        data = jpeg(number)
        (path / f"{number}.jpg").write_bytes(data[: len(data) // 2] if number in bad else data)


@pytest.mark.parametrize(("name", "write"), [("a.avi", damaged_avi), ("images", damaged_folder)])
def test_damaged_images_of_a_recording_are_left_out(tmp_path, name, write):
    bad = {0, 4, 5, 15}
    write(tmp_path / name, bad)
    source = make_source(
        CameraConfig(str(tmp_path / name), frame_rate_hz=100.0, loop=False), threading.Event()
    )
    stop = threading.Event()
    found = []
    loop = CaptureLoop(source, stop, Backoff(0.1, 0.1))
    loop._store = lambda frame, store=loop._store: (found.append(frame), store(frame))
    loop.start()
    deadline_s = time.monotonic() + 20.0
    while loop.status().state is not CaptureState.ENDED:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    status = loop.status()
    assert loop.stop(5.0)
    assert [number_of(frame.image) for frame in found] == sorted(set(range(16)) - bad)
    assert status.bad_frames == 4
    assert status.failed_attempts == 0
