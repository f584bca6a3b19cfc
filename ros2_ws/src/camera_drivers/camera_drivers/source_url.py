"""Which kind of camera a `source` string names."""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")


class SourceKind(Enum):
    """Where images come from."""

    V4L2 = "v4l2"
    STREAM = "stream"
    VIDEO_FILE = "video_file"
    IMAGE_FOLDER = "image_folder"
    REALSENSE = "realsense"


# Sensors that make new images by themselves; their pixels never repeat exactly, thanks to noise.
DEVICE_KINDS = frozenset({SourceKind.V4L2, SourceKind.REALSENSE})
PLAYBACK_KINDS = frozenset({SourceKind.VIDEO_FILE, SourceKind.IMAGE_FOLDER})


@dataclass(frozen=True)
class SourceUrl:
    """A parsed `source`.

    Attributes:
        kind: what it names.
        location: device path, URL, file or folder path, or RealSense serial number ("": any).
    """

    kind: SourceKind
    location: str

    @property
    def label(self) -> str:
        """The location without user name and password: fit for logs and diagnostics."""
        if self.kind is SourceKind.STREAM:
            parts = urlsplit(self.location)
            host = parts.netloc.rpartition("@")[2]
            return urlunsplit(parts._replace(netloc=host, query=""))
        if self.kind is SourceKind.REALSENSE:
            return f"realsense://{self.location}"
        return self.location


def parse_source(source: str) -> SourceUrl:
    """Tells the kind of a source; files and folders must exist, devices and servers need not.

    Raises:
        ValueError: the string names none of the known kinds.
    """
    source = source.strip()
    if not source:
        raise ValueError(
            "source is empty; expected a device (/dev/video0), a stream (rtsp://… or http://…), "
            "a RealSense (realsense://[serial]), a video file or an image folder"
        )
    scheme = urlsplit(source).scheme.lower() if "://" in source else ""
    if scheme in STREAM_SCHEMES:
        if not urlsplit(source).hostname:
            raise ValueError(f"source '{source}' names no host; expected {scheme}://host[:port]/…")
        return SourceUrl(SourceKind.STREAM, source)
    if scheme == "realsense":
        return SourceUrl(SourceKind.REALSENSE, urlsplit(source).netloc)
    if scheme == "v4l2":
        return SourceUrl(SourceKind.V4L2, source[len("v4l2://") :])
    if scheme not in ("", "file"):
        raise ValueError(
            f"source has the scheme '{scheme}'; expected one of v4l2, realsense, file, "
            + ", ".join(STREAM_SCHEMES)
        )
    if re.fullmatch(r"\d+", source):
        return SourceUrl(SourceKind.V4L2, f"/dev/video{source}")
    path = Path(unquote(urlsplit(source).path) if scheme == "file" else source).expanduser()
    if path.is_relative_to("/dev"):
        return SourceUrl(SourceKind.V4L2, str(path))
    if path.is_dir():
        return SourceUrl(SourceKind.IMAGE_FOLDER, str(path))
    if path.is_file():
        return SourceUrl(SourceKind.VIDEO_FILE, str(path))
    raise ValueError(f"source '{source}' does not exist; expected a video file or an image folder")
