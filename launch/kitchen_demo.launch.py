"""The whole system at once: policy, simulated arm, web page, and a recording when asked for.

ros2 launch launch/kitchen_demo.launch.py
ros2 launch launch/kitchen_demo.launch.py episodes:=50 record:=demo_bag
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    ptr = PathJoinSubstitution([FindPackageShare("widowx_bringup"), "launch", "ptr.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("episodes", default_value="20"),
            DeclareLaunchArgument("record", default_value=""),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(ptr),
                launch_arguments={
                    "viewer": "web",
                    "episodes": LaunchConfiguration("episodes"),
                    "record": LaunchConfiguration("record"),
                }.items(),
            ),
        ]
    )
