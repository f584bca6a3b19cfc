"""Why nothing arrives: what the graph tells of the other ends of a node's topics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rclpy.clock import ROSClock
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from node_common.pacing import stalled_clock_message

_CLOCK_STALL_S = 0.5


@dataclass(frozen=True)
class _Input:
    subscription: Any
    hint: str
    one_sender: bool


class TopicWatch:
    """Looks for publishers that a node cannot hear, for outputs that nobody hears, and for a
    simulated clock that stands.

    DDS matches neither another type nor a weaker quality of service, and says nothing of it to the
    nodes: the publisher sends, and the subscriber waits. Both are seen in the graph.

    Args:
        node: whose topics they are; each problem is logged once when it appears.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._inputs: list[_Input] = []
        self._outputs: list[Any] = []
        self._known: set[str] = set()
        self._clock_s = (-1.0, 0.0)

    def add(self, subscription: Any, hint: str = "", *, one_sender: bool = False) -> Any:
        """Watch a subscription from now on, and return it.

        Args:
            subscription: of the node.
            hint: what to do when something of another type is published.
            one_sender: two publishers contradict each other.
        """
        self._inputs.append(_Input(subscription, hint, one_sender))
        return subscription

    def add_output(self, publisher: Any) -> Any:
        """Watch a publisher that somebody must hear from now on, and return it."""
        self._outputs.append(publisher)
        return publisher

    def forget(self, entity: Any) -> None:
        """Watch a subscription or publisher no more; what was logged may be logged again."""
        self._inputs = [entry for entry in self._inputs if entry.subscription is not entity]
        self._outputs = [publisher for publisher in self._outputs if publisher is not entity]
        self._known.clear()

    def problems(self) -> list[str]:
        """Look now; a sentence for each problem. Call about once a second."""
        found = [] if not self._inputs else self._clock_problems()
        for entry in self._inputs:
            found += self._input_problems(entry)
        for publisher in self._outputs:
            found += self._output_problems(publisher)
        for problem in found:
            if problem not in self._known:
                self._node.get_logger().warning(problem)
        self._known = set(found)
        return found

    def _clock_problems(self) -> list[str]:
        clock = self._node.get_clock()
        if not isinstance(clock, ROSClock) or not clock.ros_time_is_active:
            return []
        now_s, steady_s = clock.now().nanoseconds * 1e-9, time.monotonic()
        if now_s != self._clock_s[0]:
            self._clock_s = (now_s, steady_s)
            return [] if now_s else [stalled_clock_message(now_s)]
        stands = steady_s - self._clock_s[1] > _CLOCK_STALL_S
        return [stalled_clock_message(now_s)] if stands else []

    def _input_problems(self, entry: _Input) -> list[str]:
        subscription = entry.subscription
        topic, expected = subscription.topic_name, _type_name(subscription.msg_type)
        found, heard = [], []
        for publisher in self._node.get_publishers_info_by_topic(topic):
            sender = endpoint_node(publisher)
            if publisher.topic_type != expected:
                problem = (
                    f"{topic} is published as {publisher.topic_type} by {sender}, expected "
                    f"{expected}"
                )
                found.append(f"{problem}: {entry.hint}" if entry.hint else problem)
                continue
            match, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
            if match == QoSCompatibility.ERROR:
                found.append(
                    f"{topic} is published by {sender} with a quality of service that does not "
                    f"match, nothing of it arrives: {reason.strip().rstrip(';')}"
                )
                continue
            heard.append(sender)
        if entry.one_sender and len(heard) > 1:
            found.append(
                f"{topic} has {len(heard)} senders, expected one: {', '.join(sorted(heard))}"
            )
        return found

    def _output_problems(self, publisher: Any) -> list[str]:
        if publisher.get_subscription_count() > 0:
            return []
        topic, offered = publisher.topic_name, _type_name(publisher.msg_type)
        others = [
            f"{endpoint_node(listener)} expects {listener.topic_type}"
            for listener in self._node.get_subscriptions_info_by_topic(topic)
            if listener.topic_type != offered
        ]
        if others:
            return [f"{topic} is published as {offered}, but {', '.join(sorted(others))}"]
        return [f"nobody listens to {topic}: does its receiver run, in this namespace and domain?"]


def publishers(node: Node, *topics: str) -> dict[bytes, str]:
    """The full name of the node behind each publisher of these topics, by the publisher's identity.

    Args:
        node: whose names are resolved.
        topics: names as the node uses them.
    """
    return {
        bytes(end.endpoint_gid): endpoint_node(end)
        for topic in topics
        for end in node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    }


def other_publishers(node: Node, topic: str) -> list[str]:
    """The nodes that publish a topic which a node publishes itself, or is about to.

    Args:
        node: which publishes it once, or not yet.
        topic: name as the node uses it.
    """
    mine = node.get_fully_qualified_name()
    names = list(publishers(node, topic).values())
    others = sorted({name for name in names if name != mine})
    return others or ([f"another {mine}"] if len(names) > 1 else [])


def endpoint_node(endpoint: TopicEndpointInfo) -> str:
    """The full name of the node that an endpoint belongs to."""
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _type_name(message_type: Any) -> str:
    package, kind = message_type.__module__.split(".")[:2]
    return f"{package}/{kind}/{message_type.__name__}"
