"""Makes the source that a configuration names."""

import threading

from camera_drivers.camera_config import CameraConfig
from camera_drivers.image_source import ImageSource
from camera_drivers.playback_source import ImageFolderSource, VideoFileSource
from camera_drivers.realsense_source import RealSenseSource
from camera_drivers.source_url import SourceKind
from camera_drivers.stream_source import StreamSource
from camera_drivers.v4l2_source import V4l2Source


def make_source(config: CameraConfig, stop: threading.Event) -> ImageSource:
    """Makes a source without opening it.

    Args:
        config: checked settings.
        stop: when set, a source that plays a recording ends its wait at once.
    """
    match config.url.kind:
        case SourceKind.V4L2:
            return V4l2Source(config)
        case SourceKind.STREAM:
            return StreamSource(config)
        case SourceKind.REALSENSE:
            return RealSenseSource(config)
        case SourceKind.VIDEO_FILE:
            return VideoFileSource(config, stop)
        case SourceKind.IMAGE_FOLDER:
            return ImageFolderSource(config, stop)
