"""The Kobuki base over its serial protocol, without ROS."""

from typing import Final

DEFAULT_PORT: Final = "/dev/kobuki"
UDEV_RULE: Final = "udev/60-kobuki.rules of base_drivers"
