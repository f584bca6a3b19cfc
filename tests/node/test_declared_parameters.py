"""Parameters of any node: what is given is taken, refused by name, or changed as a whole."""

import importlib

import pytest
import rclpy
from node_common.declared_parameters import check_change, declare_parameters, parameter_values
from node_common.parameters import NodeParameter, ParameterError
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

TABLE = (
    NodeParameter("rate_hz", 10.0, "a rate", 1.0, 50.0),
    NodeParameter("corner_m", [0.0, 1.0], "a corner"),
    NodeParameter("count", 3, "a number of things", 0, 9),
    NodeParameter("period_ms", 40, "a multiple", 0, 100, step=20),
    NodeParameter("kind", "round", "a shape", choices=("round", "square")),
    NodeParameter("name", "", "any text", structural=True),
    NodeParameter("on", True, "a switch"),
)
TABLES = (
    "widowx_control.controller_config",
    "widowx_control.xs_driver.node",
    "camera_drivers.camera_parameters",
    "policy_server.policy_node",
    "gnm_nav.navigator_node",
    "gnm_nav.path_follower_node",
    "gnm_nav.map_builder_node",
    "base_drivers.guard_parameters",
    "base_drivers.kobuki_driver",
    "base_drivers.go2_driver",
)


@pytest.fixture
def make_node(free_domain):
    context, nodes = Context(), []
    rclpy.init(context=context, domain_id=free_domain)

    def make(**given):
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        nodes.append(Node("node", context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_what_is_given_replaces_the_default(make_node):
    node = make_node(rate_hz=20.0, corner_m=[1.5, 2.5], kind="square", use_sim_time=False)
    values = declare_parameters(node, TABLE)
    assert values == {
        "rate_hz": 20.0,
        "corner_m": [1.5, 2.5],
        "count": 3,
        "period_ms": 40,
        "kind": "square",
        "name": "",
        "on": True,
    }
    assert parameter_values(node, TABLE) == values


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate_hz": 0.5}, "parameter rate_hz: found 0.5, expected a number from 1 to 50"),
        ({"rate_hz": float("nan")}, "parameter rate_hz: found nan, expected a number from 1 to 50"),
        ({"rate_hz": "fast"}, "parameter rate_hz: found 'fast', expected a number from 1 to 50"),
        ({"count": 10}, "parameter count: found 10, expected a whole number from 0 to 9"),
        ({"count": 2.5}, "parameter count: found 2.5, expected a whole number"),
        ({"count": True}, "parameter count: found True, expected a whole number"),
        ({"period_ms": 30}, "parameter period_ms: found 30, expected a multiple of 20"),
        ({"kind": "squre"}, "found 'squre', expected one of ['round', 'square'], did you mean"),
        ({"name": 3}, "parameter name: found 3, expected a string"),
        ({"on": 1}, "parameter on: found 1, expected true or false"),
        ({"corner_m": "0 1"}, "parameter corner_m: found '0 1', expected a list of numbers"),
        ({"rate": 5.0}, 'unknown parameter "rate", did you mean "rate_hz"? (known: corner_m, '),
    ],
)
def test_what_is_wrong_is_refused_with_what_was_expected(make_node, given, message):
    with pytest.raises(ParameterError) as refusal:
        declare_parameters(make_node(**given), TABLE)
    assert message in str(refusal.value)


@pytest.mark.parametrize("module", TABLES)
def test_a_whole_number_is_taken_for_every_real_parameter(make_node, module):
    table = importlib.import_module(module).PARAMETERS
    real = {e.name: round(e.high or 2.0) for e in table if isinstance(e.default, float)}
    whole = {
        e.name: value
        for e in table
        if (value := real.get(e.name)) is not None and not e.problem(float(value))
    }
    assert whole
    values = declare_parameters(make_node(**whole), table)
    assert all(type(values[name]) is float and values[name] == whole[name] for name in whole)


def test_changes_are_taken_as_a_whole(make_node):
    node = make_node()
    declare_parameters(node, TABLE)
    configured = False
    node.add_on_set_parameters_callback(
        lambda changes: check_change(TABLE, changes, configured=configured)
    )

    def change(**values):
        result = node.set_parameters_atomically(
            [Parameter(name, value=value) for name, value in values.items()]
        )
        return "" if result.successful else result.reason

    assert not change(rate_hz=20, corner_m=[3, 4], name="left")
    assert parameter_values(node, TABLE)["rate_hz"] == 20.0
    assert parameter_values(node, TABLE)["corner_m"] == [3.0, 4.0]
    assert "one of" in change(count=5, kind="oval")
    assert change(count=5, rate_hz="1")
    assert parameter_values(node, TABLE)["count"] == 3
    configured = True
    assert "name can change only while the node is unconfigured" in change(count=5, name="right")
    assert parameter_values(node, TABLE)["count"] == 3
    assert not change(count=5)


def test_read_only_ones_do_not_change(make_node):
    node = make_node(count=4)
    declare_parameters(node, TABLE, read_only=True)
    assert not node.set_parameters([Parameter("count", value=5)])[0].successful
    assert parameter_values(node, TABLE)["count"] == 4
