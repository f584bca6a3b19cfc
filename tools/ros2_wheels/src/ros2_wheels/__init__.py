"""The `ros2` command for ROS 2 installed from wheels."""
