"""What all lifecycle nodes do alike: refuse with a reason, hold what they made, come to rest."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from node_common.declared_parameters import check_change, declare_parameters, parameter_values
from node_common.diagnostics import ERROR, WARN, Diagnostics
from node_common.parameters import NodeParameter
from node_common.topic_watch import TopicWatch, other_publishers

Entity = TypeVar("Entity")
REPORT_PERIOD_S = 1.0
_NAME_S = 1.0


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclass says what happens in each state.

    A transition is refused by an exception of `configure` or `activate` (ValueError, RuntimeError,
    OSError): its message goes to log and diagnostics, what was held is given back, and the node
    stays in the state before. However the active state is left, `rest` is called once, while
    messages can still be sent; however the configured one is left, `release`.

    Args:
        name: of the node.
        table: its parameters, or what returns them of the node, when they depend on what is given.
        part: what the diagnostics are about, as in "arm_controller: control".
        hardware_id: of the diagnostics, if it is the same all the time.
        read_only: no parameter can change after the start.
        node_arguments: passed on to the lifecycle node.

    Attributes:
        active, configured: the state; `configured` also while active.
        fault: why the last transition was refused, or what the node says with `set_fault`.
        problems: what `watch` found wrong with inputs and outputs in the last second.
        watch: looks after inputs and outputs that are given to it, while they are held.
        steady_clock: for timers that a simulated clock must not stop.

    Raises:
        ParameterError: a parameter is unknown, mistyped or out of range.
    """

    # rclpy destroys a node whose constructor has failed, too.
    active = False
    configured = False

    def __init__(
        self,
        name: str,
        table: Sequence[NodeParameter] | Callable[[Node], Sequence[NodeParameter]],
        *,
        part: str,
        hardware_id: str = "",
        read_only: bool = False,
        **node_arguments: Any,
    ) -> None:
        super().__init__(name, **node_arguments)
        self._table = table(self) if callable(table) else table
        declare_parameters(self, self._table, read_only=read_only)
        self._held: list[Any] = []
        self._held_while_active: list[Any] | None = None
        self.fault = ""
        self.problems: list[str] = []
        self.watch = TopicWatch(self)
        self.diagnostics = Diagnostics(self, part, hardware_id=hardware_id)
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._after_set_parameters)
        self.create_timer(REPORT_PERIOD_S, self._look_after, clock=self.steady_clock)

    # --- for the subclass -------------------------------------------------------------------------

    def configure(self, values: dict[str, Any]) -> None:
        """Allocate: read files, make topics. Nothing moves."""

    def activate(self) -> None:
        """Begin with no memory of before. Lifecycle publishers work; `active` is set afterwards."""

    def rest(self, reason: str) -> None:
        """Bring to rest whatever moves; `active` is False already."""

    def release(self) -> None:
        """Give back what `configure` made and does not hold."""

    def report(self) -> None:
        """Publish the diagnostics; called once a second and after each transition."""

    def find_problems(self) -> list[str]:
        """What is wrong with inputs and outputs; called once a second."""
        return self.watch.problems()

    def check_values(self, values: dict[str, Any]) -> None:
        """Look at the values of all parameters before a change at run time.

        Raises:
            ValueError: they do not fit together.
        """

    def values_changed(self, values: dict[str, Any]) -> None:
        """Take over parameters that have changed at run time."""

    # --- what it can use --------------------------------------------------------------------------

    def values(self) -> dict[str, Any]:
        """The present parameters by name."""
        return parameter_values(self, self._table)

    def hold(self, entity: Entity) -> Entity:
        """Have a publisher, subscription, timer, client, service, or anything with `destroy`, given
        back when the state ends in which it was made; return it."""
        held = self._held if self._held_while_active is None else self._held_while_active
        held.append(entity)
        return entity

    def contradiction(self, topic: str) -> str:
        """Which other nodes publish a topic that only this one should; empty: none."""
        others = other_publishers(self, topic)
        if not others:
            return ""
        topic = self.resolve_topic_name(topic)
        return f"found {', '.join(others)} publishing {topic} too, expected one source of commands"

    def check_no_contradiction(self, topic: str) -> None:
        """Refuse to publish beside another node.

        Raises:
            ValueError: another node publishes the topic; named, if its name comes within a second.
        """
        deadline_s = time.monotonic() + _NAME_S
        while others := self.contradiction(topic):
            # A publisher may be discovered before the name of its node.
            if "UNKNOWN" not in others or time.monotonic() > deadline_s:
                raise ValueError(others)
            time.sleep(0.02)

    def publish_health(
        self,
        level: bytes,
        message: str,
        values: Mapping[str, Any],
        *,
        hardware_id: str = "",
        stamp: Time | None = None,
    ) -> None:
        """Publish diagnostics: the fault if there is one, else this with what `problems` adds."""
        if self.fault:
            level, message = ERROR, self.fault
        elif more := [problem for problem in self.problems if problem not in message]:
            level, message = max(level, WARN), "; ".join([message, *more])
        self.diagnostics.publish(level, message, values, hardware_id=hardware_id, stamp=stamp)

    def set_fault(self, message: str) -> None:
        """Say what is wrong; empty: nothing any more."""
        self.fault = message
        if message:
            self.get_logger().error(message)
        self.report()

    # --- lifecycle --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> Transition:
        """See the class."""
        try:
            with self._failure_told("configure"):
                self.configure(self.values())
        except (ValueError, RuntimeError, OSError) as error:
            self._release()
            self.set_fault(f"configure refused: {error}")
            return Transition.FAILURE
        self.configured = True
        result = super().on_configure(state)
        self.set_fault("")
        return result

    def on_activate(self, state: LifecycleState) -> Transition:
        """See the class."""
        result = super().on_activate(state)
        self._held_while_active = []
        try:
            with self._failure_told("activate"):
                self.activate()
        except (ValueError, RuntimeError, OSError) as error:
            self._end_activity()
            super().on_deactivate(state)
            self.set_fault(f"activate refused: {error}")
            return Transition.FAILURE
        # Not before: a goal in a thread of its own must not begin in a node that refuses.
        self.active = True
        self.set_fault("")
        return result

    def on_deactivate(self, state: LifecycleState) -> Transition:
        """See the class."""
        self.come_to_rest("the node was deactivated")
        result = super().on_deactivate(state)
        self.set_fault("")
        return result

    def on_cleanup(self, state: LifecycleState) -> Transition:
        """See the class."""
        self._release()
        self.set_fault("")
        return Transition.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> Transition:
        """See the class."""
        self.come_to_rest("the node was shut down")
        self._release()
        return Transition.SUCCESS

    def on_error(self, state: LifecycleState) -> Transition:
        """After an exception in a transition: rest, and be unconfigured."""
        self.come_to_rest("a transition of the node failed")
        self._release()
        return Transition.SUCCESS

    def destroy_node(self) -> None:
        """Come to rest, and give everything back."""
        self.come_to_rest("the node has ended")
        if self.configured:
            self._release()
        super().destroy_node()

    def come_to_rest(self, reason: str) -> None:
        """Leave the active state's work, whatever the state machine says."""
        if not self.active:
            return
        self.active = False
        self._end_activity()
        with self._failure_told("rest"):
            self.rest(reason)

    @contextlib.contextmanager
    def _failure_told(self, what: str) -> Iterator[None]:
        """Log what nobody expected: rclpy turns it into an error state without a word."""
        try:
            yield
        except (ValueError, RuntimeError, OSError):
            raise
        except Exception:
            self.get_logger().fatal(f"{what} failed:\n{traceback.format_exc()}")
            raise

    def _end_activity(self) -> None:
        held, self._held_while_active = self._held_while_active or [], None
        for entity in reversed(held):
            self._destroy(entity)
        self.problems = []

    def _release(self) -> None:
        held, self._held = self._held, []
        for entity in reversed(held):
            self._destroy(entity)
        self.problems = []
        self.configured = False
        self.release()

    def _destroy(self, entity: Any) -> None:
        self.watch.forget(entity)
        if isinstance(entity, LifecyclePublisher):
            self.destroy_lifecycle_publisher(entity)
        elif isinstance(entity, Publisher):
            self.destroy_publisher(entity)
        elif isinstance(entity, Subscription):
            self.destroy_subscription(entity)
        elif isinstance(entity, Timer):
            self.destroy_timer(entity)
        elif isinstance(entity, Client):
            self.destroy_client(entity)
        elif isinstance(entity, Service):
            self.destroy_service(entity)
        else:
            entity.destroy()

    # --- once a second, and parameters ------------------------------------------------------------

    def _look_after(self) -> None:
        self.problems = self.find_problems() if self.configured else []
        self.report()

    def _on_set_parameters(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        result = check_change(self._table, changes, configured=self.configured)
        if result.successful:
            try:
                self.check_values(self.values() | {c.name: c.value for c in changes})
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return result

    def _after_set_parameters(self, changes: list[Parameter[Any]]) -> None:
        self.values_changed(self.values())
