"""Build a topological map, live or from a recorded drive.

ros2 launch gnm_nav map.launch.py map:=maps/office                # while somebody drives
ros2 launch gnm_nav map.launch.py map:=maps/office bag:=drive_1   # from a bag, then end
"""

from graph_launch.supervision import unless_running
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "map": ("", "directory of the map to write"),
    "bag": ("", "rosbag2 bag to build from; empty: the live topics"),
    "bundle": ("gnm_sim", "navigation model: path of a bundle, or its name below models/"),
    "image_topic": ("camera/image_raw", "images of the drive"),
    "image_transport": ("raw", "compressed: the images are on image_topic/compressed"),
    "odometry_topic": ("odom", "odometry of the drive, where there is one"),
    "spacing_steps": ("4.0", "model steps between two nodes"),
    "overwrite": ("false", "true: replace a map that is there"),
    "use_sim_time": ("false", "true: take the time of /clock"),
}


def _boolean(given: dict, name: str) -> bool:
    if given[name] not in ("true", "false"):
        raise ValueError(f"{name} is '{given[name]}'; expected true or false")
    return given[name] == "true"


def build(context: LaunchContext) -> list:
    given = context.launch_configurations
    if not given["map"]:
        raise ValueError("map is empty; expected the directory of the map to write")
    if given["image_transport"] not in ("raw", "compressed"):
        raise ValueError(
            f"image_transport is '{given['image_transport']}'; expected raw or compressed"
        )
    compressed = f"{given['image_topic']}/compressed"
    overwrite, use_sim_time = _boolean(given, "overwrite"), _boolean(given, "use_sim_time")
    if given["bag"]:
        options = {
            "--bag": given["bag"],
            "--out": given["map"],
            "--bundle": given["bundle"],
            "--image-topic": (
                compressed if given["image_transport"] == "compressed" else given["image_topic"]
            ),
            "--odometry-topic": given["odometry_topic"],
            "--spacing-steps": given["spacing_steps"],
        }
        arguments = [text for option in options.items() for text in option]
        node = Node(
            package="gnm_nav",
            executable="build_map",
            arguments=arguments + ["--overwrite"] * overwrite,
            output="screen",
        )
    else:
        node = Node(
            package="gnm_nav",
            executable="map_builder",
            name="map_builder",
            parameters=[
                {
                    "map": ParameterValue(given["map"], value_type=str),
                    "bundle": ParameterValue(given["bundle"], value_type=str),
                    "image_transport": given["image_transport"],
                    "spacing_steps": float(given["spacing_steps"]),
                    "overwrite": overwrite,
                    "use_sim_time": use_sim_time,
                }
            ],
            remappings=[
                ("camera/image_raw", given["image_topic"]),
                ("camera/image_raw/compressed", compressed),
                ("odom", given["odometry_topic"]),
            ],
            output="screen",
        )

    def finish(event, _context: LaunchContext) -> list:
        # Only an exception makes `ros2 launch` end with a non-zero status.
        if event.returncode:
            raise RuntimeError("no map was built; the message above says why")
        return [Shutdown(reason="the map is built")]

    handler = RegisterEventHandler(OnProcessExit(target_action=node, on_exit=finish))
    return unless_running(context, [handler, node])


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=build),
        ]
    )
