"""How a node that looks at a camera is told whether its images are compressed."""

from __future__ import annotations

from sensor_msgs.msg import CompressedImage, Image

from node_common.parameters import NodeParameter

IMAGE_TRANSPORT = NodeParameter(
    "image_transport",
    "raw",
    "How images arrive: camera/image_raw, or camera/image_raw/compressed",
    choices=("raw", "compressed"),
    structural=True,
)


def image_source(transport: str) -> tuple[type[Image] | type[CompressedImage], str]:
    """Type and topic of the images, of one of `IMAGE_TRANSPORT.choices`."""
    if transport == "compressed":
        return CompressedImage, "camera/image_raw/compressed"
    return Image, "camera/image_raw"
