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


def image_source(
    transport: str, camera: str = "main"
) -> tuple[type[Image] | type[CompressedImage], str]:
    """Return type and topic of a camera's images.

    Args:
        transport: one of `IMAGE_TRANSPORT.choices`.
        camera: name of the camera: the images of `main` are on camera/image_raw, those of any other
            on NAME/image_raw.
    """
    topic = f"{'camera' if camera == 'main' else camera}/image_raw"
    if transport == "compressed":
        return CompressedImage, f"{topic}/compressed"
    return Image, topic
