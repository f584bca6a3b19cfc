"""The skeleton of lifecycle nodes: refusals, what is held, rest and release."""

import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from node_common.diagnostics import ERROR, OK, WARN
from node_common.managed_node import ManagedNode
from node_common.parameters import NodeParameter
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from rclpy.node import Node
from rclpy.parameter import Parameter
from spun_nodes import SpunNodes
from std_msgs.msg import String

TABLE = (
    NodeParameter("low", 1.0, "smaller than high", 0.0, 9.0),
    NodeParameter("high", 2.0, "larger than low", 0.0, 9.0),
    NodeParameter("port", "tty", "of the device", structural=True),
)
DONE, REFUSED = Transition.SUCCESS, Transition.FAILURE


class Example(ManagedNode):
    """Remembers what happened; `faults` name the hooks that raise."""

    def __init__(self, **arguments):
        self.events, self.faults, self.trouble = [], {}, []
        super().__init__("example", TABLE, part="device", **arguments)
        self.sent = None

    def _happens(self, event):
        self.events.append(event)
        if event in self.faults:
            raise self.faults[event]

    def configure(self, values):
        self.commands = self.hold(self.create_lifecycle_publisher(Twist, "cmd_vel", 1))
        self.heard = self.hold(self.create_subscription(String, "words", lambda _: None, 1))
        self.watch.add(self.heard)
        self._happens("configure")

    def activate(self):
        # A goal in another thread must not begin in a node that may refuse yet.
        assert not self.active and self.commands.is_activated
        self.hold(self.create_timer(10.0, lambda: None))
        self.watch.add(self.hold(self.create_subscription(String, "more", lambda _: None, 1)))
        self._happens("activate")

    def rest(self, reason):
        assert not self.active
        # Messages can still be sent.
        self.sent = self.commands.is_activated
        self.events.append(f"rest: {reason}")

    def release(self):
        self.events.append("release")

    def report(self):
        self.publish_health(OK, "fine", {"port": self.get_parameter("port").value})

    def find_problems(self):
        return list(self.trouble)

    def check_values(self, values):
        if values["low"] >= values["high"]:
            raise ValueError(f"low {values['low']} is not below high {values['high']}")

    def values_changed(self, values):
        self.events.append(f"low {values['low']:g}")


@pytest.fixture
def make(free_domain):
    context, nodes = Context(), []
    rclpy.init(context=context, domain_id=free_domain)

    def node(kind=Example, **arguments):
        nodes.append(kind(context=context, **arguments))
        return nodes[-1]

    yield node
    for one in nodes:
        one.destroy_node()
    rclpy.try_shutdown(context=context)


def held(node):
    """What the node has beyond what every one has: publishers, subscriptions, timers."""
    return (
        sum(p.topic_name == "/cmd_vel" for p in node.publishers),
        sorted(s.topic_name for s in node.subscriptions if s.topic_name in ("/words", "/more")),
        sum(True for _ in node.timers),
    )


def test_each_state_has_what_was_made_for_it(make):
    node = make()
    nothing = held(node)
    assert (node.configured, node.active) == (False, False)
    assert node.trigger_configure() is DONE
    configured = held(node)
    assert configured == (1, ["/words"], nothing[2])
    assert not node.commands.is_activated
    for _ in range(2):
        assert node.trigger_activate() is DONE
        assert held(node) == (1, ["/more", "/words"], nothing[2] + 1)
        assert (node.configured, node.active) == (True, True)
        assert node.commands.is_activated
        assert node.trigger_deactivate() is DONE
        assert held(node) == configured and node.sent
    assert node.trigger_cleanup() is DONE
    assert held(node) == nothing and not node.configured
    cycle = ["activate", "rest: the node was deactivated"]
    assert node.events == ["configure", *cycle, *cycle, "release"]


@pytest.mark.parametrize("error", [ValueError("no arm"), RuntimeError("no arm"), OSError("no arm")])
def test_a_refused_transition_leaves_the_state_before(make, error):
    node = make()
    nothing = held(node)
    node.faults["configure"] = error
    assert node.trigger_configure() is REFUSED
    assert held(node) == nothing and not node.configured
    assert node.fault == "configure refused: no arm"
    node.faults = {"activate": error}
    assert node.trigger_configure() is DONE
    configured = held(node)
    assert node.fault == ""
    assert node.trigger_activate() is REFUSED
    assert held(node) == configured and not node.active and not node.commands.is_activated
    assert node.fault == "activate refused: no arm"
    node.faults = {}
    assert node.trigger_activate() is DONE and node.active
    # Nothing was moving when activation was refused.
    assert not any(event.startswith("rest") for event in node.events)


@pytest.mark.parametrize("way", ["shutdown", "destroy", "come_to_rest"])
def test_it_comes_to_rest_once_whatever_ends_it(make, way):
    node = make()
    node.trigger_configure()
    node.trigger_activate()
    if way == "shutdown":
        assert node.trigger_shutdown() is DONE
    elif way == "come_to_rest":
        node.come_to_rest("the node was interrupted")
        assert node.sent
    node.destroy_node()
    rests = [event for event in node.events if event.startswith("rest: ")]
    assert len(rests) == 1 and node.events[-1] == "release"


def test_a_node_whose_constructor_fails_can_be_destroyed(make):
    with pytest.raises(ValueError, match="low"):
        make(parameter_overrides=[Parameter("low", value=10.0)])


def test_values_that_do_not_fit_together_are_refused_at_run_time(make):
    node = make()
    node.trigger_configure()
    refusal = node.set_parameters_atomically([Parameter("low", value=3)])
    assert not refusal.successful and refusal.reason == "low 3.0 is not below high 2.0"
    both = [Parameter("low", value=3), Parameter("high", value=4)]
    assert node.set_parameters_atomically(both).successful
    assert node.events[-1] == "low 3"
    fixed = node.set_parameters_atomically([Parameter("port", value="usb")])
    assert not fixed.successful and "clean up first" in fixed.reason


def test_health_names_the_fault_before_the_problems(free_domain):
    nodes = SpunNodes(free_domain)
    listener, told = nodes.add(Node("listener", context=nodes.context)), []
    listener.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: told.extend(m.status), 50
    )
    node = Example(context=nodes.context, namespace="/left")

    def newest(done):
        node.report()
        deadline_s = time.monotonic() + 20.0
        while not (told and done(told[-1])):
            assert time.monotonic() < deadline_s, told[-1:]
            time.sleep(0.01)
            node.report()
        return told[-1]

    try:
        status = newest(lambda s: s.message == "fine")
        assert (status.level, status.name) == (OK, "left/example: device")
        assert [(v.key, v.value) for v in status.values] == [("port", "tty")]
        node.problems = ["nobody listens to /cmd_vel", "fine"]
        status = newest(lambda s: s.level == WARN)
        assert status.message == "fine; nobody listens to /cmd_vel"
        node.faults["configure"] = ValueError("no arm")
        node.trigger_configure()
        assert newest(lambda s: s.level == ERROR).message == "configure refused: no arm"
    finally:
        nodes.close()
        node.destroy_node()


def test_another_publisher_is_named(free_domain):
    nodes, others = SpunNodes(free_domain), SpunNodes(free_domain)
    node = nodes.add(Example(context=nodes.context))
    node.create_publisher(Twist, "cmd_vel", 1)
    other = others.add(Node("teleop", namespace="/hand", context=others.context))
    try:
        assert node.contradiction("cmd_vel") == ""
        other.create_publisher(Twist, "/cmd_vel", 1)
        deadline_s = time.monotonic() + 20.0
        while "/hand/teleop" not in node.contradiction("cmd_vel"):
            assert time.monotonic() < deadline_s, node.contradiction("cmd_vel")
            time.sleep(0.01)
        assert "expected one source of commands" in node.contradiction("cmd_vel")
    finally:
        others.close()
        nodes.close()
