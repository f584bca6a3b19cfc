"""Whoever carries commands out ends after whoever commands."""

import time

import pytest
from node_common.running import END_TIMEOUT_S, serve_until_gone
from rclpy.node import Node
from spun_nodes import SpunNodes

USERS = ("arm_controller", "arm_guard")


@pytest.fixture
def arm(free_domain, monkeypatch):
    """A driver, and a function that makes another node."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain))
    nodes = SpunNodes(free_domain)
    driver = nodes.add(Node("xs_driver", namespace="/left", context=nodes.context))

    def make(name, namespace):
        other = SpunNodes(free_domain)
        made.append(other)
        other.add(Node(name, namespace=namespace, context=other.context))
        deadline_s = time.monotonic() + 20.0
        while (name, namespace) not in driver.get_node_names_and_namespaces():
            assert time.monotonic() < deadline_s, "not discovered"
            time.sleep(0.01)
        return other

    made = []
    yield driver, make
    for other in [*made, nodes]:
        other.close()


def test_nobody_is_waited_for_who_is_not_there(arm):
    driver, make = arm
    make("arm_controller", "/right")
    make("policy_node", "/left")
    served = []
    serve_until_gone(driver, USERS, lambda: served.append(1))
    assert not served


def test_a_controller_is_served_until_it_has_gone(arm):
    driver, make = arm
    controller = make("arm_controller", "/left")
    served = []

    def serve():
        served.append(time.monotonic())
        if len(served) == 20:
            controller.close()
        time.sleep(0.005)

    serve_until_gone(driver, USERS, serve)
    assert len(served) >= 20
    assert ("arm_controller", "/left") not in driver.get_node_names_and_namespaces()


def test_one_that_stays_is_not_waited_for_ever(arm):
    driver, make = arm
    make("arm_guard", "/left")
    started_s = time.monotonic()
    serve_until_gone(driver, USERS, lambda: time.sleep(0.01))
    assert END_TIMEOUT_S <= time.monotonic() - started_s < END_TIMEOUT_S + 5.0
