"""Driver of the arm's servo bus: DYNAMIXEL Protocol 2.0, Interbotix's ROS interface."""
