"""Control of the WidowX 250 6DOF: Bridge action space, kinematics, arm and gripper control.

Everything except `arm_controller_node` imports without ROS.
"""
