"""The Unitree Go2 over its sport service, without ROS."""
