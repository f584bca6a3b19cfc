"""Web page that shows a running policy: camera, task, action, timing and tally.

Serves one HTML page, its state as JSON and the camera as a motion-JPEG stream, to this machine
only.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import cv2
import numpy as np

LOOPBACK = "127.0.0.1"
_JPEG_QUALITY = 80
_BOUNDARY = "frame"
_FRAME_WAIT_S = 1.0
_STALLED_S = 10.0
"""A viewer that takes nothing for so long is given up [s]."""


class MonitorState:
    """Latest values, written by one thread and read by the web server's.

    Args:
        max_stream_hz: no viewer gets images faster than this [Hz].
    """

    def __init__(self, max_stream_hz: float = 10.0) -> None:
        self.max_stream_hz = max_stream_hz
        self._changed = threading.Condition()
        self._sections: dict[str, Any] = {}
        self._image: np.ndarray | None = None
        self._frame = 0
        self._jpeg = b""
        self._jpeg_frame = 0
        self._viewers = 0

    def update(self, section: str, values: Mapping[str, Any]) -> None:
        """Replace one section of the state; `values` must consist of JSON types."""
        with self._changed:
            self._sections[section] = dict(values)

    def snapshot(self) -> dict[str, Any]:
        """All sections."""
        with self._changed:
            return dict(self._sections)

    def set_image(self, image: np.ndarray) -> None:
        """Show an image, uint8 (height, width, 3), RGB. The array must not change afterwards."""
        with self._changed:
            self._image = image
            self._frame += 1
            self._changed.notify_all()

    @property
    def viewers(self) -> int:
        """How many camera streams are open."""
        return self._viewers

    def add_viewer(self, count: int) -> None:
        """Count a stream that opened (+1) or closed (-1)."""
        with self._changed:
            self._viewers += count

    def next_jpeg(self, after_frame: int) -> tuple[int, bytes] | None:
        """Wait for an image newer than `after_frame`; None when none came within a second.

        Each image is compressed once, however many viewers there are.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._frame > after_frame, _FRAME_WAIT_S):
                return None
            if self._jpeg_frame != self._frame and self._image is not None:
                _, encoded = cv2.imencode(
                    ".jpg",
                    cv2.cvtColor(self._image, cv2.COLOR_RGB2BGR),
                    [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY],
                )
                self._jpeg = encoded.tobytes()
                self._jpeg_frame = self._frame
            return self._jpeg_frame, self._jpeg


class _Handler(BaseHTTPRequestHandler):
    server: MonitorServer
    timeout = _STALLED_S

    def do_GET(self) -> None:
        # A page of another site must not read this one through a name that resolves to loopback.
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, "open this page as http://localhost")
            return
        routes: dict[str, Callable[[], None]] = {
            "/": self._page,
            "/state.json": self._state,
            "/camera.mjpg": self._camera,
        }
        route = routes.get(self.path)
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            route()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _page(self) -> None:
        page = resources.files("episode_tools").joinpath("monitor_page.html").read_bytes()
        self._send(page, "text/html; charset=utf-8")

    def _state(self) -> None:
        self._send(json.dumps(self.server.state.snapshot()).encode(), "application/json")

    def _send(self, body: bytes, content_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _camera(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        state = self.server.state
        state.add_viewer(1)
        try:
            frame = 0
            while not self.server.closing.is_set():
                started_s = time.monotonic()
                latest = state.next_jpeg(frame)
                if latest is None:
                    if self._viewer_left():
                        return
                    continue
                frame, jpeg = latest
                self.wfile.write(
                    f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                    f"Content-Length: {len(jpeg)}\r\n\r\n".encode()
                )
                self.wfile.write(jpeg + b"\r\n")
                spare_s = started_s + 1.0 / state.max_stream_hz - time.monotonic()
                self.server.closing.wait(max(spare_s, 0.0))
        finally:
            state.add_viewer(-1)

    def _viewer_left(self) -> bool:
        """Whether the viewer has closed the connection, which a write would tell, too."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the log: the page asks for its state twice a second."""


class MonitorServer(ThreadingHTTPServer):
    """HTTP server on the loopback interface, in its own threads.

    Args:
        state: what to show.
        port: TCP port; 0 picks a free one.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, state: MonitorState, port: int) -> None:
        self.state = state
        self.closing = threading.Event()
        super().__init__((LOOPBACK, port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, name="monitor", daemon=True)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and end all streams."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        self._thread.join()
