"""The Kobuki base over its serial protocol, without ROS."""
