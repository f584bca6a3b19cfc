"""A whole number may be written for a real parameter of any node: `-p rate_hz:=10`."""

import camera_drivers.camera_parameters as camera
import pytest
import rclpy
from node_common.parameters import declare_parameters
from policy_server import policy_node
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from widowx_control import controller_parameters as controller


@pytest.fixture
def make_node(free_domain):
    context, nodes = Context(), []
    rclpy.init(context=context, domain_id=free_domain)

    def make(name, value):
        nodes.append(
            Node(
                "node",
                context=context,
                parameter_overrides=[Parameter(name, value=value)],
                automatically_declare_parameters_from_overrides=True,
            )
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.mark.parametrize(
    ("declare", "name", "value", "later"),
    [
        (controller.declare_parameters, "move_duration_s", 3, None),
        (camera.declare_parameters, "max_age_s", 2, 5),
    ],
)
def test_a_whole_number_is_taken_for_a_real_parameter(make_node, declare, name, value, later):
    node = make_node(name, value)
    declare(node)
    assert node.get_parameter(name).type_ is Parameter.Type.DOUBLE
    assert node.get_parameter(name).value == value
    if later is not None:  # the controller's parameters are read-only
        assert node.set_parameters([Parameter(name, value=later)])[0].successful
        assert node.get_parameter(name).value == later


def test_the_common_table_takes_whole_numbers_too(free_domain):
    context = Context()
    rclpy.init(context=context, domain_id=free_domain)
    node = Node(
        "node", context=context, parameter_overrides=[Parameter("camera_timeout_s", value=1)]
    )
    try:
        declare_parameters(node, policy_node.PARAMETERS)
        assert node.get_parameter("camera_timeout_s").value == 1.0
        assert not node.set_parameters([Parameter("camera_timeout_s", value="1")])[0].successful
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
