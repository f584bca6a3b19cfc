"""Conversion between ROS images and OpenCV arrays, with the interface of the ROS package."""

from cv_bridge.core import CvBridge, CvBridgeError, getCvType

__all__ = ["CvBridge", "CvBridgeError", "getCvType"]
